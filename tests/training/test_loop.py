from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import SparseCoder, architectures
from unweave.coders.batch_topk import BatchTopK, BatchTopKConfig
from unweave.coders.relu import Relu, ReluConfig
from unweave.errors import UserError
from unweave.training.loop import Trainee, TrainingConfig, finish, new_trainee, train

WIDTH, N_FEATURES = 20, 40
CONFIG = TrainingConfig(rows=60 * 512, batch=512, lr=2e-2, buffer=1024, dead_window=2000)


def _features(seed: int = 100) -> Tensor:
    directions = torch.randn(N_FEATURES, WIDTH, generator=torch.Generator().manual_seed(seed))
    return directions / directions.norm(dim=1, keepdim=True)


def _data(n_batches: int, seed: int = 7, size: int = 512) -> Iterator[dict[str, Tensor]]:
    """Sparse random sums of random unit directions, far from the origin and at a scale of their own."""
    generator, features = torch.Generator().manual_seed(seed), _features()
    for _ in range(n_batches):
        active = (torch.rand(size, N_FEATURES, generator=generator) < 0.05).float()
        strength = 1.0 + torch.rand(size, N_FEATURES, generator=generator)
        yield {"here": 30.0 * (active * strength) @ features + 5.0}


def _sample() -> Tensor:
    return torch.cat([batch["here"] for batch in _data(2, seed=63)])


def _trainee(name: str = "batch_topk", seed: int = 7, config: TrainingConfig = CONFIG, **settings: Any) -> Trainee:
    torch.manual_seed(seed)
    coder: SparseCoder
    if name == "batch_topk":
        coder = BatchTopK(BatchTopKConfig(**{"n_latents": 63, "k": 4, "threshold_decay": 0.8} | settings), WIDTH)
    else:
        coder = Relu(ReluConfig(**{"n_latents": 63, "l1_coefficient": 0.02} | settings), WIDTH)
    return new_trainee(name, "here", coder, _sample(), config)


def _weights(coder: SparseCoder) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in coder.state_dict().values()]


def _run(*trainees: Trainee, config: TrainingConfig = CONFIG) -> list[Any]:
    return list(train(list(trainees), _data(config.n_steps + 7), config))


@pytest.mark.parametrize("name", ["batch_topk", "relu"])
def test_sixty_steps_learn_most_of_sparse_synthetic_data(name: str) -> None:
    trainee = _trainee(name)
    reports = _run(trainee)
    first, last = reports[0].metrics[name], reports[-1].metrics[name]
    assert last["mse"] < 0.3 * first["mse"]
    assert last["explained_variance"] > 0.8

    coder = finish(trainee)
    x = next(_data(1, seed=99))["here"]
    error = (x - coder.decode(coder.encode(x))).square().sum()
    assert 1 - error / (x - x.mean(0)).square().sum() > 0.8, "on new rows, in their own units"


@pytest.mark.parametrize("name", ["batch_topk", "relu"])
def test_two_runs_from_one_seed_give_the_same_weights_bit_for_bit(name: str) -> None:
    first, second = _trainee(name), _trainee(name)
    _run(first), _run(second)
    for a, b in zip(_weights(first.coder), _weights(second.coder), strict=True):
        assert torch.equal(a, b)
    other = _trainee(name, seed=8)
    _run(other)
    assert not torch.equal(first.coder.W_dec, other.coder.W_dec)


