"""The training loop on synthetic rows: it learns, every wiring folds exactly, a step is the step worked by hand."""

from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Tensor

from tests.training import runs
from unweave.coders import trainable_architectures
from unweave.training.config import TrainingConfig
from unweave.training.loop import finish, new_trainee, train


@pytest.mark.parametrize("name", ["batch_topk", "relu"])
def test_sixty_steps_learn_most_of_sparse_synthetic_data(name: str) -> None:
    trainee = runs.trainee_of(name)
    reports = runs.run(trainee)
    first, last = reports[0].metrics[name], reports[-1].metrics[name]
    assert last["mse"] < 0.3 * first["mse"]
    assert last["explained_variance"] > 0.8

    coder = finish(trainee)
    x = next(runs.data(1, seed=99))["here"]
    assert runs.explained(x, coder(x)) > 0.8, "on new rows, in their own units"


@pytest.mark.parametrize("scale", runs.SCALES)
@pytest.mark.parametrize("wiring", runs.WIRINGS)
def test_every_wiring_learns_and_a_finished_coder_writes_raw_rows_as_training_wrote_scaled_ones(
    wiring: str, scale: str
) -> None:
    """The rows are scaled here by their definition, and what is written is scaled back by the inverse of it."""
    size = {"here": 40.0, "there": 1.0} if scale == "none" else {"here": 1.0, "there": 1.0}

    def scaled(batches: Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """Rows that are left as they are must not be large."""
        for batch in batches:
            yield {site: rows.double() / size[site] for site, rows in batch.items()}

    coder = runs.new_coder("batch_topk", runs.WIRINGS[wiring], input_scale=scale, k=6.0).double()
    (sample,) = scaled([runs.sample()])
    trainee = new_trainee(wiring, coder, sample, runs.SHORT)
    reports = list(train([trainee], scaled(runs.data(30)), runs.SHORT))
    (batch,) = scaled(runs.data(1, seed=99))

    with torch.no_grad():
        x_scaled, _ = trainee.rows(batch)
        written = coder(x_scaled).split([port.width for port in coder.wiring.writes], dim=1)
        back = []
        for part, scaling in zip(written, trainee.writes, strict=True):
            matrix = torch.eye(part.shape[1]).double() * scaling.factor if scaling.matrix is None else scaling.matrix
            mean = 0.0 if scaling.mean is None else scaling.mean
            back.append(torch.linalg.solve(matrix.T, part.T).T + mean)
        before = torch.cat(back, dim=1)
    x, y = runs.raw_rows(coder, batch)
    after = finish(trainee)(x)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-8)
    assert reports[-1].metrics[wiring]["explained_variance"] > 0.7
    assert runs.explained(y, after) > 0.6


@pytest.mark.parametrize("name", ["batch_topk", "relu"])
def test_two_runs_from_one_seed_give_the_same_weights_bit_for_bit(name: str) -> None:
    first, second, other = (runs.trainee_of(name, seed, runs.SHORT) for seed in (7, 7, 8))
    for trainee in (first, second, other):
        runs.run(trainee, config=runs.SHORT)
    for a, b in zip(runs.weights_of(first.coder), runs.weights_of(second.coder), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.coder.W_dec, other.coder.W_dec)


