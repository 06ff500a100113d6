"""Inside attention: the queries, keys and values that meet, their scores, and the pattern in which values are mixed.

With q [N, H, T, e], k and v [N, H', S, e] of which each serves H / H' heads, a scale s, a cap c on the size of scores
(Gemma 2, arXiv 2408.00118) and a sink per head, all but s only where a model has them (``bias`` is that of T5):

    scores = c tanh(s q k^T / c) + bias + mask
    pattern = softmax(scores), or softmax([scores, sink]) less its last column
    z = pattern v

A Hugging Face model hands q, k, v and the mask to a function that it looks up in an ``AttentionInterface``. While a
point is watched, that entry of the interface is a function of ours, which runs the model's own one: the model, its
config and its masks stay as they are. Scores and pattern are worked out beside it, and an edited pattern p' goes on as
own + (p' v - pattern v), so what is left alone comes out bit for bit. Each time, pattern v is compared with what the
model's own function gave for z, and an attention of another kind is an error.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unweave.errors import UserError
from unweave.models.site import Change

Point = Literal["q", "k", "v", "scores", "pattern"]
"""q, k [N, T, H * e] after norms and rotary embedding and v are rows of all heads; scores and pattern [N, H, T, S]."""
POINTS: tuple[Point, ...] = get_args(Point)
ROWS: tuple[Point, ...] = ("q", "k", "v")
"""The points that hold a row for each token."""

_INTERFACE = "ALL_ATTENTION_FUNCTIONS"
"""What transformers calls the interface in the modules of its models."""


def attention_modules(model: nn.Module) -> list[str]:
    """Paths of the modules whose attention can be seen into; none in a model that works it out by itself."""
    return [path for path, module in model.named_modules() if is_seen_into(module)]


def is_seen_into(module: nn.Module) -> bool:
    """Whether it is attention by a function that the module looks up."""
    return _INTERFACE in _global_names(module)


@contextmanager
def inside_attention(model: nn.Module, changes: Mapping[tuple[str, str], Change]) -> Iterator[None]:
    """Within the block, call each change with what its attention module (by path) holds at its point.

    Contexts may be nested; the inner one sees what the outer one has changed. ``UserError`` for a module that cannot
    be seen into.
    """
    with ExitStack() as stack:
        for (path, point), change in changes.items():
            stack.callback(Watch(model, path, point, change).remove)
        yield


class Watch:
    """Calls ``change`` with what one attention module holds at a point, until it is removed."""

    def __init__(self, model: nn.Module, path: str, point: str, change: Change) -> None:
        self.module: Any = model.get_submodule(path)
        self.path, self.point, self.change = path, point, change
        if not is_seen_into(self.module):
            raise UserError(_opaque(model, path))
        self._interface = _forward(self.module).__globals__[_INTERFACE]
        self._name: str = self.module.config._attn_implementation
        if point not in ROWS and self._name not in ("eager", "sdpa"):
            raise UserError(
                f"{point} of {path} cannot be seen while the model runs {self._name!r} attention; "
                "load it with attn_implementation='sdpa'"
            )
        watched = self._interface.get(self._name)
        if not isinstance(watched, _Watched):
            watched = _Watched(watched, is_sdpa=self._name == "sdpa")
            self._interface[self._name] = watched
        watched.watches.append(self)

    def remove(self) -> None:
        """Watch no more; the last to go leaves the interface as it was."""
        watched = self._interface[self._name]
        watched.watches.remove(self)
        if not watched.watches:
            del self._interface[self._name]
            if self._interface.get(self._name) is not watched.own:
                self._interface[self._name] = watched.own


class _Watched:
    """Stands in an interface for the function that runs there, and lets watches look on."""

    def __init__(self, own: Callable[..., Any] | None, *, is_sdpa: bool) -> None:
        self.own = own
        self.is_sdpa = is_sdpa
        self.watches: list[Watch] = []

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **settings: Any
    ) -> tuple[Tensor, Tensor | None]:
        own = self.own or _own_eager(module)
        watches = [watch for watch in self.watches if watch.module is module]
        query, key, value = (
            _changed_heads(watches, point, heads) for point, heads in zip(ROWS, (query, key, value), strict=True)
        )

        def run_own() -> tuple[Tensor, Tensor | None]:
            return own(module, query, key, value, attention_mask, **settings)

        if all(watch.point in ROWS for watch in watches):
            return run_own()
        mask = attention_mask
        if self.is_sdpa and mask is None and query.shape[2] > 1 and _is_causal(module, settings):
            mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        scores = _scores(query, key, mask, settings)
        return _beside(run_own, watches, scores, _per_head(value, query), settings.get("s_aux"))


def _beside(
    run_own: Callable[[], tuple[Tensor, Tensor | None]],
    watches: list[Watch],
    scores: Float[Tensor, "N H T S"],
    value: Float[Tensor, "N H S e"],
    sinks: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """What the model's own function gives, with what the edits of scores and pattern change about it.

    Where gradients are on they flow through what was shown, not through the model's own function.
    """
    new_scores = _changed(watches, "scores", scores)
    pattern = _softmax(scores, sinks)
    shown = pattern if new_scores is scores else _softmax(new_scores, sinks)
    new = _changed(watches, "pattern", shown)
    with torch.no_grad():
        own, weights = run_own()
    mixed = _mixed(pattern, value)
    _prove(watches[0].path, mixed, own, scores)
    if new is pattern and not mixed.requires_grad:
        return own, weights
    return own + (_mixed(new, value) - mixed.detach()), None if weights is None else new


def _scores(query: Tensor, key: Tensor, mask: Tensor | None, settings: dict[str, Any]) -> Float[Tensor, "N H T S"]:
    scale = settings.get("scaling")
    scores = query @ _per_head(key, query).transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if (cap := settings.get("softcap")) is not None:
        scores = torch.tanh(scores / cap) * cap
    if (bias := settings.get("position_bias")) is not None:
        scores = scores + bias
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        mask = torch.where(mask, 0.0, torch.finfo(scores.dtype).min).to(scores.dtype)
    return scores + mask


def _softmax(scores: Float[Tensor, "N H T S"], sinks: Float[Tensor, "H"] | None) -> Float[Tensor, "N H T S"]:
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if sinks is None:
        return wide.softmax(-1).to(scores.dtype)
    columns = sinks.to(wide.dtype).view(1, -1, 1, 1).expand(*wide.shape[:3], 1)
    return torch.cat([wide, columns], -1).softmax(-1)[..., :-1].to(scores.dtype)


def _mixed(pattern: Float[Tensor, "N H T S"], value: Float[Tensor, "N H S e"]) -> Float[Tensor, "N T H e"]:
    return (pattern.to(value.dtype) @ value).transpose(1, 2)


def _per_head(heads: Tensor, query: Tensor) -> Float[Tensor, "N H S e"]:
    return heads.repeat_interleave(query.shape[1] // heads.shape[1], dim=1)


def _changed(watches: list[Watch], point: Point, x: Tensor) -> Tensor:
    for watch in watches:
        if watch.point == point:
            new = watch.change(x)
            x = x if new is None else new
    return x


def _changed_heads(watches: list[Watch], point: Point, heads: Float[Tensor, "N H S e"]) -> Float[Tensor, "N H S e"]:
    """Heads whose rows were shown and perhaps changed, laid out in memory as they were."""
    if all(watch.point != point for watch in watches):
        return heads
    rows = heads.transpose(1, 2).flatten(2)
    new = _changed(watches, point, rows)
    if new is rows and not rows.requires_grad:
        return heads
    new = new.unflatten(2, heads.transpose(1, 2).shape[2:]).transpose(1, 2)
    return new.contiguous() if heads.is_contiguous() else new


def _prove(path: str, mixed: Tensor, own: Tensor, scores: Tensor) -> None:
    """Raise unless the pattern accounts for what attention gave, at each query that sees a key at all."""
    tolerance = torch.finfo(own.dtype).eps ** 0.5
    sees = (scores.detach() > torch.finfo(scores.dtype).min / 2).any(-1).transpose(1, 2)
    is_same = mixed.shape == own.shape
    if not is_same or bool(((mixed - own).abs().amax(-1)[sees] > tolerance * own.abs().max()).any()):
        raise UserError(
            f"the attention of {path} is more than a softmax of scores that mixes values, so its scores and pattern "
            "cannot be shown; its q, k and v can"
        )


def _is_causal(module: Any, settings: dict[str, Any]) -> bool:
    stated = settings.get("is_causal")
    return bool(getattr(module, "is_causal", True) if stated is None else stated)


def _forward(module: nn.Module) -> Any:
    return inspect.unwrap(type(module).forward)


def _global_names(module: nn.Module) -> tuple[str, ...]:
    """Names of all that the module's forward uses from around it."""
    code = getattr(_forward(module), "__code__", None)
    return code.co_names if code else ()


def _own_eager(module: nn.Module) -> Callable[..., Any]:
    """The function that a model's own file has for attention without an implementation from elsewhere."""
    (name,) = (name for name in _global_names(module) if name.endswith("eager_attention_forward"))
    return _forward(module).__globals__[name]


def _opaque(model: Any, path: str) -> str:
    others = attention_modules(model)
    if others:
        return f"{path} is no attention module; name one such as {others[0]}"
    return (
        f"this {model.config.model_type} model works out its attention by itself, not by a function of transformers' "
        "AttentionInterface, so nothing inside it can be seen; attn.z and the projections around it can"
    )
