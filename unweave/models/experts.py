"""Inside a mixture of experts: where each token is sent, and what single experts make of it.

Of E experts a router picks k for each token x and weighs them by r_e (Shazeer et al. 2017, arXiv 1701.06538). With b
only where a family has it, and pre_linear only in gated experts, the mixture adds up

    out_e = r_e (W_down,e post_e + b_down,e)
    post_e = act(pre_e) * pre_linear_e
    pre_e, pre_linear_e = W_gate,up,e x + b_gate,up,e

transformers 5 keeps the weights of all experts in one module, as tensors [E, ., .], so no expert has a module of its
own. Here the model's own module always runs, however it does that. An expert that is watched is worked out once more
beside it, for the tokens that were sent to it, and adds (out_e' - out_e) to what the module gave: what is left alone
comes out bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unweave.errors import UserError
from unweave.models.site import Change, Handle


class Mixture(NamedTuple):
    """A mixture of experts in a model."""

    experts: str
    """Name of the module with the experts, a child of the one that reads [N, T, D]."""
    router: str | None
    """Name of the module beside it that weighs them, None where it cannot be told which that is."""
    n_experts: int
    points: tuple[str, ...]
    """What is seen of an expert, [N, T, .] with zeros for tokens that went elsewhere: ``pre`` and ``pre_linear`` in
    front of the activation, ``post`` behind it, and ``out``, what the expert adds."""

    @property
    def places(self) -> list[str]:
        """What can be watched: ``router``, the logits [N, T, E], to be read only; ``routing``, the weights r [N, T, E],
        0 for experts not chosen; and the points of each expert, as ``3.pre``."""
        return [*(["router"] if self.router else []), "routing", *self.of_experts]

    @property
    def of_experts(self) -> list[str]:
        return [f"{expert}.{point}" for expert in range(self.n_experts) for point in self.points]


def find_mixture(block: nn.Module) -> Mixture | None:
    """The mixture of experts that this module is; None where it is none, or none that is known."""
    children: dict[str, Any] = dict(block.named_children())
    experts = [name for name, child in children.items() if _holds_experts(child)]
    if len(experts) != 1:
        return None
    module = children[experts[0]]
    n_experts = len(module.down_proj)
    routers = [
        name
        for name, child in children.items()
        if isinstance(weight := getattr(child, "weight", None), Tensor) and weight.shape[:-1] == (n_experts,)
    ]
    points = ("pre", "pre_linear", "post", "out") if module.has_gate else ("pre", "post", "out")
    return Mixture(experts[0], routers[0] if len(routers) == 1 else None, n_experts, points)


@contextmanager
def inside_experts(model: nn.Module, path: str, changes: Mapping[str, Change]) -> Iterator[None]:
    """Within the block, call each change with what the mixture at ``path`` holds at its place.

    Contexts may be nested; the inner one sees what the outer one has changed.
    """
    with ExitStack() as stack:
        for place, change in changes.items():
            for handle in watch_mixture(model, path, place, change):
                stack.callback(handle.remove)
        yield


def watch_mixture(model: nn.Module, path: str, place: str, change: Change) -> list[Handle]:
    """Call ``change`` with what the mixture at ``path`` holds at one place, until the handles are removed.

    Of a new routing each token goes to the k experts with the largest weights, by these weights. A change of the
    router's logits is a ``UserError``: a router chooses before it hands its logits on.
    """
    block = model.get_submodule(path)
    mixture, shape = find_mixture(block), _Shape()
    assert mixture is not None and place in mixture.places
    noting = block.register_forward_pre_hook(shape.note, with_kwargs=True)
    experts = block.get_submodule(mixture.experts)
    if place == "routing":
        reroute = _Reroute(change, shape, mixture.n_experts)
        return [noting, experts.register_forward_pre_hook(reroute, with_kwargs=True)]
    if place == "router":
        assert mixture.router is not None
        show = _show_logits(change, shape, f"{path}.{mixture.router}")
        return [noting, block.get_submodule(mixture.router).register_forward_hook(show)]
    watched = next((hook for hook in experts._forward_hooks.values() if isinstance(hook, _Watched)), None)
    if watched is None:
        watched = _Watched()
        watched.handle = experts.register_forward_hook(watched, prepend=True, with_kwargs=True)
    expert, _, point = place.partition(".")
    return [noting, _Watch(watched, int(expert), point, change, shape)]


class _Shape:
    """What the rows of a mixture, which it lays end to end, were in the model."""

    def __init__(self) -> None:
        self.leading: tuple[int, ...] = ()

    def note(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        self.leading = tuple(x.shape[:-1])

    def unflatten(self, rows: Tensor) -> Tensor:
        return rows.view(*self.leading, rows.shape[-1])


def _show_logits(change: Change, shape: _Shape, router: str) -> Callable[..., None]:
    def show(module: nn.Module, args: Any, output: Any) -> None:
        logits = output if isinstance(output, Tensor) else output[0]
        if change(shape.unflatten(logits)) is not None:
            raise UserError(
                f"an edit of the logits of {router} would change nothing, for it has chosen experts by then; "
                "edit mlp.routing, the weights of the experts"
            )

    return show


class _Reroute:
    """Shows and changes the weights with which a mixture's experts are called."""

    def __init__(self, change: Change, shape: _Shape, n_experts: int) -> None:
        self._change, self._shape, self._n_experts = change, shape, n_experts

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        x, chosen, weights = (*args, *kwargs.values())
        routing = weights.new_zeros(*weights.shape[:-1], self._n_experts).scatter(-1, chosen, weights)
        shown = self._shape.unflatten(routing)
        new = self._change(shown)
        if new is None and not shown.requires_grad:
            return None
        new = (shown if new is None else new).reshape(routing.shape)
        is_left = (new == routing).all(-1, keepdim=True)  # these keep the order in which their experts are added up
        chosen = torch.where(is_left, chosen, new.topk(chosen.shape[-1], dim=-1).indices)
        values = (x, chosen, new.gather(-1, chosen))
        return values[: len(args)], dict(zip(kwargs, values[len(args) :], strict=True))


