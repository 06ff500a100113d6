"""What a coder makes of captured sequences at the rows that are wanted, reading these rows or whole sequences."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.coders import Port, SparseCoder
from unweave.types import Codes


class Coded(NamedTuple):
    """Codes of some rows, and what is written for them."""

    codes: Codes
    written_BD: Float[Tensor, "B D_write"]


def coded(coder: SparseCoder, captured: Mapping[str, Float[Tensor, "N T _"]], places: Int[Tensor, " B"]) -> Coded:
    """What a coder makes of the rows at ``places``, counted over the joined sequences of all its sites."""
    x = _read(coder, captured, places)
    codes = coder.encode(x)
    written_BD = coder.reconstruct(codes, x)
    if coder.reads_sequences:
        places = places.to(written_BD.device)
        return Coded(codes.rows(places), written_BD[places])
    return Coded(codes, written_BD)


def encoded(coder: SparseCoder, captured: Mapping[str, Float[Tensor, "N T _"]], places: Int[Tensor, " B"]) -> Codes:
    """The codes of the rows at ``places`` alone."""
    codes = coder.encode(_read(coder, captured, places))
    return codes.rows(places.to(codes.row_offsets.device)) if coder.reads_sequences else codes


def written(coder: SparseCoder, captured: Mapping[str, Float[Tensor, "N T _"]]) -> dict[str, Float[Tensor, "N T _"]]:
    """What a coder writes at each of its sites, for every token."""
    x_NTD = side_by_side(coder, captured, coder.wiring.reads)
    y_BD = coder(x_NTD if coder.reads_sequences else x_NTD.flatten(0, 1))
    parts = y_BD.unflatten(0, x_NTD.shape[:2]).split([port.width for port in coder.wiring.writes], dim=-1)
    return {port.site: part for port, part in zip(coder.wiring.writes, parts, strict=True)}


def side_by_side(
    coder: SparseCoder, activations: Mapping[str, Float[Tensor, "*B _"]], ports: Sequence[Port]
) -> Float[Tensor, "*B D"]:
    """Rows at several sites as one row, in the coder's precision."""
    parts = [activations[port.site].to(coder.W_dec.dtype) for port in ports]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def rows_at(
    coder: SparseCoder,
    captured: Mapping[str, Float[Tensor, "N T _"]],
    ports: Sequence[Port],
    places: Int[Tensor, " B"],
) -> Float[Tensor, "B D"]:
    """The rows at ``places`` of captured sequences, sites side by side."""
    found = {port.site: captured[port.site].flatten(0, 1) for port in ports}
    return side_by_side(coder, {site: x[places.to(x.device)] for site, x in found.items()}, ports)


def _read(
    coder: SparseCoder, captured: Mapping[str, Float[Tensor, "N T _"]], places: Int[Tensor, " B"]
) -> Float[Tensor, "B D"] | Float[Tensor, "N T D"]:
    """What the coder reads for these rows."""
    if coder.reads_sequences:
        return side_by_side(coder, captured, coder.wiring.reads)
    return rows_at(coder, captured, coder.wiring.reads, places)
