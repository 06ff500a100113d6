import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unweave.metrics import NextTokens, ReplacedLosses, SplicedLoss

VARIANTS = ("spliced", "mean_ablated", "zero_ablated", "resample_ablated")


class Logits(NamedTuple):
    """What the losses are made of."""

    token_ids: Tensor
    clean: Tensor
    replaced: dict[str, Tensor]
    blocks: Tensor
    is_padding: Tensor | None = None


def _batch(n_sequences: int = 7, length: int = 9, n_vocabulary: int = 11) -> Logits:
    shape = (n_sequences, length, n_vocabulary)
    token_ids = torch.randint(n_vocabulary, (n_sequences, length))
    replaced = {variant: 2 * torch.randn(shape) for variant in VARIANTS}
    blocks = torch.arange(n_sequences)[:, None].expand_as(token_ids) % 3
    return Logits(token_ids, 2 * torch.randn(shape), replaced, blocks)


def _losses(batch: Logits) -> ReplacedLosses:
    tokens = NextTokens(batch.token_ids, batch.clean, batch.is_padding)
    losses = dict(zip(batch.replaced, tokens.losses(*batch.replaced.values()), strict=True))
    return ReplacedLosses(batch.blocks[tokens.is_predicted], tokens.ce, losses)


def _figures(*batches: Logits) -> dict[str, float]:
    metric = SplicedLoss()
    for batch in batches:
        metric.update(_losses(batch))
    return metric.compute()


def _log(*shares: float) -> list[float]:
    return [math.log(share) for share in shares]


def test_padding_is_not_predicted() -> None:
    batch = _batch()
    replaced = {k: v[:, :6] for k, v in batch.replaced.items()}
    shorter = Logits(batch.token_ids[:, :6], batch.clean[:, :6], replaced, batch.blocks[:, :6])
    padding = torch.zeros_like(batch.token_ids, dtype=torch.bool)
    padding[:, 6:] = True
    assert _figures(batch._replace(is_padding=padding)) == pytest.approx(_figures(shorter), rel=1e-12)


def test_one_next_token_is_worked_by_hand() -> None:
    """Tokens (0, 1): the logits at the first position predict the 1; those at the last predict nothing."""
    unused = [0.0, 0.0]
    batch = Logits(
        torch.tensor([[0, 1]]),
        torch.tensor([[_log(0.25, 0.75), unused]]),
        {
            "spliced": torch.tensor([[_log(0.5, 0.5), unused]]),
            "zero_ablated": torch.tensor([[_log(0.9, 0.1), unused]]),
            "mean_ablated": torch.tensor([[_log(0.75, 0.25), unused]]),
            "resample_ablated": torch.tensor([[_log(0.6, 0.4), unused]]),
        },
        torch.tensor([[3, 3]]),
    )
    kl = {share: 0.25 * math.log(0.25 / share) + 0.75 * math.log(0.75 / (1 - share)) for share in (0.5, 0.9, 0.75, 0.6)}
    by_hand = {
        "ce_increase": math.log(0.75 / 0.5),
        "kl": kl[0.5],
        "ce_clean": -math.log(0.75),
        "ce_spliced": -math.log(0.5),
        "ce_zero_ablated": -math.log(0.1),
        "ce_mean_ablated": -math.log(0.25),
        "ce_resample_ablated": -math.log(0.4),
        "kl_zero_ablated": kl[0.9],
        "kl_mean_ablated": kl[0.75],
        "kl_resample_ablated": kl[0.6],
        "loss_recovered_zero": math.log(0.5 / 0.1) / math.log(0.75 / 0.1),
        "loss_recovered_mean": math.log(0.5 / 0.25) / math.log(0.75 / 0.25),
        "loss_recovered_resample": math.log(0.5 / 0.4) / math.log(0.75 / 0.4),
        "kl_recovered_zero": 1 - kl[0.5] / kl[0.9],
        "kl_recovered_mean": 1 - kl[0.5] / kl[0.75],
        "kl_recovered_resample": 1 - kl[0.5] / kl[0.6],
    }
    assert _figures(batch) == pytest.approx(by_hand, rel=1e-6)