class _Watch:
    """One change at one point of one expert."""

    def __init__(self, watched: "_Watched", expert: int, point: str, change: Change, shape: _Shape) -> None:
        self._watched = watched
        self.expert, self.point, self.change, self.shape = expert, point, change, shape
        watched.watches.append(self)

    def remove(self) -> None:
        self._watched.watches.remove(self)
        if not self._watched.watches:
            self._watched.handle.remove()


class _Watched:
    """A hook on an experts module that lets all watches look on, each at what the ones before it have left."""

    handle: Handle

    def __init__(self) -> None:
        self.watches: list[_Watch] = []

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        x, chosen, weights = (*args, *kwargs.values())
        for expert in sorted({watch.expert for watch in self.watches}):
            tokens, slots = (chosen == expert).nonzero(as_tuple=True)
            rows, weight = x[tokens], weights[tokens, slots, None]
            shown = _Shown([watch for watch in self.watches if watch.expert == expert], tokens, len(x))
            new = _contribution(module, expert, rows, weight, shown)
            if shown.is_changed:
                difference = new - _contribution(module, expert, rows, weight, lambda point, rows: rows)
                output = output.index_add(0, tokens, difference.to(output.dtype))
        return output


class _Shown:
    """Shows an expert's rows among those of all tokens; where gradients are on they flow through what was shown."""

    def __init__(self, watches: list[_Watch], tokens: Tensor, n_tokens: int) -> None:
        self._watches, self._tokens, self._n_tokens = watches, tokens, n_tokens
        self.is_changed = False

    def __call__(self, point: str, rows: Float[Tensor, "R F"]) -> Float[Tensor, "R F"]:
        watches = [watch for watch in self._watches if watch.point == point]
        if not watches:
            return rows
        whole = rows.new_zeros(self._n_tokens, rows.shape[-1]).index_copy(0, self._tokens, rows)
        before = x = watches[0].shape.unflatten(whole)
        for watch in watches:
            new = watch.change(x)
            x = x if new is None else new
        if x is before and not x.requires_grad:
            return rows
        self.is_changed = True
        return x.reshape(whole.shape)[self._tokens]


def _contribution(
    experts: Any, expert: int, x: Float[Tensor, "R D"], weight: Float[Tensor, "R 1"], shown: Callable[..., Tensor]
) -> Float[Tensor, "R D"]:
    """What one expert adds for the rows that were sent to it."""
    if experts.has_gate:
        gate, up = _halves(experts, _linear(experts, "gate_up_proj", expert, x))
        post = experts._apply_gate(_joined(experts, shown("pre", gate), shown("pre_linear", up)))
    else:
        post = experts.act_fn(shown("pre", _linear(experts, "up_proj", expert, x)))
    out = _linear(experts, "down_proj", expert, shown("post", post))
    if experts.has_post_expert_norm:
        out = experts.post_expert_norm(out)
    return shown("out", (out * weight).to(x.dtype))


def _linear(experts: Any, name: str, expert: int, x: Float[Tensor, "R _"]) -> Float[Tensor, "R _"]:
    weight = getattr(experts, name)[expert]
    bias = getattr(experts, f"{name}_bias")[expert] if experts.has_bias else None
    return nn.functional.linear(x, weight.T if experts.is_transposed else weight, bias)


def _halves(experts: Any, both: Tensor) -> tuple[Tensor, Tensor]:
    if experts.is_concatenated:
        gate, up = both.chunk(2, dim=-1)
        return gate, up
    return both[..., ::2], both[..., 1::2]


def _joined(experts: Any, gate: Tensor, up: Tensor) -> Tensor:
    return torch.cat([gate, up], -1) if experts.is_concatenated else torch.stack([gate, up], -1).flatten(-2)


def _holds_experts(module: Any) -> bool:
    """Whether it is one of transformers' modules of experts, with weights that can be multiplied as they are."""
    weight = getattr(module, "down_proj", None)
    is_whole = isinstance(weight, Tensor) and weight.ndim == 3 and weight.dtype.itemsize > 1
    return is_whole and hasattr(module, "is_concatenated") and not module._is_expert_parallel
