"""Gradients of parts of a batch add up to that of the whole, and everything counted is counted once."""

from dataclasses import replace

import pytest
import torch

from tests.training import runs
from unweave.coders import Moment
from unweave.errors import UserError
from unweave.training.config import TrainingConfig
from unweave.training.loop import Progress, new_trainee, train
from unweave.training.trainee import Trainee

CONFIG = TrainingConfig(rows=7 * 100, batch=100, buffer=200, dead_window=250, log_every=1)
ROW_BY_ROW = ["relu", "topk", "jumprelu", "gated", "prolu", "abs_topk", "hierarchical_topk", "group_max", "kron"]


def _trained(name: str, accumulate: int) -> tuple[Trainee, list[Progress]]:
    config = replace(CONFIG, rows=7 * 20, batch=20, dead_window=50, accumulate=accumulate)
    settings = {} if name in ("relu", "jumprelu", "gated", "prolu") else {"aux_coefficient": 0.0}
    trainee = new_trainee(name, runs.new_coder(name, **settings).double(), runs.sample(), config)
    return trainee, list(train([trainee], runs.data(7, size=20), config))


@pytest.mark.parametrize("count", [2, 3, 20])
@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_parts_of_unequal_size_train_as_the_whole_batch_where_rows_do_not_interact(name: str, count: int) -> None:
    (whole, expected), (parts, reports) = _trained(name, 1), _trained(name, count)
    for (key, a), b in zip(parts.coder.state_dict().items(), whole.coder.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8, msg=lambda text, k=key: f"{k}: {text}")
    assert torch.equal(parts.dead.silent_rows, whole.dead.silent_rows)
    for report, other in zip(reports, expected, strict=True):
        assert report.metrics[name] == pytest.approx(other.metrics[name], rel=1e-6, abs=1e-9)
        assert report.rows == other.rows


def test_batch_topk_selects_within_each_part() -> None:
    """A part of easy rows gets as many active latents as one of hard rows, which in one batch would take more."""
    (batch,) = runs.data(1, size=100)
    mixed = {"here": torch.cat([batch["here"][:50], 0.01 * batch["here"][50:]])}
    by_hand, figures = {}, {}
    for count in (1, 2):
        config = replace(CONFIG, accumulate=count)
        trainee, twin = runs.trainee_of(config=config), runs.trainee_of(config=config)
        x, _ = twin.rows(mixed)
        losses = [twin.coder.loss(part, part, Moment(0.0, twin.dead.ids)).losses["mse"] for part in x.chunk(count)]
        by_hand[count] = torch.stack(losses).mean().item()
        figures[count] = next(train([trainee], [mixed], config)).metrics["batch_topk"]["mse"]
    assert figures == pytest.approx(by_hand)
    assert abs(figures[1] / figures[2] - 1) > 1e-3


@pytest.mark.parametrize("bad", [0, 101, -1])
def test_a_batch_has_from_one_part_to_as_many_as_rows(bad: int) -> None:
    with pytest.raises(UserError, match=rf"accumulate must be in 1\.\.100 \(batch\), got {bad}"):
        replace(CONFIG, accumulate=bad)
