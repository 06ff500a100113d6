"""Where the named points of a model are, each with the module and the side at which its tensor was seen in a probe."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unweave.errors import UserError
from unweave.models.attention import POINTS as IN_ATTENTION
from unweave.models.attention import is_seen_into
from unweave.models.experts import Mixture, find_mixture
from unweave.models.inputs import reads_tokens
from unweave.models.norms import recognise
from unweave.models.probe import Edge, Event, Recording, record
from unweave.models.residual import Added, Comparison, Kind, Part, find_blocks, hands_on, solve
from unweave.models.site import Columns, Lens, Scaled, Side, Site

POINTS = (
    "resid_pre",
    "ln1.normalized",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.scores",
    "attn.pattern",
    "attn.z",
    "attn_out",
    "resid_mid",
    "ln2.normalized",
    "mlp_in",
    "mlp.router",
    "mlp.routing",
    "mlp.pre",
    "mlp.pre_linear",
    "mlp.post",
    "mlp_out",
    "resid_post",
)
"""The points of a block, in order of depth."""
Sites = dict[str, Site]
"""By the name of the point."""


@dataclass(frozen=True)
class Layout:
    """What a probe has found in a model."""

    blocks: tuple[Sites, ...] = ()
    kinds: tuple[Kind | None, ...] = ()
    """How each block adds to the stream, None where that was not found."""
    first: Sites = field(default_factory=dict)
    """Points in front of the blocks."""
    last: Sites = field(default_factory=dict)
    """Points behind the blocks."""
    mixtures: tuple[Mixture | None, ...] = ()
    """The mixture of experts of each block that has one."""

    def points(self, layer: int) -> Sites:
        """Those of a block, with the points of each expert."""
        mixture = self.mixtures[layer]
        if mixture is None:
            return self.blocks[layer]
        found: Sites = {}
        for name, site in self.blocks[layer].items():
            found[name] = site
            if name == "mlp.routing":
                inside = {place: f"mlp.experts.{place}" for place in mixture.of_experts}
                found |= {name: site._replace(name=name, inner=place) for place, name in inside.items()}
        return found

    problem: str = ""
    """Why nothing was found."""


def find_layout(model: Any) -> Layout:
    """Probe a model and solve each of its blocks on its own."""
    try:
        recording = record(model)
    except UserError as error:
        return Layout(problem=str(error))
    except Exception as error:  # whatever a model of any kind may raise
        return Layout(problem=f"a pass on a few random tokens ends with {type(error).__name__}: {error}")
    paths = find_blocks(model, recording)
    if not paths:
        return Layout(problem="no list of blocks was found, of which each reads what the one before has written")
    added = [solve(recording, path) for path in paths]
    blocks = [_Block(recording, path, part) for path, part in zip(paths, added, strict=True)]
    return Layout(
        blocks=tuple(block.sites() for block in blocks),
        kinds=tuple(part.kind if part else None for part in added),
        first=_first(model, recording, paths[0]),
        last=_last(recording, paths[-1]),
        mixtures=tuple(block.mixture[1] if block.mixture else None for block in blocks),
    )


class _Gate(NamedTuple):
    """How the hidden activations of an MLP come about: act(pre), or act(pre) * up."""

    pre: tuple[Event, tuple[Lens, ...]]
    up: tuple[Event, tuple[Lens, ...]] | None


class _Block:
    """The points of one block."""

    def __init__(self, recording: Recording, path: str, added: Added | None) -> None:
        self.path = path
        self.block = recording.events[path]
        self.added = added
        self.comparison = Comparison(recording.dtype)
        self.inner = [e for e in recording.within(path) if not hands_on(e, self.comparison)]
        parts = [self.block, *recording.within(path)]
        self.attention = [e for e in parts if is_seen_into(e.module)]
        mixtures = [(e, mixture) for e in parts if (mixture := find_mixture(e.module))]
        self.mixture = mixtures[0] if len(mixtures) == 1 else None

    def sites(self) -> Sites:
        found: dict[str, Site | None] = {
            "resid_pre": self._site("resid_pre", self.block, "in"),
            "resid_post": self._site("resid_post", self.block, "out"),
        }
        found |= self._inside()
        if self.added is not None:
            found |= self._attention(self.added.attention) | self._middle(self.added)
            found |= self._mlp(self.added.mlp)
            mlp_in = self._mlp_in(self.added.mlp.event)
            found["mlp_in"] = mlp_in and self._site("mlp_in", mlp_in, "in")
            if self.added.kind != "post-norm":
                found["ln1.normalized"] = self._norm("ln1.normalized", self._attention_reads(self.added))
                found["ln2.normalized"] = self._norm("ln2.normalized", [mlp_in.read] if mlp_in else [])
        return {point: site for point in POINTS if (site := found.get(point)) is not None}

    def _attention(self, part: Part) -> dict[str, Site | None]:
        projection = self._projection(part.event)
        return {
            "attn_out": self._added("attn_out", part),
            "attn.z": projection and self._site("attn.z", projection, "in"),
        }

    def _inside(self) -> dict[str, Site | None]:
        """What attention and a mixture of experts hold within."""
        found: dict[str, Site | None] = {}
        if len(self.attention) == 1:
            path = self.attention[0].path
            found |= {f"attn.{p}": Site(f"attn.{p}", path, "attention", self.path, inner=p) for p in IN_ATTENTION}
        if self.mixture:
            path, mixture = self.mixture[0].path, self.mixture[1]
            places = ("router", "routing") if mixture.router else ("routing",)
            found |= {f"mlp.{p}": Site(f"mlp.{p}", path, "experts", self.path, inner=p) for p in places}
        return found

    def _middle(self, added: Added) -> dict[str, Site | None]:
        if added.middle is None:
            return {}
        return {"resid_mid": self._site("resid_mid", added.middle, "out" if added.kind == "post-norm" else "stream")}

    def _mlp(self, part: Part) -> dict[str, Site | None]:
        found: dict[str, Site | None] = {"mlp_out": self._added("mlp_out", part)}
        projection = self._projection(part.event)
        if projection is None:
            return found
        found["mlp.post"] = self._site("mlp.post", projection, "in")
        if gate := self._gate(projection):
            found["mlp.pre"] = self._site("mlp.pre", gate.pre[0], "out", gate.pre[1])
            if gate.up:
                found["mlp.pre_linear"] = self._site("mlp.pre_linear", gate.up[0], "out", gate.up[1])
        return found

    def _added(self, point: str, part: Part) -> Site:
        return self._site(point, part.event, "out", () if part.factor == 1 else (Scaled(part.factor),))

    def _projection(self, target: Event) -> Event | None:
        """The linear module whose output is what ``target`` writes, or what it reads to normalise or scale it."""
        same, is_last_step = self.comparison.same, not self._has_parts(target)
        found = [
            e
            for e in self.inner
            if _is_linear(e.module)
            and e.ended <= target.ended
            and (same(e.written, target.written) or (is_last_step and same(e.written, target.read)))
        ]
        return max(found, key=lambda e: e.ended, default=None)

    def _gate(self, projection: Event) -> _Gate | None:
        """Around the module that applies the activation function."""
        post = projection.read
        earlier = [e for e in self.inner if e.ended < projection.started]
        views = [(e, *view) for e in earlier if _is_linear(e.module) for view in _views(e.written, post)]
        for act in earlier:
            if _is_linear(act.module) or act.read is None or act.written is None or post is None:
                continue
            pre = [(e, lenses) for e, lenses, edge in views if self.comparison.same(edge, act.read)]
            if not pre or act.written.rows.shape != post.rows.shape:
                continue
            if self.comparison.same(act.written, post):
                return _Gate(pre[-1], None)
            for e, lenses, edge in views:
                if self.comparison.is_product(post.rows, act.written.rows, edge.rows):
                    return _Gate(pre[-1], (e, lenses))
        return None

    def _mlp_in(self, target: Event) -> Event | None:
        """The outermost module that reads what the MLP reads, and no more than the MLP."""
        whole = self._whole(target)
        if whole is not None:
            return whole if self._has_width(whole.read) else None
        projection = self._projection(target)
        gate = self._gate(projection) if projection else None
        if gate is None:
            return None
        first = gate.pre[0]
        around = [e for e in self.inner if first.path.startswith(f"{e.path}.")]
        same = [e for e in (*around, first) if self.comparison.same(e.read, first.read)]
        return min(same, key=lambda e: len(e.path))

    def _whole(self, target: Event) -> Event | None:
        """The module that has all of the MLP within it, where there is one."""
        if self._has_parts(target):
            return target
        same = self.comparison.same
        wrote = [e for e in self.inner if same(e.written, target.written) or same(e.written, target.read)]
        wholes = [e for e in wrote if e.ended <= target.ended and self._has_parts(e)]
        return max(wholes, key=lambda e: e.ended, default=None)

    def _attention_reads(self, added: Added) -> list[Edge | None]:
        """What is read between the start of the block and the end of attention."""
        mlp = self._whole(added.mlp.event)
        inside = [e for e in self.inner if mlp is None or not f"{e.path}.".startswith(f"{mlp.path}.")]
        return [e.read for e in inside if e.ended <= added.attention.event.ended]

    def _norm(self, point: str, readers: list[Edge | None]) -> Site | None:
        """The norm of the stream whose output is read."""
        assert self.added is not None
        stream = self.added.between if point == "ln2.normalized" and self.added.between else self.block.read
        found: list[tuple[bool, Site]] = []
        for event in sorted(self.inner, key=lambda e: -e.started):
            read = [edge for edge in readers if self.comparison.same(event.written, edge)]
            if not read or event.read is None or event.written is None or self._has_parts(event):
                continue
            if not self.comparison.same(event.read, stream):
                continue
            norm = recognise(event.module, event.read.rows, event.written.rows, self.comparison.dtype)
            if norm is not None:
                is_itself = any(edge is not None and edge.address == event.written.address for edge in read)
                found.append((is_itself, self._site(point, event, "norm")._replace(norm=norm)))
        return max(found, key=lambda one: one[0])[1] if found else None

    def _site(self, point: str, event: Event, side: Side, lenses: tuple[Lens, ...] = ()) -> Site:
        edge = event.written if side == "out" else event.read
        assert edge is not None and self.block.read is not None
        is_flat = len(edge.leading) < len(self.block.read.leading)
        return Site(point, event.path, side, self.path, lenses, None, is_flat, edge.is_overwritten)

    def _has_width(self, edge: Edge | None) -> bool:
        return edge is not None and self.block.read is not None and edge.rows.shape == self.block.read.rows.shape

    def _has_parts(self, event: Event) -> bool:
        return any(e.path.startswith(f"{event.path}.") for e in self.inner)


def _first(model: Any, recording: Recording, block: str) -> Sites:
    """The input embedding, times the number by which it enters the first block where nothing else does."""
    embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    event = next((e for e in recording.events.values() if e.module is embedding and e.written is not None), None)
    if event is None or event.written is None:
        return {}
    start = recording.events[block].read
    assert start is not None
    lenses: tuple[Lens, ...] = ()
    if reads_tokens(model) and start.rows.shape == event.written.rows.shape:
        e = event.written.rows
        factor = float((start.rows * e).sum() / e.square().sum())
        if factor != 1 and Comparison(recording.dtype).is_sum(start.rows, torch.zeros_like(e), [e], factor):
            lenses = (Scaled(float(f"{factor:.8g}")),)
    return {"embed": Site("embed", event.path, "out", "", lenses, None, False, event.written.is_overwritten)}


def _last(recording: Recording, block: str) -> Sites:
    """The norm that reads what the last block has written."""
    end, comparison = recording.events[block], Comparison(recording.dtype)
    for event in sorted(recording.events.values(), key=lambda e: e.started):
        if event.started < end.ended or event.read is None or event.written is None:
            continue
        if not comparison.same(event.read, end.written):
            continue
        norm = recognise(event.module, event.read.rows, event.written.rows, recording.dtype)
        if norm is not None:
            site = Site("ln_final", event.path, "out", "", (), None, False, event.written.is_overwritten)
            return {"ln_final.normalized": site._replace(name="ln_final.normalized", side="norm", norm=norm)} | {
                "ln_final": site
            }
    return {}


def _views(edge: Edge | None, like: Edge | None) -> list[tuple[tuple[Lens, ...], Edge]]:
    """The tensor itself where it is as wide as another, or its halves where it is twice as wide."""
    if edge is None or like is None:
        return []
    width = like.rows.shape[-1]
    if edge.rows.shape[-1] == width:
        return [((), edge)]
    if edge.rows.shape[-1] != 2 * width:
        return []
    halves: list[Tensor] = [edge.rows[:, :width], edge.rows[:, width:]]
    return [((Columns(i * width, (i + 1) * width),), edge._replace(rows=half)) for i, half in enumerate(halves)]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2 has a linear class of its own
