"""The running mean of the weights against its definition, a weighted sum worked from all steps."""

from dataclasses import replace

import pytest
import torch

from tests.training import runs
from unweave.coders.folding import fold_scaling
from unweave.errors import UserError
from unweave.training.config import TrainingConfig
from unweave.training.loop import finish, new_trainee, train

CONFIG = TrainingConfig(rows=9 * 100, batch=100, buffer=200, average=0.8, log_every=1)


def test_the_mean_weighs_each_step_by_a_power_of_the_decay_and_weights_sum_to_one() -> None:
    trainee = new_trainee("relu", runs.new_coder("relu").double(), runs.sample(), CONFIG)
    history = []
    for _ in train([trainee], runs.data(9, size=100), CONFIG):
        history.append({name: p.detach().clone() for name, p in trainee.coder.named_parameters()})
    weights = torch.tensor([0.8 ** (8 - i) for i in range(9)], dtype=torch.float64)
    weights /= weights.sum()
    assert trainee.average is not None
    assert trainee.average.weights.keys() == history[0].keys()
    for name, mean in trainee.average.weights.items():
        expected = sum(w * step[name] for w, step in zip(weights, history, strict=True))
        torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-12)


def test_a_finished_coder_has_the_mean_with_decoder_rows_of_unit_norm_and_training_is_untouched() -> None:
    averaged, plain = (runs.trainee_of(config=replace(CONFIG, average=average)) for average in (0.8, 0.0))
    for trainee in (averaged, plain):
        list(train([trainee], runs.data(9, size=100), trainee.config))
    for a, b in zip(*map(runs.weights_of, (averaged.coder, plain.coder)), strict=True):
        assert torch.equal(a, b)
    assert averaged.average is not None
    for name, mean in averaged.average.weights.items():
        plain.coder.get_parameter(name).data.copy_(mean)
    plain.coder.W_dec.data /= plain.coder.W_dec.data.norm(dim=1, keepdim=True)
    fold_scaling(plain.coder, plain.reads, plain.writes)
    coder = finish(averaged)
    for a, b in zip(*map(runs.weights_of, (coder, plain.coder)), strict=True):
        torch.testing.assert_close(a, b)
    lengths = coder.W_dec.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_an_archetypal_decoder_is_composed_of_the_averaged_parts() -> None:
    trainee = runs.trainee_of("archetypal", config=CONFIG)
    list(train([trainee], runs.data(9, size=100), CONFIG))
    before = trainee.coder.W_dec.clone()
    coder = finish(trainee)
    assert not torch.allclose(coder.W_dec / coder.W_dec.norm(), before / before.norm(), atol=1e-6)
    x = next(runs.data(1, seed=99))["here"]
    assert coder(x).isfinite().all()


def test_latents_that_are_resampled_start_their_mean_anew() -> None:
    config = replace(
        CONFIG, rows=20 * 100, average=0.999, dead_window=300, resample_at=(0.5,), resample_rows=300, lr=1e-6
    )
    trainee = runs.trainee_of("relu", config=config)
    with torch.no_grad():
        trainee.coder.b_enc[[3, 62]] = -1e3
    list(train([trainee], runs.data(100, size=100), config))
    assert trainee.average is not None
    for name in ("W_enc", "b_enc", "W_dec"):
        mean, now = trainee.average.weights[name][[3, 62]], trainee.coder.get_parameter(name)[[3, 62]]
        torch.testing.assert_close(mean, now.detach(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("bad", [-0.1, 1.0])
def test_the_decay_is_below_one(bad: float) -> None:
    with pytest.raises(UserError, match=rf"training\.average must be in \[0, 1\), got {bad}"):
        TrainingConfig(average=bad)
