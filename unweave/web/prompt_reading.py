"""What model and coder make of a text that was typed, kept while its page is looked at; hold ``Library.busy``."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from fastapi import Depends, Request
from jaxtyping import Bool, Int

from unweave.analysis.prompt_latents import Fired
from unweave.models.tokens import special_ids
from unweave.types import TokenBatch
from unweave.web.library import Loaded
from unweave.web.reading import coded_windows, windows

_KEPT = 4
"""Texts that stay read."""


class Likely(NamedTuple):
    """A token that may come next."""

    token_id: int
    probability: float


@dataclass(frozen=True)
class Reading:
    """A text as the model read it; places are counted over the joined windows."""

    token_ids: Int[np.ndarray, " T"]
    is_special: Bool[np.ndarray, " T"]
    window: int
    """Tokens of every window but the last, which may have fewer."""
    fired: Fired

    def window_of(self, place: int) -> tuple[int, int]:
        """The window of a place, as its first place and the one behind its last."""
        first = place // self.window * self.window
        return first, min(first + self.window, len(self.token_ids))


class Readings:
    """The texts that were read last."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], tuple[Loaded, Reading]] = OrderedDict()

    def read(self, run: str, loaded: Loaded, text: str) -> Reading:
        """The text by the run's model and coder, read at the first call."""
        known = self._known.get((run, text))
        if known is None or known[0].coder is not loaded.coder:
            known = loaded, _read(loaded, text)
            self._known[run, text] = known
        self._known.move_to_end((run, text))
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return known[1]


def _readings(request: Request) -> Readings:
    return request.app.state.readings


Shelf = Annotated[Readings, Depends(_readings)]
"""The app's readings, as the argument of a route."""


def predicted(loaded: Loaded, reading: Reading, place: int, n: int) -> tuple[list[Likely], Likely | None, int]:
    """The likeliest tokens behind a place, then the one that does come, and how many are likelier than it."""
    first, last = reading.window_of(place)
    logits_V = loaded.model.logits(torch.from_numpy(reading.token_ids[None, first : place + 1]))[0, -1]
    probability_V = logits_V.float().softmax(0).cpu()
    found = probability_V.topk(min(n, len(probability_V)))
    likely = [Likely(*pair) for pair in zip(found.indices.tolist(), found.values.tolist(), strict=True)]
    if place + 1 >= last:
        return likely, None, 0
    comes = int(reading.token_ids[place + 1])
    own = float(probability_V[comes])
    return likely, Likely(comes, own), int((probability_V > own).sum())


def _read(loaded: Loaded, text: str) -> Reading:
    batches = windows(loaded, text)
    token_ids = np.concatenate([batch.token_ids.flatten().numpy() for batch in batches])
    starts = np.cumsum([0, *(batch.token_ids.numel() for batch in batches)])
    parts = [_fired(loaded, batch, int(start)) for batch, start in zip(batches, starts, strict=False)]
    fired = Fired(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    special = np.isin(token_ids, special_ids(loaded.model))
    return Reading(token_ids, special, batches[0].token_ids.shape[1], fired)


def _fired(loaded: Loaded, batch: TokenBatch, start: int) -> Fired:
    if not batch.is_content.any():
        return Fired(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    codes, places = coded_windows(loaded, batch)
    found = places.cpu()[codes.row_ids.cpu()].numpy() + start
    values = codes.values.double().cpu().numpy()
    fired = Fired(found, codes.latent_ids.cpu().numpy().astype(np.int64), values)
    return fired.where(values != 0)
