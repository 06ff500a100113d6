"""How well a coder works where it was not trained: at another layer or in another model, as it is or through a map.

Rows x of the coder's own site and rows y of another, of the same tokens, give two affine maps by least squares,
y A + a for x and x B + b for y. The coder's reconstruction g is then judged on other rows, by explained variance:

    home       g(x) against x                     as it is   g(y) against y, where the widths agree
    mapped     g(y A + a) B + b against y         map only   (y A + a) B + b against y, which no coder behind the maps
                                                             can be expected to beat

Lan et al. 2024 (arXiv 2410.06981) compare latents over models; Kissane et al. 2024, "SAEs (usually) transfer between
base and chat models", judge a coder on another model's rows.
"""

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.metrics.base import Definition, Metric, Sums, ratio

DEFINITIONS = (
    Definition(
        "transfer_home",
        "Explained variance at home",
        "Explained variance of the coder on rows of its own site.",
        "over 0.80",
    ),
    Definition(
        "transfer_as_is",
        "Explained variance elsewhere",
        "Explained variance of the coder on the other site's rows as they are; NaN where widths differ.",
        "near that at home for sites that are alike; far below 0 for others",
    ),
    Definition(
        "transfer_mapped",
        "Explained variance through a map",
        "Explained variance of the other site's rows mapped to the coder's site, reconstructed, and mapped back.",
        "near that of the maps alone",
    ),
    Definition(
        "transfer_map_only",
        "Explained variance of the maps",
        "Explained variance of the other site's rows mapped to the coder's site and back, without the coder.",
        "near 1; what the maps lose the coder cannot bring back",
    ),
    Definition(
        "transfer_kept",
        "Kept of what the maps keep",
        "Explained variance through the map over that of the maps alone.",
        "near the explained variance at home",
    ),
    Definition(
        "transfer_l0_home",
        "Active latents at home",
        "Mean number of active latents on rows of the coder's own site.",
        "as in training",
    ),
    Definition(
        "transfer_l0_mapped",
        "Active latents through a map",
        "Mean number of active latents on mapped rows of the other site.",
        "near that at home",
    ),
)


