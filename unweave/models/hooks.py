"""Plain PyTorch hooks that read or replace the tensor at a site, whatever the module takes and returns."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from unweave.errors import UserError
from unweave.models.sites import Site

Action = Callable[[Site, Tensor], Tensor | None]
"""Called with the tensor at a site; what it returns takes the tensor's place, None leaves it."""


def read_at(model: nn.Module, site: Site, action: Action) -> list[RemovableHandle]:
    """Call ``action`` with the tensor at the site during every forward pass."""
    module = model.get_submodule(site.module)
    if site.side == "out":
        return [module.register_forward_hook(_on_output(site, action))]
    return [module.register_forward_pre_hook(_on_input(site, action), with_kwargs=True)]


def replace_at(model: nn.Module, site: Site, action: Action) -> list[RemovableHandle]:
    """Let the model go on from what ``action`` returns."""
    if site.side != "stream":
        return read_at(model, site, action)
    return _replace_stream(model, site, action)


def _replace_stream(model: nn.Module, site: Site, action: Action) -> list[RemovableHandle]:
    """The module reads a copy of the stream that its block also adds to, so the change is carried past the block.

    The carrying hook runs before any other on the block's output, so edits of that output see the change.
    """
    changes: list[Tensor] = []

    def replace_copy(site: Site, x: Tensor) -> Tensor | None:
        new = action(site, x)
        if new is not None:
            changes.append(new - x)
        return new

    def carry(_: Site, x: Tensor) -> Tensor | None:
        return x + changes.pop() if changes else None

    block = model.get_submodule(site.module.rpartition(".")[0])
    module = model.get_submodule(site.module)
    return [
        module.register_forward_pre_hook(_on_input(site, replace_copy), with_kwargs=True),
        block.register_forward_hook(_on_output(site, carry), prepend=True),
    ]


def _on_input(site: Site, action: Action) -> Callable[..., Any]:
    """The input is the first floating-point argument, by position or else by name."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        for i, value in enumerate(args):
            if isinstance(value, Tensor) and value.is_floating_point():
                new = action(site, value)
                return None if new is None else ((*args[:i], new, *args[i + 1 :]), kwargs)
        for name, value in kwargs.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                new = action(site, value)
                return None if new is None else (args, {**kwargs, name: new})
        raise UserError(f"{site.module} reads no activations; name its output, {site.module}:out, or another module")

    return hook


def _on_output(site: Site, action: Action) -> Callable[..., Any]:
    """The output is the tensor returned, or the first of a tuple or of a Hugging Face output; its container is kept."""

    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor):
            return action(site, output)
        new = action(site, output[0])
        if new is None:
            return None
        if isinstance(output, dict):
            return type(output)(**{**output, next(iter(output)): new})
        return type(output)((new, *output[1:]))

    return hook