def test_coders_trained_together_are_those_trained_alone() -> None:
    alone = [_trainee("batch_topk"), _trainee("relu")]
    for trainee in alone:
        _run(trainee)
    together = [_trainee("batch_topk"), _trainee("relu")]
    _run(*together)
    for a, b in zip(alone, together, strict=True):
        for x, y in zip(_weights(a.coder), _weights(b.coder), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("name", sorted(architectures()))
def test_decoder_rows_have_unit_norm_after_every_step(name: str) -> None:
    cls = architectures()[name]
    trainee = new_trainee(name, "here", cls(cls.Config(n_latents=63), WIDTH), _sample(), CONFIG)
    config = TrainingConfig(rows=7 * 512, batch=512, buffer=1024, log_every=1)
    n_reports = 0
    for _ in train([trainee], _data(7), config):
        torch.testing.assert_close(trainee.coder.W_dec.norm(dim=1), torch.ones(63), rtol=1e-6, atol=1e-6)
        n_reports += 1
    assert n_reports == 7


def test_rows_are_scaled_to_a_mean_square_norm_of_one_about_their_mean() -> None:
    trainee, sample = _trainee(), _sample()
    scaled = sample * trainee.input_scale
    assert (scaled - scaled.mean(0)).square().sum(1).mean().item() == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(trainee.coder.b_dec.detach(), scaled.mean(0), rtol=1e-4, atol=1e-5)


def test_training_does_not_depend_on_the_scale_of_the_activations() -> None:
    """A power of two only changes the exponents, so the scaled rows are the same to the last bit."""
    plain = _trainee()
    _run(plain)
    torch.manual_seed(7)
    coder = BatchTopK(BatchTopKConfig(n_latents=63, k=4, threshold_decay=0.8), WIDTH)
    large = new_trainee("large", "here", coder, 64 * _sample(), CONFIG)
    list(train([large], ({"here": 64 * batch["here"]} for batch in _data(60)), CONFIG))
    assert large.input_scale == plain.input_scale / 64
    for a, b in zip(_weights(plain.coder), _weights(large.coder), strict=True):
        assert torch.equal(a, b)


def test_a_finished_coder_is_in_the_units_of_the_model_and_learns_no_more() -> None:
    trainee = _trainee()
    _run(trainee)
    x = next(_data(1, seed=99))["here"]
    with torch.no_grad():
        training = trainee.coder.decode(trainee.coder.encode(x * trainee.input_scale)) / trainee.input_scale
    coder = finish(trainee)
    torch.testing.assert_close(coder.decode(coder.encode(x)), training, rtol=1e-4, atol=1e-3)
    assert not coder.training
    assert not any(parameter.requires_grad for parameter in coder.parameters())


def test_reports_come_at_the_steps_asked_for_and_at_the_end() -> None:
    config = TrainingConfig(rows=25 * 100, batch=100, buffer=200, log_every=7)
    reports = list(train([_trainee()], _data(100, size=100), config))
    assert [report.step for report in reports] == [0, 7, 14, 21, 24]
    assert [report.rows for report in reports] == [100, 800, 1500, 2200, 2500]
    assert reports[0].metrics["batch_topk"].keys() == {"mse", "l0", "explained_variance", "dead_share"}
    assert reports[0].metrics["batch_topk"]["l0"] == 4.0


def test_the_last_step_is_the_one_that_reaches_the_rows_asked_for() -> None:
    config = TrainingConfig(rows=701, batch=100, buffer=200, log_every=100)
    assert config.n_steps == 8
    taken = []

    def counted() -> Iterator[dict[str, Tensor]]:
        for batch in _data(100, size=100):
            taken.append(1)
            yield batch

    reports = list(train([_trainee()], counted(), config))
    assert reports[-1].rows == 800
    assert len(taken) == 8


def test_the_learning_rate_follows_the_schedule() -> None:
    config = TrainingConfig(rows=1000, batch=100, buffer=200, lr=0.01, warm_up=0.2, decay=0.5, log_every=1)
    rates = [report.lr for report in train([_trainee()], _data(10, size=100), config)]
    by_hand = [0.005, 0.01, 0.01, 0.01, 0.01, 0.008, 0.006, 0.004, 0.002, 0.0]
    assert rates == pytest.approx(by_hand)


def test_one_step_is_a_step_of_adam_on_the_tangent_of_the_decoder() -> None:
    """Worked with dense matrices and torch's own Adam; the radial part is removed and rows are renormalised by hand."""
    config = TrainingConfig(rows=512, batch=512, buffer=1024, lr=0.01, warm_up=0.0, decay=0.0, clip=0.0)
    ours, plain = _trainee("relu", config=config), _trainee("relu", config=config)
    (batch,) = _data(1)
    list(train([ours], [batch], config))

    coder = plain.coder
    W_enc, b_enc, W_dec, b_dec = coder.W_enc, coder.b_enc, coder.W_dec, coder.b_dec
    x = batch["here"] * plain.input_scale
    f = torch.relu((x - b_dec.detach()) @ W_enc.T + b_enc)
    (x - (f @ W_dec + b_dec)).square().sum(1).mean().backward()  # the penalty is 0 at the first step of its warm-up
    with torch.no_grad():
        W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
    torch.optim.Adam(coder.parameters(), lr=0.01, betas=(0.9, 0.999)).step()
    with torch.no_grad():
        W_dec /= W_dec.norm(dim=1, keepdim=True)
    for a, b in zip(ours.coder.parameters(), coder.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_clipping_bounds_the_gradient_of_a_step() -> None:
    config = TrainingConfig(rows=512, batch=512, buffer=1024, clip=0.063)
    trainee = _trainee(config=config)
    list(train([trainee], _data(1), config))
    squares = [parameter.grad.square().sum() for parameter in trainee.coder.parameters()]
    assert torch.stack(squares).sum().sqrt().item() == pytest.approx(0.063, rel=1e-3)


def test_latents_that_never_fire_are_reported_dead_and_then_get_the_auxiliary_loss() -> None:
    config = TrainingConfig(rows=10 * 512, batch=512, buffer=1024, dead_window=1000, log_every=1)
    trainee = _trainee(config=config)
    with torch.no_grad():
        trainee.coder.W_enc[:9] *= 0.01  # positive for some rows, but never among the largest of a batch
    reports = list(train([trainee], _data(10), config))
    assert all("aux" not in report.metrics["batch_topk"] for report in reports[:2])
    assert reports[1].metrics["batch_topk"]["dead_share"] > 0
    assert "aux" in reports[2].metrics["batch_topk"]


def test_a_caller_that_stops_has_a_whole_coder() -> None:
    trainee = _trainee()
    reports = train([trainee], _data(100), CONFIG)
    next(reports)
    next(reports)
    reports.close()
    x = next(_data(1, seed=99))["here"]
    coder = finish(trainee)
    assert coder.decode(coder.encode(x)).isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused_at_the_start(bad: float) -> None:
    sample = _sample()
    sample[7, 3] = bad
    coder = Relu(ReluConfig(n_latents=63), WIDTH)
    with pytest.raises(UserError, match="activations at here have a spread of"):
        new_trainee("relu", "here", coder, sample, CONFIG)


def test_activations_that_never_vary_are_refused() -> None:
    with pytest.raises(UserError, match=r"activations at here have a spread of 0\.0"):
        new_trainee("relu", "here", Relu(ReluConfig(n_latents=63), WIDTH), torch.ones(100, WIDTH), CONFIG)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    trainee = _trainee("relu")
    batch = next(_data(1))
    batch["here"][0, 0] = float("nan")
    with pytest.raises(UserError, match=r"the loss of relu is not finite; lower training\.lr"):
        list(train([trainee], [batch], CONFIG))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, r"training\.rows must be more than 0, got 0"),
        ({"batch": -7}, r"training\.batch must be more than 0, got -7"),
        ({"lr": 0.0}, r"training\.lr must be more than 0, got 0\.0"),
        ({"log_every": 0}, r"training\.log_every must be more than 0, got 0"),
        ({"dead_window": 0}, r"training\.dead_window must be more than 0"),
        ({"batch": 63, "buffer": 125}, r"training\.buffer needs at least 2 batches of 63 rows, got 125"),
        (
            {"warm_up": 0.7, "decay": 0.4},
            r"training\.warm_up \+ training\.decay must lie in \[0, 1\], got 0\.7 \+ 0\.4",
        ),
        ({"warm_up": -0.1}, r"training\.warm_up"),
        ({"clip": -1.0}, r"training\.clip"),
        ({"beta1": 1.0}, r"training\.beta1"),
        ({"beta2": -0.1}, r"training\.beta2"),
        ({"lr": float("nan")}, r"training\.lr"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainingConfig(**settings)
