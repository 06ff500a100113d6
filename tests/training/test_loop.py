from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Port, SparseCoder, Wiring, architecture, architectures
from unweave.coders.batch_topk import BatchTopK, BatchTopKConfig
from unweave.coders.relu import Relu, ReluConfig
from unweave.config import build
from unweave.errors import UserError
from unweave.training.loop import NotFinite, Progress, Trainee, TrainingConfig, finish, new_trainee, train

WIDTH, OTHER_WIDTH, N_FEATURES = 20, 12, 40
CONFIG = TrainingConfig(rows=60 * 512, batch=512, lr=2e-2, buffer=1024, dead_window=2000)
HERE, THERE = Port("here", WIDTH), Port("there", OTHER_WIDTH)
WIRINGS = {
    "sae": Wiring.sae(WIDTH, "here"),
    "transcoder": Wiring.transcoder(HERE, THERE),
    "skip_transcoder": Wiring.transcoder(HERE, THERE, skip=True),
    "crosscoder": Wiring.crosscoder(HERE, THERE),
}
SCALES = ("unit_spread", "unit_square", "sqrt_width", "whiten", "none")


def _directions(width: int, seed: int) -> Tensor:
    directions = torch.randn(N_FEATURES, width, generator=torch.Generator().manual_seed(seed))
    return directions / directions.norm(dim=1, keepdim=True)


def _data(n_batches: int, seed: int = 7, size: int = 512) -> Iterator[dict[str, Tensor]]:
    """Sparse random sums of random unit directions at two sites, far from the origin and at scales of their own."""
    generator = torch.Generator().manual_seed(seed)
    here, there = _directions(WIDTH, 100), _directions(OTHER_WIDTH, 101)
    linear = 0.02 * torch.randn(WIDTH, OTHER_WIDTH, generator=torch.Generator().manual_seed(102))
    for _ in range(n_batches):
        active = (torch.rand(size, N_FEATURES, generator=generator) < 0.05).float()
        strength = active * (1.0 + torch.rand(size, N_FEATURES, generator=generator))
        x = 30.0 * strength @ here + 5.0
        yield {"here": x, "there": 0.3 * strength @ there + x @ linear - 2.0}


def _sample() -> dict[str, Tensor]:
    batches = list(_data(2, seed=63))
    return {site: torch.cat([batch[site] for batch in batches]) for site in ("here", "there")}


def _coder(name: str = "batch_topk", wiring: Wiring = WIRINGS["sae"], seed: int = 7, **settings: Any) -> SparseCoder:
    torch.manual_seed(seed)
    if name == "relu":
        return Relu(ReluConfig(**{"n_latents": 63, "l1_coefficient": 0.02} | settings), wiring)
    if name == "batch_topk":
        return BatchTopK(BatchTopKConfig(**{"n_latents": 63, "k": 4.0, "threshold_decay": 0.8} | settings), wiring)
    cls = architecture(name)
    known = {field.name for field in fields(cls.Config)}
    small = {key: value for key, value in {"n_latents": 96, "k": 4, "k_aux": 8}.items() if key in known}
    return cls(build(cls.Config, small | settings, "coder"), wiring)


def _trainee(name: str = "batch_topk", seed: int = 7, config: TrainingConfig = CONFIG, **settings: Any) -> Trainee:
    return new_trainee(name, _coder(name, seed=seed, **settings), _sample(), config)


def _weights(coder: SparseCoder) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in coder.state_dict().values()]


def _run(*trainees: Trainee, config: TrainingConfig = CONFIG) -> list[Progress]:
    return list(train(list(trainees), _data(config.n_steps + 7), config))


def _explained(truth: Tensor, written: Tensor) -> float:
    return 1 - ((truth - written).square().sum() / (truth - truth.mean(0)).square().sum()).item()