class AffineMap(NamedTuple):
    """Takes rows of one site to those of another: ``x @ weight + offset``."""

    weight: Float[Tensor, "D E"]
    offset: Float[Tensor, " E"]

    def __call__(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        return x_BD @ self.weight.to(x_BD) + self.offset.to(x_BD)


class MapFit:
    """Least squares from one site's rows to another's, from sums over rows of the same tokens."""

    def __init__(self, d_from: int, d_to: int) -> None:
        self.rows = 0
        self._x, self._y = torch.zeros(d_from, dtype=torch.float64), torch.zeros(d_to, dtype=torch.float64)
        self._xx = torch.zeros(d_from, d_from, dtype=torch.float64)
        self._xy = torch.zeros(d_from, d_to, dtype=torch.float64)

    def update(self, x_BD: Float[Tensor, "B D"], y_BD: Float[Tensor, "C E"]) -> None:
        """Add rows of both sites."""
        came, expected = (x_BD.shape, y_BD.shape), tuple(self._xy.shape)
        if len(x_BD) != len(y_BD) or (x_BD.shape[1], y_BD.shape[1]) != expected:
            raise UserError(
                f"a map from width {expected[0]} to {expected[1]} is fitted on rows of the same tokens, got "
                f"{list(came[0])} and {list(came[1])}"
            )
        x, y = x_BD.detach().cpu().double(), y_BD.detach().cpu().double()
        self.rows += len(x)
        self._x += x.sum(0)
        self._y += y.sum(0)
        self._xx += x.T @ x
        self._xy += x.T @ y

    def solve(self, cut: float = 1e-10) -> AffineMap:
        """The map with the least squared error, of several the smallest.

        Directions in which rows have less variance than ``cut`` times the largest are left out.
        """
        if self.rows < 2:
            raise UserError(f"a map needs at least 2 rows, got {self.rows}; update with rows of both sites")
        x, y = self._x / self.rows, self._y / self.rows
        covariance = self._xx / self.rows - x.outer(x)
        weight = torch.linalg.pinv(covariance, rtol=cut, hermitian=True) @ (self._xy / self.rows - x.outer(y))
        return AffineMap(weight, y - x @ weight)


class TransferRows(NamedTuple):
    """Rows of the same tokens at the coder's own site and at the other one."""

    home_BD: Float[Tensor, "B D"]
    other_BE: Float[Tensor, "B E"]
    blocks: Int[Tensor, " B"]


@final
class Transfer(Metric[TransferRows]):
    """Errors and variances at home and elsewhere."""

    definitions = DEFINITIONS

    def __init__(self, coder: SparseCoder, there: AffineMap, back: AffineMap) -> None:
        """``there`` takes the other site's rows to the coder's site, ``back`` takes them back.

        Fit them on rows of other documents than those given to ``update``.
        """
        if not coder.wiring.writes_what_it_reads:
            raise UserError(
                f"transfer is for coders that write what they read, got a {coder.wiring.kind} from "
                f"{coder.wiring.reads} to {coder.wiring.writes}"
            )
        home, other = coder.d_model, there.weight.shape[0]
        if there.weight.shape[1] != home or back.weight.shape != (home, other):
            raise UserError(
                f"the coder has width {home}: expected maps [{other}, {home}] and [{home}, {other}], got "
                f"{list(there.weight.shape)} and {list(back.weight.shape)}"
            )
        self.coder, self.there, self.back = coder, there, back
        sums = {f"{name}_error": () for name in ("home", "as_is", "mapped", "map_only")}
        counts = {"rows": (), "home_active": (), "mapped_active": (), "home_square": (), "other_square": ()}
        super().__init__(home=(home,), other=(other,), **sums, **counts)

    @torch.no_grad()
    def update(self, batch: TransferRows) -> None:
        x, y = batch.home_BD.to(self.coder.W_dec), batch.other_BE.to(self.coder.W_dec)
        there = self.there(y)
        self.add("rows", batch.blocks, torch.ones(len(x)))
        for name, rows in (("home", x), ("other", y)):
            self.add(name, batch.blocks, rows)
            self.add(f"{name}_square", batch.blocks, rows.double().square().sum(1))
        written: dict[str, tuple[Tensor, Tensor]] = {"map_only": (y, self.back(there))}
        for name, rows, target in (("home", x, x), ("mapped", there, y)):
            codes = self.coder.encode(rows)
            y_hat = self.coder.reconstruct(codes, rows)
            written[name] = target, self.back(y_hat) if name == "mapped" else y_hat
            n_active = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
            n_active.index_add_(0, codes.row_ids, (codes.values != 0).double())
            self.add(f"{name}_active", batch.blocks, n_active)
        if y.shape[1] == x.shape[1]:
            written["as_is"] = y, self.coder(y)
        for name, (target, y_hat) in written.items():
            self.add(f"{name}_error", batch.blocks, (target - y_hat).double().square().sum(1))

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        rows = sums["rows"]
        variances = {
            name: sums[f"{name}_square"] - sums[name].square().sum(1) / rows.clamp(min=1) for name in ("home", "other")
        }
        explained = {
            name: 1.0 - ratio(sums[f"{name}_error"], variances["home" if name == "home" else "other"])
            for name in ("home", "as_is", "mapped", "map_only")
        }
        if self.coder.d_model != len(self.there.weight):
            explained["as_is"] = torch.full_like(rows, math.nan)
        return {f"transfer_{name}": value for name, value in explained.items()} | {
            "transfer_kept": ratio(explained["mapped"], explained["map_only"]),
            "transfer_l0_home": sums["home_active"] / rows,
            "transfer_l0_mapped": sums["mapped_active"] / rows,
        }
