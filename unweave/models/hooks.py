"""Plain PyTorch hooks that read or replace the tensor at a site, whatever the module takes and returns."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from unweave.errors import UserError
from unweave.models.attention import Watch
from unweave.models.experts import watch_mixture
from unweave.models.site import Change, Handle, Site

Action = Callable[[Site, Tensor], Tensor | None]
"""Called with what a site holds; what it returns takes its place, None leaves it."""


def read_at(model: nn.Module, site: Site, action: Action) -> list[Handle]:
    """Call ``action`` with what the site holds during every forward pass."""
    change, handles = _change(model, site, action)
    return [*handles, *_register(model, site, change)]


def replace_at(model: nn.Module, site: Site, action: Action) -> list[Handle]:
    """Let the model go on from what ``action`` returns.

    On the side ``stream`` the module reads a copy of the stream that its block also adds to, so the change is carried
    past the block. The carrying hook runs before any other on the block's output, so edits of that output see it.
    """
    if site.side != "stream":
        return read_at(model, site, action)
    change, handles = _change(model, site, action)
    deltas: list[Tensor] = []

    def replace_copy(x: Tensor) -> Tensor | None:
        new = change(x)
        if new is not None:
            deltas.append(new - x)
        return new

    def carry(x: Tensor) -> Tensor | None:
        return x + deltas.pop().view_as(x) if deltas else None

    block = model.get_submodule(site.block)
    carrying = block.register_forward_hook(lambda _, args, output: _in_output(output, carry), prepend=True)
    return [*handles, *_register(model, site, replace_copy), carrying]


def _change(model: nn.Module, site: Site, action: Action) -> tuple[Change, list[Handle]]:
    """The action as the module's own tensor sees it, through the lenses of the site."""
    leading: list[int] = []
    handles: list[Handle] = []

    def note_shape(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = first_activations(args, kwargs)
        leading[:] = [] if x is None else x.shape[:-1]

    def change(raw: Tensor) -> Tensor | None:
        own = raw.clone() if site.is_overwritten else raw
        own = own.reshape(*leading, own.shape[-1]) if leading else own
        new = action(site, site.read(own))
        if new is None:
            return None
        new = site.write(own, new).view_as(raw)
        return new.clone() if site.is_overwritten else new

    if site.is_flat:
        handles.append(model.get_submodule(site.block).register_forward_pre_hook(note_shape, with_kwargs=True))
    return change, handles


def _register(model: nn.Module, site: Site, change: Change) -> list[Handle]:
    module = model.get_submodule(site.module)
    if site.side == "attention":
        return [Watch(model, site.module, site.inner, change)]
    if site.side == "experts":
        return watch_mixture(model, site.module, site.inner, change)
    if site.side == "out":
        return [module.register_forward_hook(lambda _, args, output: _in_output(output, change))]
    if site.side == "norm":
        return [module.register_forward_hook(_in_norm(site, change), with_kwargs=True)]
    return [module.register_forward_pre_hook(_in_input(site, change), with_kwargs=True)]


def _in_norm(site: Site, change: Change) -> Callable[..., Tensor | None]:
    """Between the norm's scale, worked out from its input, and its weight."""
    assert site.norm is not None
    norm = site.norm

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        x = first_activations(args, kwargs)
        assert x is not None
        old = norm.normalised(x)
        new = change(old)
        if new is None:
            return None
        return output + ((new - old) * norm.effective_weight(module)).to(output.dtype)

    return hook


def _in_input(site: Site, change: Change) -> Callable[..., tuple[Any, Any] | None]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        x = first_activations(args, kwargs)
        if x is None:
            raise UserError(
                f"{site.module} reads no activations; name its output, {site.module}:out, or another module"
            )
        new = change(x)
        if new is None:
            return None
        i = next((i for i, value in enumerate(args) if value is x), None)
        if i is not None:
            return (*args[:i], new, *args[i + 1 :]), kwargs
        name = next(name for name, value in kwargs.items() if value is x)
        return args, {**kwargs, name: new}

    return hook


def _in_output(output: Any, change: Change) -> Any:
    """The output with its tensor changed, in a container of the same kind; None where it is left."""
    x = written_activations(output)
    assert x is not None
    new = change(x)
    if new is None or isinstance(output, Tensor):
        return new
    if isinstance(output, dict):
        return type(output)(**{**output, next(iter(output)): new})
    return type(output)((new, *output[1:]))


def first_activations(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What a module reads: its first floating-point argument, by position or else by name."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
    return None


def written_activations(output: Any) -> Tensor | None:
    """What a module writes: the tensor that it returns, or the first of several or of a Hugging Face output."""
    if isinstance(output, (tuple, list, dict)) and len(output):
        output = output[next(iter(output))] if isinstance(output, dict) else output[0]
    return output if isinstance(output, Tensor) else None
