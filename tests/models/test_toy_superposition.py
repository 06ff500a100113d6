"""The toy model of superposition against what its loss says is best, and the pictures of Elhage et al. 2022."""

import math
import re
from itertools import islice

import numpy as np
import pytest
import torch

from unweave.config import build, parse_toml, to_toml
from unweave.errors import UserError
from unweave.models.toy_superposition import (
    ToySuperposition,
    ToySuperpositionConfig,
    draw_features,
    train_toy_superposition,
)


@pytest.fixture(scope="module")
def sparse() -> ToySuperposition:
    """Five equal features in two dimensions, of which nearly never two are there at once."""
    return train_toy_superposition(ToySuperpositionConfig(sparsity=0.99, importance_decay=1.0))


@pytest.fixture(scope="module")
def dense() -> ToySuperposition:
    """Features that are always there, each half as important as the one before."""
    return train_toy_superposition(ToySuperpositionConfig(sparsity=0.0, importance_decay=0.5))


def _generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _by_hand() -> ToySuperposition:
    """A model of three features in two dimensions that was not trained."""
    W = torch.tensor([[1.0, 0.0, -0.5], [0.0, 2.0, 1.0]])
    b = torch.tensor([0.0, -1.0, 0.25])
    return ToySuperposition(ToySuperpositionConfig(n_features=3, sparsity=0.7), W, b, 0.0)


def _best_pentagon() -> tuple[float, float]:
    """Squared norm and bias with the least loss where one feature of a pentagon is active, by trying them all.

    The active feature x reads back as relu(r x + b), its two neighbours at 72 degrees as relu(r x cos 72 + b), and the
    two beyond, at 144 degrees, as 0.
    """
    x = (np.arange(400) + 0.5) / 400
    r = np.linspace(1.0, 1.8, 161)[:, None, None]
    b = np.linspace(-0.5, 0.0, 101)[None, :, None]
    own = (x - np.maximum(r * x + b, 0)) ** 2
    beside = np.maximum(r * x * math.cos(math.radians(72)) + b, 0) ** 2
    best = np.unravel_index((own + 2 * beside).mean(2).argmin(), (161, 101))
    return float(r[best[0], 0, 0]), float(b[0, best[1], 0])


def test_five_sparse_features_share_two_dimensions_as_a_pentagon(sparse: ToySuperposition) -> None:
    angles = torch.atan2(sparse.W_DF[1], sparse.W_DF[0]).rad2deg().sort().values
    gaps = torch.cat([angles.diff(), angles[:1] + 360 - angles[-1:]])
    assert torch.allclose(gaps, torch.full((5,), 72.0), atol=2.0)


def test_each_feature_of_the_pentagon_is_as_long_as_the_loss_wants(sparse: ToySuperposition) -> None:
    squared_norm, bias = _best_pentagon()
    norms = sparse.W_DF.norm(dim=0)
    assert torch.allclose(norms, torch.full((5,), squared_norm**0.5), atol=0.04)
    assert torch.allclose(sparse.b_F, torch.full((5,), bias), atol=0.03)
    assert norms.min() > 1 and norms.max() < 1.25


def test_features_of_the_pentagon_interfere_by_the_cosines_of_its_angles(sparse: ToySuperposition) -> None:
    """Each overlaps two others by cos 72 and two by cos 144; positive interference is cut away by the bias."""
    directions = sparse.W_DF / sparse.W_DF.norm(dim=0)
    overlaps = (directions.T @ directions).sort(dim=1).values
    near, far = math.cos(math.radians(72)), math.cos(math.radians(144))
    assert torch.allclose(overlaps, torch.tensor([far, far, near, near, 1.0]).expand(5, 5), atol=0.04)


def test_dense_features_leave_room_for_the_two_most_important(dense: ToySuperposition) -> None:
    """Those are read back exactly, the others by their mean of 1/2."""
    assert torch.allclose(dense.W_DF.norm(dim=0), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]), atol=0.03)
    assert (dense.W_DF[:, 0] @ dense.W_DF[:, 1]).abs() < 0.03
    assert torch.allclose(dense.b_F, torch.tensor([0.0, 0.0, 0.5, 0.5, 0.5]), atol=0.03)


def test_the_loss_on_dense_features_is_the_variance_of_those_that_are_dropped(dense: ToySuperposition) -> None:
    """A uniform number has a variance of 1/12."""
    assert dense.loss == pytest.approx((1 / 4 + 1 / 8 + 1 / 16) / 12, rel=0.02)