def _raw_rows(coder: SparseCoder, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What a finished coder reads, and what it should write, as the model has them."""
    sides = (coder.wiring.reads, coder.wiring.writes)
    x, y = (torch.cat([batch[port.site] for port in ports], dim=1).to(coder.W_dec.dtype) for ports in sides)
    return x, y


@pytest.mark.parametrize("name", ["batch_topk", "relu"])
def test_sixty_steps_learn_most_of_sparse_synthetic_data(name: str) -> None:
    trainee = _trainee(name)
    reports = _run(trainee)
    first, last = reports[0].metrics[name], reports[-1].metrics[name]
    assert last["mse"] < 0.3 * first["mse"]
    assert last["explained_variance"] > 0.8

    coder = finish(trainee)
    x = next(_data(1, seed=99))["here"]
    assert _explained(x, coder(x)) > 0.8, "on new rows, in their own units"


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("wiring", WIRINGS)
def test_every_wiring_learns_and_a_finished_coder_writes_raw_rows_as_training_wrote_scaled_ones(
    wiring: str, scale: str
) -> None:
    """The rows are scaled here by their definition, and what is written is scaled back by the inverse of it."""
    size = {"here": 40.0, "there": 1.0} if scale == "none" else {"here": 1.0, "there": 1.0}

    def scaled(batches: Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """Rows that are left as they are must not be large."""
        for batch in batches:
            yield {site: rows.double() / size[site] for site, rows in batch.items()}

    coder = _coder("batch_topk", WIRINGS[wiring], input_scale=scale, k=6.0).double()
    (sample,) = scaled([_sample()])
    trainee = new_trainee(wiring, coder, sample, CONFIG)
    reports = list(train([trainee], scaled(_data(60)), CONFIG))
    (batch,) = scaled(_data(1, seed=99))

    with torch.no_grad():
        x_scaled, _ = trainee.rows(batch)
        written = coder(x_scaled).split([port.width for port in coder.wiring.writes], dim=1)
        back = []
        for part, scaling in zip(written, trainee.writes, strict=True):
            matrix = torch.eye(part.shape[1]).double() * scaling.factor if scaling.matrix is None else scaling.matrix
            mean = 0.0 if scaling.mean is None else scaling.mean
            back.append(torch.linalg.solve(matrix.T, part.T).T + mean)
        before = torch.cat(back, dim=1)
    x, y = _raw_rows(coder, batch)
    after = finish(trainee)(x)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-8)
    assert reports[-1].metrics[wiring]["explained_variance"] > 0.7
    assert _explained(y, after) > 0.6


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
def test_decoder_rows_keep_the_norm_of_the_config_after_every_step(name: str) -> None:
    config = TrainingConfig(rows=7 * 512, batch=512, buffer=1024, log_every=1)
    trainee = _trainee(name, config=config)
    is_kept = trainee.coder.config.decoder_norm == "unit" and trainee.coder.W_dec.requires_grad
    n_reports = 0
    for _ in train([trainee], _data(7), config):
        norms = trainee.coder.W_dec.norm(dim=1)
        assert torch.allclose(norms, torch.ones_like(norms), rtol=1e-6, atol=1e-6) == is_kept
        n_reports += 1
    assert n_reports == 7


def test_rows_are_scaled_to_a_mean_square_norm_of_one_about_their_mean() -> None:
    trainee, sample = _trainee(), _sample()
    scaled, same = trainee.rows(sample)
    assert same is scaled, "an autoencoder writes what it reads"
    torch.testing.assert_close(scaled, sample["here"] * trainee.reads[0].factor)
    assert (scaled - scaled.mean(0)).square().sum(1).mean().item() == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(trainee.coder.b_dec.detach(), scaled.mean(0), rtol=1e-4, atol=1e-5)


def test_sites_are_scaled_each_by_its_own_and_stand_side_by_side() -> None:
    sample = _sample()
    crosscoder = new_trainee("cross", _coder(wiring=WIRINGS["crosscoder"]), sample, CONFIG)
    scaled, _ = crosscoder.rows(sample)
    for part in (scaled[:, :WIDTH], scaled[:, WIDTH:]):
        assert (part - part.mean(0)).square().sum(1).mean().item() == pytest.approx(1.0, rel=1e-5)
    transcoder = new_trainee("trans", _coder(wiring=WIRINGS["transcoder"]), sample, CONFIG)
    x, y = transcoder.rows(sample)
    torch.testing.assert_close(torch.cat([x, y], dim=1), scaled)
    torch.testing.assert_close(transcoder.coder.b_dec.detach(), y.mean(0), rtol=1e-4, atol=1e-5)
    assert transcoder.sites == {"here", "there"}


def test_training_does_not_depend_on_the_scale_of_the_activations() -> None:
    """A power of two only changes the exponents, so the scaled rows are the same to the last bit."""
    plain = _trainee()
    _run(plain)
    large = new_trainee("large", _coder(), {"here": 64 * _sample()["here"]}, CONFIG)
    list(train([large], ({"here": 64 * batch["here"]} for batch in _data(60)), CONFIG))
    assert large.reads[0].factor == plain.reads[0].factor / 64
    for a, b in zip(_weights(plain.coder), _weights(large.coder), strict=True):
        assert torch.equal(a, b)


def test_a_finished_coder_learns_no_more() -> None:
    trainee = _trainee()
    coder = finish(trainee)
    assert coder is trainee.coder
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
    stream = _Counted(_data(100, size=100))
    reports = list(train([_trainee()], stream, config))
    assert reports[-1].rows == 800
    assert stream.n_taken == 8


class _Counted:
    """Batches, and how many of them were taken."""

    def __init__(self, batches: Iterable[dict[str, Tensor]]) -> None:
        self.batches = iter(batches)
        self.n_taken = 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self

    def __next__(self) -> dict[str, Tensor]:
        batch = next(self.batches)
        self.n_taken += 1
        return batch


def test_the_learning_rate_follows_the_schedule() -> None:
    config = TrainingConfig(rows=1000, batch=100, buffer=200, lr=0.01, warm_up=0.2, decay=0.5, log_every=1)
    rates = [report.lr for report in train([_trainee()], _data(10, size=100), config)]
    by_hand = [0.005, 0.01, 0.01, 0.01, 0.01, 0.008, 0.006, 0.004, 0.002, 0.0]
    assert rates == pytest.approx(by_hand)


def test_one_step_is_a_step_of_adam_on_the_tangent_of_the_decoder() -> None:
    """Worked with dense matrices and torch's own Adam; the radial part is removed and rows are renormalised by hand."""
    config = TrainingConfig(rows=512, batch=512, buffer=1024, lr=0.01, warm_up=0.0, decay=0.0, clip=0.0)
    sample = {"here": _sample()["here"].double()}
    ours, plain = (new_trainee("relu", _coder("relu").double(), sample, config) for _ in range(2))
    (batch,) = _data(1)
    list(train([ours], [batch], config))

    coder = plain.coder
    W_enc, b_enc, W_dec, b_dec = coder.W_enc, coder.b_enc, coder.W_dec, coder.b_dec
    x = batch["here"].double() * plain.reads[0].factor
    f = torch.relu((x - b_dec) @ W_enc.T + b_enc)
    (x - (f @ W_dec + b_dec)).square().sum(1).mean().backward()  # the penalty is 0 at the first step of its warm-up
    with torch.no_grad():
        W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
    torch.optim.Adam(coder.parameters(), lr=0.01, betas=(0.9, 0.999)).step()
    with torch.no_grad():
        W_dec /= W_dec.norm(dim=1, keepdim=True)
    for a, b in zip(ours.coder.parameters(), coder.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_clipping_bounds_the_gradient_of_a_step() -> None:
    """After one step the mean gradients of Adam are a tenth of the gradient that was used."""
    config = TrainingConfig(rows=512, batch=512, buffer=1024, clip=0.063)
    trainee = _trainee(config=config)
    list(train([trainee], _data(1), config))
    squares = [(10 * moments.mean).square().sum() for moments in trainee.optimizer.moments.values()]
    # what lies along decoder rows is taken away before clipping
    assert torch.stack(squares).sum().sqrt().item() == pytest.approx(0.063, rel=1e-3)


def test_latents_that_never_fire_are_reported_dead_and_then_get_the_auxiliary_loss() -> None:
    """The loop looks which latents are dead at every tenth step, so that a GPU need not be waited for."""
    config = TrainingConfig(rows=25 * 512, batch=512, buffer=1024, dead_window=1000, log_every=1)
    trainee = _trainee(config=config)
    with torch.no_grad():
        trainee.coder.W_enc[:9] *= 0.01  # positive for some rows, but never among the largest of a batch
    reports = list(train([trainee], _data(25), config))
    assert reports[1].metrics["batch_topk"]["dead_share"] > 0
    assert all("aux" not in report.metrics["batch_topk"] for report in reports[:10])
    assert "aux" in reports[10].metrics["batch_topk"]


def test_a_caller_that_stops_has_a_whole_coder() -> None:
    trainee = _trainee()
    reports = train([trainee], _data(100), CONFIG)
    next(reports)
    next(reports)
    reports.close()
    x = next(_data(1, seed=99))["here"]
    assert finish(trainee)(x).isfinite().all()


RESAMPLING = TrainingConfig(
    rows=40 * 100,
    batch=100,
    buffer=200,
    lr=1e-3,
    warm_up=0.0,
    decay=0.0,
    clip=0.0,
    beta1=0.0,
    beta2=0.0,
    dead_window=500,
    resample_at=(0.25,),
    resample_rows=1_000,
    resample_warm_up=0.2,
    log_every=1,
)


def _with_silent_latents(config: TrainingConfig = RESAMPLING, **settings: Any) -> Trainee:
    trainee = new_trainee("relu", _coder("relu", **settings).double(), _sample(), config)
    with torch.no_grad():
        trainee.coder.b_enc[[3, 62]] = -1e3
    return trainee


def test_dead_latents_are_resampled_at_their_time_from_rows_that_are_not_trained_on() -> None:
    trainee = _with_silent_latents()
    stream = _Counted(_data(100, size=100))
    dead_before = None
    for report in train([trainee], stream, RESAMPLING):
        dead = trainee.dead.mask.nonzero().flatten().tolist()
        if report.step == 9:
            dead_before = dead
            assert {3, 62} <= set(dead)
            assert stream.n_taken == 10
        if report.step == 10:
            assert dead_before is not None
            assert not set(dead) & set(dead_before), "they count as if they had fired"
            assert trainee.dead.ids.tolist() == [], "for the losses of dead latents too, before the next look"
            assert (trainee.coder.b_enc[dead_before].abs() <= 2 * RESAMPLING.lr).all(), "set to 0, and a step since"
            assert stream.n_taken == 21, "ten batches of 100 rows were only looked at"
            assert report.rows == 1100
    assert (trainee.coder.b_enc[[3, 62]] > -1).all()


def test_resampled_latents_come_to_life() -> None:
    trainee = _with_silent_latents()
    list(train([trainee], _data(100, size=100), RESAMPLING))
    x, _ = trainee.rows(next(_data(1, seed=99)))
    fired = set(trainee.coder.encode(x).latent_ids.tolist())
    assert {3, 62} <= fired


def test_after_resampling_the_learning_rate_is_a_tenth_and_rises_again() -> None:
    """With no memory, Adam moves every number by the learning rate, so the weights themselves tell it."""
    trainee = _with_silent_latents()
    moved, before = [], trainee.coder.b_dec.detach().clone()
    for _ in train([trainee], _data(100, size=100), RESAMPLING):
        moved.append((trainee.coder.b_dec - before).abs().median().item())
        before = trainee.coder.b_dec.detach().clone()
    # a fifth of 40 steps from the tenth on
    by_hand = [1e-3] * 10 + [1e-3 * (0.1 + 0.9 * i / 8) for i in range(8)] + [1e-3] * 22
    assert moved == pytest.approx(by_hand, rel=1e-4)


def test_without_dead_latents_nothing_is_read_or_slowed_for_resampling() -> None:
    config = TrainingConfig(
        rows=20 * 100, batch=100, buffer=200, resample_at=(0.5,), resample_rows=1_000, dead_window=10**9
    )
    plain = TrainingConfig(rows=20 * 100, batch=100, buffer=200, dead_window=10**9)
    trainees = [_trainee("relu"), _trainee("relu")]
    for trainee, settings in zip(trainees, (config, plain), strict=True):
        stream = _Counted(_data(100, size=100))
        list(train([trainee], stream, settings))
        assert stream.n_taken == 20
    for a, b in zip(*map(_weights, (trainee.coder for trainee in trainees)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["kron", "matching_pursuit", "archetypal"])
def test_resampling_a_coder_whose_latents_have_no_weights_of_their_own_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"training\.resample_at gives latents weights .* coder {name}"):
        _trainee(name, config=RESAMPLING)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_rows_among_those_that_are_looked_at_for_resampling_stop_the_run_too(bad: float) -> None:
    trainee = _with_silent_latents()

    def batches() -> Iterator[dict[str, Tensor]]:
        for number, batch in zip(count(), _data(100, size=100), strict=False):
            if number == 13:
                batch["here"][[5, 7]] = bad
            yield batch

    with pytest.raises(NotFinite, match="step 10, coder relu: activations at here hold NaN or infinity in 2 of 100"):
        list(train([trainee], batches(), RESAMPLING))


@pytest.mark.parametrize("name", sorted(architectures()))
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_activations_stop_the_run_by_name_and_leave_the_weights_of_the_step_before(bad: float, name: str) -> None:
    config = TrainingConfig(rows=60 * 512, batch=512, buffer=1024, log_every=1)
    trainee = _trainee(name, config=config)

    def batches() -> Iterator[dict[str, Tensor]]:
        yield from _data(3)
        batch = next(_data(1, seed=63))
        batch["here"][[7, 100, 511], 3] = bad
        yield batch

    def weights() -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in trainee.coder.named_parameters() if p.requires_grad}

    before: dict[str, Tensor] = {}
    with pytest.raises(NotFinite) as error:
        for _ in train([trainee], batches(), config):
            before = weights()
    assert str(error.value).startswith(
        f"step 3, coder {name}: activations at here hold NaN or infinity in 3 of 512 rows; check"
    )
    for key, after in weights().items():
        assert after.isfinite().all(), key
        if key not in ("threshold", "mixing", "relaxation"):  # these are put within their bounds when a loss is asked
            assert torch.equal(after, before[key]), key


def test_the_site_that_holds_bad_rows_is_the_one_that_is_named() -> None:
    trainee = new_trainee("trans", _coder(wiring=WIRINGS["transcoder"]), _sample(), CONFIG)
    batch = next(_data(1))
    batch["there"][63] = float("nan")
    with pytest.raises(NotFinite, match="step 0, coder trans: activations at there hold NaN or infinity in 1 of 512"):
        list(train([trainee], [batch], CONFIG))


def test_a_loss_that_overflows_stops_the_run_with_another_advice() -> None:
    trainee = _trainee("relu")
    with torch.no_grad():
        trainee.coder.W_dec.mul_(1e30)
    before = [parameter.detach().clone() for parameter in trainee.coder.parameters()]
    with pytest.raises(NotFinite, match=r"step 0, coder relu: the loss is not finite; lower training\.lr"):
        list(train([trainee], _data(1), CONFIG))
    for after, parameter in zip(before, trainee.coder.parameters(), strict=True):
        assert torch.equal(after, parameter)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused_at_the_start(bad: float) -> None:
    for wiring, site in (("sae", "here"), ("transcoder", "there"), ("crosscoder", "there")):
        sample = _sample()
        sample[site][7, 3] = bad
        with pytest.raises(UserError, match=f"activations at {site} have a spread of"):
            new_trainee("relu", _coder("relu", WIRINGS[wiring]), sample, CONFIG)


def test_activations_that_never_vary_are_refused() -> None:
    with pytest.raises(UserError, match=r"activations at here have a spread of 0\.0"):
        new_trainee("relu", _coder("relu"), {"here": torch.ones(100, WIDTH)}, CONFIG)


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
        ({"resample_at": (0.25, 1.5)}, r"training\.resample_at holds shares .*between 0 and 1, got \(0\.25, 1\.5\)"),
        ({"resample_at": (0.0,)}, r"training\.resample_at"),
        ({"resample_rows": 0}, r"training\.resample_rows must be at least 1, got 0"),
        ({"resample_warm_up": -0.1}, r"training\.resample_warm_up must be in \[0, 1\], got -0\.1"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainingConfig(**settings)
