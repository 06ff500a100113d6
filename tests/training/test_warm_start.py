"""A coder that starts as a finished one is that coder: finished again without a step, it has the same weights."""

from typing import Any

import pytest
import torch

from tests.training import runs
from unweave.coders import SparseCoder, trainable_architectures
from unweave.errors import UserError
from unweave.training.loop import finish, new_trainee, train
from unweave.training.trainee import Trainee

NAMES = sorted(set(trainable_architectures()) - {"archetypal"})
CONFIG = runs.CONFIG


def _finished(name: str, wiring: str, scale: str | None, **settings: Any) -> SparseCoder:
    """A coder that was trained for a few steps; thresholds that follow training have moved."""
    trainee = _trainee(name, wiring, scale, None, **settings)
    steps = train([trainee], runs.data(7), CONFIG)
    list(zip(range(3), steps, strict=False))
    return finish(trainee)


def _trainee(name: str, wiring: str, scale: str | None, start: SparseCoder | None, **settings: Any) -> Trainee:
    scaled = settings if scale is None else settings | {"input_scale": scale}
    coder = runs.new_coder(name, runs.WIRINGS[wiring], seed=7 if start is None else 8, **scaled).double()
    sample = {site: x.double() for site, x in runs.sample().items()}
    return new_trainee(name, coder, sample, CONFIG, start=start)


def _try(name: str, wiring: str, scale: str | None, **settings: Any) -> SparseCoder:
    try:
        return _finished(name, wiring, scale, **settings)
    except UserError as error:
        assert name in ("matching_pursuit", "prolu"), error
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("wiring", "scale"),
    [("sae", "whiten"), ("sae", "unit_spread"), ("skip_transcoder", "whiten"), ("crosscoder", None)],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_coder_that_takes_no_step_is_the_one_it_started_from(name: str, wiring: str, scale: str | None) -> None:
    first = _try(name, wiring, scale)
    again = finish(_trainee(name, wiring, scale, first))
    ours, theirs = again.state_dict(), first.state_dict()
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        torch.testing.assert_close(ours[key], tensor, rtol=1e-9, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("wiring", list(runs.WIRINGS))
@pytest.mark.parametrize(
    ("name", "settings"),
    [("batch_topk", {}), ("jumprelu", {}), ("jumprelu", {"variant": "anthropic"}), ("gated", {})],
)
def test_on_scaled_rows_it_writes_what_the_finished_coder_writes_on_raw_ones(
    name: str, settings: dict[str, Any], wiring: str
) -> None:
    first = _finished(name, wiring, "whiten", **settings)
    trainee = _trainee(name, wiring, "sqrt_width", first, **settings)
    batch = {site: x.double() for site, x in runs.sample().items()}
    x, y = runs.raw_rows(first, batch)
    x_scaled, y_scaled = trainee.rows(batch)
    codes, expected = trainee.coder.encode(x_scaled), first.encode(x)
    assert torch.equal(codes.latent_ids, expected.latent_ids)
    widths = [port.width for port in first.wiring.writes]
    parts = zip((y_scaled - trainee.coder(x_scaled)).split(widths, 1), trainee.writes, strict=True)
    errors = torch.cat([part / scaling.factor for part, scaling in parts], dim=1)
    torch.testing.assert_close(errors, y - first(x), rtol=1e-8, atol=1e-8)


def test_rows_come_back_through_the_inverse_of_a_scaling() -> None:
    for scale in runs.SCALES:
        trainee = _trainee("relu", "crosscoder", scale, None)
        batch = next(runs.data(1, seed=3))
        for port, scaling in zip(trainee.coder.wiring.writes, trainee.writes, strict=True):
            x = batch[port.site].double()
            torch.testing.assert_close(scaling.inverse(scaling(x)), x, rtol=1e-9, atol=1e-9)


def test_training_goes_on_from_where_it_was() -> None:
    first = _finished("topk", "sae", None)
    x = runs.sample()["here"].double()
    trainee = _trainee("topk", "sae", None, first)
    report = next(train([trainee], runs.data(3), CONFIG))
    assert report.metrics["topk"]["explained_variance"] == pytest.approx(runs.explained(x, first(x)), abs=0.05)


@pytest.mark.parametrize(
    ("name", "wiring", "settings", "message"),
    [
        ("relu", "sae", {}, "start from has the type topk, the recipe asks for relu"),
        ("topk", "sae", {"n_latents": 64}, "has n_latents 96, the recipe asks for 64"),
        ("topk", "transcoder", {}, r"sites to write here \(20 wide\), the recipe asks for there \(12 wide\)"),
        ("topk", "crosscoder", {}, r"sites to read here \(20 wide\), the recipe asks for here \(20 wide\), there"),
        ("topk", "sae", {"centre": False}, "has centre True, the recipe asks for False"),
        ("topk", "sae", {"decoder_norm": "free"}, "has decoder_norm unit, the recipe asks for free"),
    ],
)
def test_a_coder_of_another_make_is_refused(name: str, wiring: str, settings: dict[str, Any], message: str) -> None:
    first = _finished("topk", "sae", None)
    with pytest.raises(UserError, match=message):
        _trainee(name, wiring, None, first, **settings)


def test_another_form_of_the_same_type_is_refused_with_what_differs() -> None:
    first = _finished("jumprelu", "sae", None)
    with pytest.raises(UserError, match=r"start from is of another form of jumprelu than the recipe's: .*log_growth"):
        _trainee("jumprelu", "sae", None, first, variant="anthropic", decoder_norm="free")


def test_a_coder_that_dropped_what_its_training_needs_is_refused() -> None:
    first = _finished("archetypal", "sae", None)
    with pytest.raises(UserError, match="a finished archetypal coder lacks what its training needs"):
        _trainee("archetypal", "sae", None, first)