def _torch_ce(logits: Tensor, token_ids: Tensor) -> float:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).double(), token_ids[:, 1:].flatten()).item()


def test_losses_are_those_of_torch() -> None:
    batch = _batch()
    figures = _figures(batch)
    assert figures["ce_clean"] == pytest.approx(_torch_ce(batch.clean, batch.token_ids), rel=1e-6)
    for variant in VARIANTS:
        assert figures[f"ce_{variant}"] == pytest.approx(_torch_ce(batch.replaced[variant], batch.token_ids), rel=1e-6)
    p, q = (
        logits[:, :-1].flatten(0, 1).double().log_softmax(-1) for logits in (batch.clean, batch.replaced["spliced"])
    )
    assert figures["kl"] == pytest.approx(F.kl_div(q, p, log_target=True, reduction="batchmean").item(), rel=1e-6)


def test_the_same_logits_lose_nothing_to_the_last_bit() -> None:
    batch = _batch()
    figures = _figures(batch._replace(replaced={**batch.replaced, "spliced": batch.clean.clone()}))
    assert figures["kl"] == 0.0
    assert figures["ce_spliced"] == figures["ce_clean"]
    assert figures["loss_recovered_mean"] == 1.0
    assert figures["loss_recovered_zero"] == 1.0


def test_a_reconstruction_as_bad_as_the_baseline_recovers_nothing() -> None:
    batch = _batch()
    figures = _figures(batch._replace(replaced={**batch.replaced, "spliced": batch.replaced["mean_ablated"]}))
    assert figures["loss_recovered_mean"] == 0.0
    assert figures["loss_recovered_zero"] != 0.0


def test_nothing_can_be_recovered_where_the_baseline_does_no_damage() -> None:
    batch = _batch()
    figures = _figures(batch._replace(replaced={**batch.replaced, "mean_ablated": batch.clean}))
    assert math.isnan(figures["loss_recovered_mean"])
    assert not math.isnan(figures["loss_recovered_zero"])


def test_the_last_position_and_the_first_token_do_not_count() -> None:
    batch = _batch()
    other = batch._replace(token_ids=batch.token_ids.clone(), clean=batch.clean.clone())
    other.token_ids[:, 0] = 0
    other.clean[:, -1] += 100 * torch.randn_like(other.clean[:, -1])
    assert _figures(other) == _figures(batch)


def test_tokens_weigh_the_same_in_batches_of_any_size() -> None:
    small, large = _batch(1, 3), _batch(63, 9)
    figures = _figures(small, large)
    total = 2 * _torch_ce(small.clean, small.token_ids) + 63 * 8 * _torch_ce(large.clean, large.token_ids)
    assert figures["ce_clean"] == pytest.approx(total / (2 + 63 * 8), rel=1e-6)


def test_merging_parts_is_one_pass_over_all() -> None:
    batches = [_batch(n) for n in (7, 1, 63)]
    left, right = SplicedLoss(), SplicedLoss()
    left.update(_losses(batches[0]))
    right.update(_losses(batches[1]))
    right.update(_losses(batches[2]))
    left.merge(right)
    assert left.compute() == pytest.approx(_figures(*batches), rel=1e-12)
    assert list(left.compute()) != []
    assert set(left.compute()) == {definition.name for definition in SplicedLoss.definitions}


def test_half_precision_logits_are_measured_in_single_precision() -> None:
    batch = _batch()
    half = batch._replace(clean=batch.clean.bfloat16(), replaced={k: v.bfloat16() for k, v in batch.replaced.items()})
    widened = half._replace(clean=half.clean.float(), replaced={k: v.float() for k, v in half.replaced.items()})
    assert _figures(half) == _figures(widened)