def test_coders_trained_together_are_those_trained_alone() -> None:
    alone, together = ([runs.trainee_of(name, config=runs.SHORT) for name in ("batch_topk", "relu")] for _ in range(2))
    for trainee in alone:
        runs.run(trainee, config=runs.SHORT)
    runs.run(*together, config=runs.SHORT)
    for a, b in zip(alone, together, strict=True):
        for x, y in zip(runs.weights_of(a.coder), runs.weights_of(b.coder), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("name", sorted(trainable_architectures()))
def test_decoder_rows_keep_the_norm_of_the_config_after_every_step(name: str) -> None:
    config = TrainingConfig(rows=7 * 512, batch=512, buffer=1024, log_every=1)
    trainee = runs.trainee_of(name, config=config)
    is_kept = trainee.coder.config.decoder_norm == "unit" and trainee.coder.W_dec.requires_grad
    n_reports = 0
    for _ in train([trainee], runs.data(7), config):
        norms = trainee.coder.W_dec.norm(dim=1)
        assert torch.allclose(norms, torch.ones_like(norms), rtol=1e-6, atol=1e-6) == is_kept
        n_reports += 1
    assert n_reports == 7


def test_rows_are_scaled_to_a_mean_square_norm_of_one_about_their_mean() -> None:
    trainee, sample = runs.trainee_of(), runs.sample()
    scaled, same = trainee.rows(sample)
    assert same is scaled, "an autoencoder writes what it reads"
    torch.testing.assert_close(scaled, sample["here"] * trainee.reads[0].factor)
    assert (scaled - scaled.mean(0)).square().sum(1).mean().item() == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(trainee.coder.b_dec.detach(), scaled.mean(0), rtol=1e-4, atol=1e-5)


def test_sites_are_scaled_each_by_its_own_and_stand_side_by_side() -> None:
    sample = runs.sample()
    crosscoder = new_trainee("cross", runs.new_coder(wiring=runs.WIRINGS["crosscoder"]), sample, runs.CONFIG)
    scaled, _ = crosscoder.rows(sample)
    for part in (scaled[:, : runs.WIDTH], scaled[:, runs.WIDTH :]):
        assert (part - part.mean(0)).square().sum(1).mean().item() == pytest.approx(1.0, rel=1e-5)
    transcoder = new_trainee("trans", runs.new_coder(wiring=runs.WIRINGS["transcoder"]), sample, runs.CONFIG)
    x, y = transcoder.rows(sample)
    torch.testing.assert_close(torch.cat([x, y], dim=1), scaled)
    torch.testing.assert_close(transcoder.coder.b_dec.detach(), y.mean(0), rtol=1e-4, atol=1e-5)
    assert transcoder.sites == {"here", "there"}


def test_training_does_not_depend_on_the_scale_of_the_activations() -> None:
    """A power of two only changes the exponents, so the scaled rows are the same to the last bit."""
    plain = runs.trainee_of(config=runs.SHORT)
    runs.run(plain, config=runs.SHORT)
    large = new_trainee("large", runs.new_coder(), {"here": 64 * runs.sample()["here"]}, runs.SHORT)
    list(train([large], ({"here": 64 * batch["here"]} for batch in runs.data(30)), runs.SHORT))
    assert large.reads[0].factor == plain.reads[0].factor / 64
    for a, b in zip(runs.weights_of(plain.coder), runs.weights_of(large.coder), strict=True):
        assert torch.equal(a, b)


def test_a_finished_coder_learns_no_more() -> None:
    trainee = runs.trainee_of()
    coder = finish(trainee)
    assert coder is trainee.coder
    assert not coder.training
    assert not any(parameter.requires_grad for parameter in coder.parameters())


def test_reports_come_at_the_steps_asked_for_and_at_the_end() -> None:
    config = TrainingConfig(rows=25 * 100, batch=100, buffer=200, log_every=7)
    reports = list(train([runs.trainee_of(config=config)], runs.data(100, size=100), config))
    assert [report.step for report in reports] == [0, 7, 14, 21, 24]
    assert [report.rows for report in reports] == [100, 800, 1500, 2200, 2500]
    assert reports[0].metrics["batch_topk"].keys() == {"lr", "mse", "l0", "explained_variance", "dead_share"}
    assert reports[0].metrics["batch_topk"]["l0"] == 4.0


def test_the_last_step_is_the_one_that_reaches_the_rows_asked_for() -> None:
    config = TrainingConfig(rows=701, batch=100, buffer=200, log_every=100)
    assert config.n_steps == 8
    stream = runs.Counted(runs.data(100, size=100))
    reports = list(train([runs.trainee_of(config=config)], stream, config))
    assert reports[-1].rows == 800
    assert stream.n_taken == 8


def test_the_learning_rate_follows_the_schedule() -> None:
    config = TrainingConfig(rows=1000, batch=100, buffer=200, lr=0.01, warm_up=0.2, decay=0.5, log_every=1)
    reports = train([runs.trainee_of(config=config)], runs.data(10, size=100), config)
    rates = [report.metrics["batch_topk"]["lr"] for report in reports]
    by_hand = [0.005, 0.01, 0.01, 0.01, 0.01, 0.008, 0.006, 0.004, 0.002, 0.0]
    assert rates == pytest.approx(by_hand)


def test_one_step_is_a_step_of_adam_on_the_tangent_of_the_decoder() -> None:
    """Worked with dense matrices and torch's own Adam; the radial part is removed and rows are renormalised by hand."""
    config = TrainingConfig(rows=512, batch=512, buffer=1024, lr=0.01, warm_up=0.0, decay=0.0, clip=0.0)
    sample = {"here": runs.sample()["here"].double()}
    ours, plain = (new_trainee("relu", runs.new_coder("relu").double(), sample, config) for _ in range(2))
    (batch,) = runs.data(1)
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
    trainee = runs.trainee_of(config=config)
    list(train([trainee], runs.data(1), config))
    squares = [(10 * moments.mean).square().sum() for moments in trainee.optimizer.moments.values()]
    # what lies along decoder rows is taken away before clipping
    assert torch.stack(squares).sum().sqrt().item() == pytest.approx(0.063, rel=1e-3)


def test_latents_that_never_fire_are_reported_dead_and_then_get_the_auxiliary_loss() -> None:
    """The loop looks which latents are dead at every tenth step, so that a GPU need not be waited for."""
    config = TrainingConfig(rows=25 * 512, batch=512, buffer=1024, dead_window=1000, log_every=1)
    trainee = runs.trainee_of(config=config)
    with torch.no_grad():
        trainee.coder.W_enc[:9] *= 0.01  # positive for some rows, but never among the largest of a batch
    reports = list(train([trainee], runs.data(25), config))
    assert reports[1].metrics["batch_topk"]["dead_share"] > 0
    assert all("aux" not in report.metrics["batch_topk"] for report in reports[:10])
    assert "aux" in reports[10].metrics["batch_topk"]


def test_a_caller_that_stops_has_a_whole_coder() -> None:
    trainee = runs.trainee_of()
    reports = train([trainee], runs.data(100), runs.CONFIG)
    next(reports)
    next(reports)
    reports.close()
    x = next(runs.data(1, seed=99))["here"]
    assert finish(trainee)(x).isfinite().all()
