"""One pass of a model on a few fixed tokens, with what every module reads and writes on the way."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unweave.models.hooks import first_activations, written_activations
from unweave.models.inputs import forward, random_inputs

_TOKENS = 7
_ROWS = 16
"""Rows that are kept of each tensor; images have more than are needed to tell tensors apart."""


class Edge(NamedTuple):
    """The tensor that enters or leaves a module."""

    rows: Float[Tensor, "R W"]
    """Its first rows as they were then, in double precision, on the CPU."""
    leading: tuple[int, ...]
    """Its shape before the width."""
    address: tuple[int, int]
    """Where it was in memory, and how many elements it had; all tensors were kept until the pass was over."""
    is_overwritten: bool
    """The model has written into the tensor later on."""


class Event(NamedTuple):
    """One run of one module."""

    path: str
    module: nn.Module
    started: int
    ended: int
    """Place in the order in which modules started and ended, each a number of its own."""
    read: Edge | None
    written: Edge | None


class Recording(NamedTuple):
    """What was seen of the modules that ran once."""

    events: dict[str, Event]
    dtype: torch.dtype
    """The model's own precision."""

    def within(self, path: str) -> list[Event]:
        """The modules below one, as they ended."""
        return sorted((e for e in self.events.values() if e.path.startswith(f"{path}.")), key=lambda e: e.ended)


def record(model: Any) -> Recording:
    """Run the model on the same inputs whenever it is called, without a trace in torch's own random state."""
    inputs = random_inputs(model, _TOKENS, torch.Generator().manual_seed(63))
    parameter = next(model.parameters())
    seen = _Seen()
    handles = []
    with torch.inference_mode(False), torch.no_grad():
        try:
            for path, module in model.named_modules():
                handles.append(module.register_forward_pre_hook(seen.starting(path), with_kwargs=True))
                handles.append(module.register_forward_hook(seen.ending(path)))
            forward(model, inputs.to(parameter.device))
        finally:
            for handle in handles:
                handle.remove()
    return Recording(seen.events(), parameter.dtype)


class _Running(NamedTuple):
    copy: Edge
    original: Tensor
    version: int

    def edge(self) -> Edge:
        return self.copy._replace(is_overwritten=self.original._version != self.version)


class _Seen:
    """Collects while the model runs; a module that runs again is left out."""

    def __init__(self) -> None:
        self._clock = 0
        self._starts: dict[str, list[tuple[int, _Running | None]]] = {}
        self._ends: dict[str, tuple[int, _Running | None, nn.Module]] = {}

    def starting(self, path: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._clock += 1
            self._starts.setdefault(path, []).append((self._clock, _running(first_activations(args, kwargs))))

        return hook

    def ending(self, path: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            self._clock += 1
            self._ends[path] = (self._clock, _running(written_activations(output)), module)

        return hook

    def events(self) -> dict[str, Event]:
        found = {}
        for path, starts in self._starts.items():
            if len(starts) > 1 or path not in self._ends:
                continue
            (started, read), (ended, written, module) = starts[0], self._ends[path]
            edges = [None if running is None else running.edge() for running in (read, written)]
            found[path] = Event(path, module, started, ended, *edges)
        return found


def _running(x: Tensor | None) -> _Running | None:
    if x is None or not x.is_floating_point() or x.ndim < 2:
        return None
    rows = x.reshape(-1, x.shape[-1])[:_ROWS].to("cpu", torch.float64, copy=True)
    return _Running(Edge(rows, tuple(x.shape[:-1]), (x.data_ptr(), x.numel()), False), x, x._version)
