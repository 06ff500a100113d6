"""One training step of one coder: losses, gradients, the optimizer's step, and its live figures."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unweave.coders import Moment
from unweave.errors import UserError
from unweave.training.dead_latents import fired_in
from unweave.training.objective import Batch
from unweave.training.trainee import Trainee


class NotFinite(UserError):
    """A step's loss or gradient was NaN or infinite; the coder's weights are still those of the step before."""


class _Part(NamedTuple):
    """What is kept of some of a step's rows after their gradient is taken."""

    n_rows: int
    losses: dict[str, Float[Tensor, ""]]
    """Each times these rows' share of the step."""
    fired_L: Bool[Tensor, " L"]
    seen: "_Seen | None"
    """Where the step is logged."""


class _Seen(NamedTuple):
    target_BD: Float[Tensor, "B D_write"]
    written_BD: Float[Tensor, "B D_write"]
    n_active: int


def take_step(trainee: Trainee, batch: Batch, step: int, *, is_logged: bool) -> dict[str, float]:
    """One step of one coder; returns its live figures where the step is logged, which makes a GPU wait."""
    moment = Moment(step / trainee.config.n_steps, trainee.dead.ids, trainee.dead.n_elsewhere)
    n_rows = trainee.objective.n_rows(batch)
    parts = [
        _add_gradient(trainee, part, trainee.objective.n_rows(part) / n_rows, moment, is_logged=is_logged)
        for part in _micro_batches(batch, trainee.config.accumulate)
    ]
    lr = trainee.rate(step)
    trainee.coder.peers.average_gradients(trainee.coder)
    norm = trainee.optimizer.step(lr, trainee.config.clip)
    if (is_logged or norm.device.type == "cpu") and not bool(norm.isfinite()):
        raise not_finite(trainee, batch, step)
    if trainee.average is not None:
        trainee.average.update(trainee.optimizer.n_steps)
    fired_L = parts[0].fired_L if len(parts) == 1 else torch.stack([part.fired_L for part in parts]).any(0)
    trainee.dead.count(fired_L, sum(part.n_rows for part in parts))
    return {"lr": lr} | _live_figures(trainee, parts) if is_logged else {}


def not_finite(trainee: Trainee, batch: Batch, step: int) -> NotFinite:
    """The error that says whether the rows or the coder are to blame."""
    rows = trainee.objective.rows(batch)
    for site in sorted(trainee.sites):
        n_bad = int((~rows[site].isfinite().all(dim=1)).sum())
        if n_bad:
            return NotFinite(
                f"step {step}, coder {trainee.name}: activations at {site} hold NaN or infinity in {n_bad} of "
                f"{rows[site].shape[0]} rows; check the model's precision and its text"
            )
    return NotFinite(f"step {step}, coder {trainee.name}: the loss is not finite; lower training.lr")


def _micro_batches(batch: Batch, count: int) -> Iterator[Batch]:
    """A batch in so many parts of almost equal size."""
    size = next(iter(batch.values())).shape[0]
    edges = [i * size // count for i in range(count + 1)]
    for start, end in pairwise(edges):
        if end > start:
            yield {name: x[start:end] for name, x in batch.items()}


def _add_gradient(trainee: Trainee, batch: Batch, share: float, moment: Moment, *, is_logged: bool) -> _Part:
    """Add these rows' share of the step's gradient to what the parameters hold; the graph is freed."""
    x_BD, y_BD = trainee.rows(batch)
    result = trainee.coder.loss(x_BD, y_BD, moment)
    total, terms = trainee.objective.losses(trainee, batch, result)
    (share * total).backward()
    losses = {name: share * loss.detach() for name, loss in terms.items()}
    seen = None
    if is_logged:
        seen = _Seen(y_BD, result.reconstruction.detach(), int((result.codes.values != 0).sum()))
    return _Part(len(y_BD), losses, fired_in(result.codes), seen)


@torch.no_grad()
def _live_figures(trainee: Trainee, parts: list[_Part]) -> dict[str, float]:
    targets, written, n_active = zip(*(part.seen for part in parts if part.seen is not None), strict=True)
    peers = trainee.coder.peers
    y_BD, y_hat_BD = _joined(targets), _joined(written)
    error = peers.mean_of_rows((y_BD - y_hat_BD).square().sum()).item()
    spread = peers.mean_of_rows((y_BD - peers.mean_of_rows(y_BD.mean(0))).square().sum()).item()
    names = parts[0].losses
    losses = {name: sum(peers.mean_of_rows(part.losses[name]).item() for part in parts) for name in names}
    l0 = torch.tensor(sum(n_active) / y_BD.shape[0], dtype=torch.float64, device=y_BD.device)
    return losses | {
        "l0": peers.mean_of_rows(peers.over_latents(l0)).item(),
        "explained_variance": 1.0 - error / spread,
        "dead_share": trainee.dead.share,
    }


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
