"""Steering: change chosen latents of a coder at chosen positions, and see what the model says then.

A row x with activations a goes on as x + decode(a') - decode(a), so what the coder does not explain stays. With s the
strength in units of u, a' is a apart from the chosen latents i:

- ``add``:    a'_i = a_i + s u, so x moves by s u along the decoder row of i, whatever the latent does there;
- ``clamp``:  a'_i = s u;
- ``scale``:  a'_i = s a_i;
- ``ablate``: a'_i = 0.

With u = 1 strengths are activations; with u the latent's largest activation on a text, s = 1 is as strong as it gets
there. Clamping as in Templeton et al. 2024, "Scaling Monosemanticity"; adding a direction as in Turner et al. 2023
(arXiv 2308.10248). The change of what comes next is KL(p || q) = sum_v p_v (log p_v - log q_v), in nats, with p before
the edit and q after it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.models.language_model import LatentEdit
from unweave.types import Codes

Mode = Literal["add", "clamp", "scale", "ablate"]


@dataclass(frozen=True, kw_only=True)
class Steer:
    """What is done to one latent, and where."""

    latent: int
    """Its number."""
    mode: Mode = "add"
    """``add``, ``clamp``, ``scale`` or ``ablate``."""
    strength: float | None = None
    """How much, in units; the factor of ``scale``; ``ablate`` has none."""
    unit: float = 1.0
    """Activation that is strength 1 of ``add`` and ``clamp``."""
    start: int = 0
    """The first position that is steered."""
    end: int | None = None
    """The position behind the last that is steered; None: there is no last."""

    def __post_init__(self) -> None:
        if (self.strength is None) != (self.mode == "ablate"):
            needs = "has no strength; leave it out" if self.mode == "ablate" else "needs a strength"
            raise UserError(f"{self.mode} {needs} (latent {self.latent})")
        if not math.isfinite((self.strength or 0.0) * self.unit):
            raise UserError(f"the strength of latent {self.latent} must be a number, got {self.strength} x {self.unit}")


@dataclass(frozen=True)
class SteerEdit:
    """The edit of the coder's site that steers some latents.

    Raises ``UserError`` for a coder that does not write where it reads, a latent that it has not, and one that is named
    twice.
    """

    coder: SparseCoder
    steers: Sequence[Steer]
    first: int = 0
    """Position of the first row that it is given."""

    def __post_init__(self) -> None:
        if self.coder.wiring.kind != "sae":
            raise UserError(f"steering needs a coder that writes where it reads, got a {self.coder.wiring.kind}")
        latents = [steer.latent for steer in self.steers]
        for latent in latents:
            if not 0 <= latent < self.coder.n_latents:
                raise UserError(f"there is no latent {latent}; this coder has latents 0 to {self.coder.n_latents - 1}")
            if latents.count(latent) > 1:
                raise UserError(f"latent {latent} is steered twice; name each latent once")

    @property
    def by_row(self) -> bool:
        """Whether each row is edited by itself."""
        return not self.coder.reads_sequences

    def at(self, first: int, /) -> "SteerEdit":
        """The edit of activations that begin at another position."""
        return replace(self, first=first)

    def __call__(self, x: Float[Tensor, "N T D"], /) -> Float[Tensor, "N T D"]:
        positions = torch.arange(self.first, self.first + x.shape[1], device=x.device).repeat(x.shape[0])
        return LatentEdit(self.coder, lambda codes: steered(codes, self.steers, positions))(x)


def steered(codes: Codes, steers: Sequence[Steer], positions: Int[Tensor, " B"]) -> Codes:
    """The codes with some latents changed, silent ones among them; ``positions``: that of each row."""
    ends = [math.inf if steer.end is None else steer.end for steer in steers]
    places = [(positions >= steer.start) & (positions < end) for steer, end in zip(steers, ends, strict=True)]
    if not any(bool(place.any()) for place in places):
        return codes
    column_L = torch.full((codes.n_latents,), -1, device=codes.latent_ids.device)
    column_L[[steer.latent for steer in steers]] = torch.arange(len(steers), device=column_L.device)
    columns = column_L[codes.latent_ids]
    mine = columns >= 0
    old_BS = codes.values.new_zeros(codes.n_rows, len(steers))
    old_BS[codes.row_ids[mine], columns[mine]] = codes.values[mine]
    new_BS = torch.stack([_changed(old_BS[:, i], steers[i], place) for i, place in enumerate(places)], dim=1)
    latents = torch.tensor([steer.latent for steer in steers], device=column_L.device)
    return _joined(codes.where(~mine), new_BS, latents)


def divergence(before_TV: Float[Tensor, "T V"], after_TV: Float[Tensor, "T V"]) -> Float[Tensor, " T"]:
    """KL(before || after) of next-token distributions, given as logits, in nats."""
    before, after = before_TV.float().log_softmax(-1), after_TV.float().log_softmax(-1)
    p = before.exp()
    return torch.where(p > 0, p * (before - after), 0.0).sum(-1).clamp(min=0)


def _changed(a_B: Float[Tensor, " B"], steer: Steer, place_B: Tensor) -> Float[Tensor, " B"]:
    strength = steer.strength or 0.0
    new_B = {
        "add": lambda: a_B + strength * steer.unit,
        "clamp": lambda: torch.full_like(a_B, strength * steer.unit),
        "scale": lambda: a_B * strength,
        "ablate": lambda: torch.zeros_like(a_B),
    }[steer.mode]()
    return torch.where(place_B, new_B, a_B)


def _joined(codes: Codes, values_BS: Float[Tensor, "B S"], latents: Int[Tensor, " S"]) -> Codes:
    """Codes with other latents beside their own, entries of a row sorted by latent; zeros are no entries."""
    rows, columns = values_BS.nonzero(as_tuple=True)
    row_ids = torch.cat([codes.row_ids, rows])
    latent_ids = torch.cat([codes.latent_ids, latents[columns].to(codes.latent_ids.dtype)])
    order = (row_ids * codes.n_latents + latent_ids).argsort()
    values = torch.cat([codes.values, values_BS[rows, columns]])[order]
    counts = torch.bincount(row_ids, minlength=codes.n_rows)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(codes.row_offsets.dtype)
    return Codes(values, latent_ids[order], offsets, codes.n_latents)