def test_the_loss_is_the_importance_weighted_error_of_the_model(dense: ToySuperposition) -> None:
    x = draw_features(20_000, dense.config, _generator(63))
    error_F = (x - dense.reconstruct(x)).square().mean(0)
    weighted = sum(error_F[i].item() / 2**i for i in range(5))
    assert weighted == pytest.approx(dense.loss, rel=0.02)


def test_hidden_rows_and_reconstructions_are_worked_by_hand() -> None:
    """x = (1, 0.5, 1): h = (1 - 0.5, 1 + 1), and what is read back is relu of (0.5, 4 - 1, -0.25 + 2 + 0.25)."""
    toy, x = _by_hand(), torch.tensor([[1.0, 0.5, 1.0], [0.0, 0.0, 0.0]])
    assert toy.hidden(x).tolist() == [[0.5, 2.0], [0.0, 0.0]]
    assert toy.reconstruct(x).tolist() == [[0.5, 3.0, 2.0], [0.0, 0.0, 0.25]]
    assert toy.features_FD.tolist() == [[1.0, 0.0], [0.0, 2.0], [-0.5, 1.0]]


def test_a_sampled_row_is_the_sum_of_its_features_times_their_magnitudes() -> None:
    toy = _by_hand()
    rows = toy.sample(101, _generator())
    assert (rows.magnitudes_BF.n_rows, rows.magnitudes_BF.n_latents) == (101, 3)
    for b in range(101):
        x = torch.zeros(2)
        for entry in range(rows.magnitudes_BF.row_offsets[b], rows.magnitudes_BF.row_offsets[b + 1]):
            x = x + rows.magnitudes_BF.values[entry] * toy.W_DF[:, rows.magnitudes_BF.latent_ids[entry]]
        assert torch.allclose(rows.x_BD[b], x, atol=1e-6)


def test_features_are_zero_with_the_stated_probability_and_else_uniform() -> None:
    n = 50_000
    magnitudes = _by_hand().sample(n, _generator()).magnitudes_BF
    active = torch.bincount(magnitudes.latent_ids, minlength=3) / n
    assert torch.allclose(active, torch.full((3,), 0.3), atol=5 * (0.3 * 0.7 / n) ** 0.5)
    values = magnitudes.values.sort().values
    assert values[0] > 0 and values[-1] <= 1
    assert (values - torch.linspace(0, 1, len(values))).abs().max() < 1.95 / len(values) ** 0.5


def test_batches_are_samples_one_after_the_other_at_a_site_of_their_own() -> None:
    generator = _generator()
    for batch in islice(_by_hand().batches(63, _generator()), 3):
        assert list(batch) == ["synthetic"]
        assert torch.equal(batch["synthetic"], _by_hand().sample(63, generator).x_BD)


def test_training_is_fixed_by_the_config_and_leaves_the_global_seed_alone() -> None:
    config = ToySuperpositionConfig(n_features=7, d_model=3, steps=20, batch=63, restarts=2, seed=5)
    before = torch.random.get_rng_state()
    one, two = train_toy_superposition(config), train_toy_superposition(config)
    assert torch.equal(one.W_DF, two.W_DF) and one.loss == two.loss
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.W_DF.shape == (3, 7) and not one.W_DF.requires_grad


def test_training_works_where_gradients_are_switched_off() -> None:
    config = ToySuperpositionConfig(steps=60, batch=63, restarts=2)
    with torch.no_grad():
        trained = train_toy_superposition(config)
    assert trained.loss < train_toy_superposition(ToySuperpositionConfig(steps=1, batch=63, restarts=2)).loss


def test_the_defaults_are_those_of_the_papers_first_picture() -> None:
    config = ToySuperpositionConfig()
    assert (config.n_features, config.d_model, config.sparsity) == (5, 2, 0.9)
    assert config.importances.tolist() == pytest.approx([1.0, 0.9, 0.81, 0.729, 0.6561])
    assert build(ToySuperpositionConfig, parse_toml(to_toml(config), "memory")) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_features": 0}, "toy.n_features must be finite and more than 0, got 0"),
        ({"lr": float("nan")}, "toy.lr must be finite and more than 0, got nan"),
        ({"restarts": 0}, "toy.restarts must be finite and more than 0, got 0"),
        ({"sparsity": 1.0}, "toy.sparsity is a probability in [0, 1), got 1.0"),
        ({"importance_decay": 0.0}, "toy.importance_decay must be in (0, 1], got 0.0"),
        ({"seed": -1}, "toy.seed must not be negative, got -1"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        ToySuperpositionConfig(**settings)


def test_a_sample_of_no_rows_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1 row, got 0"):
        _by_hand().sample(0, _generator())
