"""Synthetic rows: what they are made of, how often, and that a seed fixes them."""

import math
import re
from itertools import islice

import pytest
import torch
from torch import Tensor

from unweave.activations.synthetic import SyntheticConfig, SyntheticData, log_normal, zipf
from unweave.config import build, parse_toml, to_toml
from unweave.errors import UserError

EVERYTHING = SyntheticConfig(
    n_features=100,
    d_model=17,
    zipf_exponent=0.7,
    max_probability=0.4,
    min_probability=0.005,
    correlation_rank=5,
    correlation_scale=0.3,
    roots=7,
    branching=3,
    depth=2,
    exclusive_siblings=True,
    noise=0.1,
    bias=2.0,
    seed=63,
)


def _generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _close(frequency: Tensor, probability: Tensor, n: int) -> bool:
    return bool(((frequency - probability).abs() < 5 * (probability * (1 - probability) / n).sqrt()).all())


def test_zipfs_law_is_stretched_between_its_ends() -> None:
    """1, 1/2, 1/3 and 1/4 lie 3/4, 1/4, 1/12 and 0 above the last; stretched by 0.3 / (3/4) from 0.1 on."""
    assert zipf(4, 1.0, 0.4, 0.1).tolist() == pytest.approx([0.4, 0.2, 0.1 + 0.4 / 12, 0.1])
    assert zipf(1, 1.0, 0.4, 0.1).tolist() == [0.4]
    assert zipf(7, 2.0, 0.3, 0.3).tolist() == pytest.approx([0.3] * 7)


@pytest.mark.parametrize(("mean", "spread"), [(1.0, 0.25), (5.0, 3.0), (0.3, 0.0)])
def test_magnitudes_are_positive_with_the_stated_mean_and_spread(mean: float, spread: float) -> None:
    values = log_normal(200_000, mean, spread, _generator()).double()
    assert values.min() > 0
    assert values.mean().item() == pytest.approx(mean, abs=5 * spread / math.sqrt(200_000) + 1e-6)
    assert values.std().item() == pytest.approx(spread, rel=0.03, abs=1e-6)


def test_a_row_is_the_sum_of_its_features_and_the_bias() -> None:
    data = SyntheticData(SyntheticConfig(n_features=63, d_model=7, bias=3.0))
    rows = data.sample(100, _generator())
    for b in range(100):
        x = data.bias_D.double()
        for entry in range(rows.magnitudes_BF.row_offsets[b], rows.magnitudes_BF.row_offsets[b + 1]):
            feature = rows.magnitudes_BF.latent_ids[entry]
            x = x + rows.magnitudes_BF.values[entry].double() * data.features_FD[feature].double()
        assert torch.allclose(rows.x_BD[b].double(), x, atol=1e-5)
    assert data.bias_D.norm().item() == pytest.approx(3.0)


def test_magnitudes_are_compressed_rows_sorted_by_feature() -> None:
    magnitudes = SyntheticData(EVERYTHING).sample(333, _generator()).magnitudes_BF
    assert (magnitudes.n_rows, magnitudes.n_latents) == (333, 100)
    assert magnitudes.row_offsets[0] == 0 and magnitudes.row_offsets[-1] == len(magnitudes.values)
    for b in range(333):
        features = magnitudes.latent_ids[magnitudes.row_offsets[b] : magnitudes.row_offsets[b + 1]].tolist()
        assert features == sorted(set(features))
    assert (magnitudes.values > 0).all()


def test_rows_on_which_nothing_fires_are_the_bias() -> None:
    config = SyntheticConfig(n_features=3, d_model=7, max_probability=1e-6, min_probability=1e-7, bias=1.0)
    rows = SyntheticData(config).sample(63, _generator())
    assert len(rows.magnitudes_BF.values) == 0
    assert rows.magnitudes_BF.row_offsets.tolist() == [0] * 64
    assert torch.equal(rows.x_BD, SyntheticData(config).bias_D.expand(63, 7))


@pytest.mark.parametrize("config", [SyntheticConfig(n_features=63, d_model=7), EVERYTHING])
def test_every_feature_fires_as_often_as_the_data_say(config: SyntheticConfig) -> None:
    n, data = 40_000, SyntheticData(config)
    fired = torch.bincount(data.sample(n, _generator()).magnitudes_BF.latent_ids, minlength=config.n_features)
    assert _close(fired / n, data.probabilities_F, n)


def test_probabilities_are_those_of_zipf_where_the_forest_allows() -> None:
    plain = SyntheticData(SyntheticConfig(n_features=63, d_model=7))
    assert torch.equal(plain.probabilities_F, zipf(63, 1.0, 0.3, 0.01))
    trees = SyntheticData(SyntheticConfig(n_features=63, d_model=7, roots=3, branching=2, depth=3))
    assert torch.allclose(trees.probabilities_F, zipf(63, 1.0, 0.3, 0.01), atol=1e-12)


def test_children_fire_only_with_their_parents_and_exclude_their_siblings() -> None:
    data = SyntheticData(EVERYTHING)
    fired = data.sample(3_000, _generator()).magnitudes_BF.dense() > 0
    parents = data.parents_F.tolist()
    assert sum(parent >= 0 for parent in parents) == 7 * (3 + 9)
    for child, parent in enumerate(parents):
        assert parent == -1 or not (fired[:, child] & ~fired[:, parent]).any()
    for parent in set(parents) - {-1}:
        assert fired[:, [child for child, above in enumerate(parents) if above == parent]].sum(1).max() <= 1


def test_trees_are_correlated_through_their_roots() -> None:
    """Two roots fire together by their loadings, and a child of each by P(child | root) of both."""
    config = SyntheticConfig(
        n_features=4,
        d_model=7,
        max_probability=0.4,
        min_probability=0.2,
        correlation_rank=1,
        correlation_scale=0.9,
        roots=2,
        branching=1,
        depth=1,
    )
    n, data = 50_000, SyntheticData(config)
    assert data.loadings_FR[:2].ne(0).all() and not data.loadings_FR[2:].any()
    fired = (data.sample(n, _generator()).magnitudes_BF.dense() > 0).double()
    roots = (fired[:, 0] * fired[:, 1]).mean()
    children = (fired[:, 2] * fired[:, 3]).mean()
    p = data.probabilities_F
    assert abs(roots - p[0] * p[1]) > 0.01
    assert children.item() == pytest.approx((roots * p[2] / p[0] * p[3] / p[1]).item(), rel=0.05)


def test_noise_has_the_stated_spread_in_every_dimension() -> None:
    quiet, noisy = (SyntheticConfig(n_features=63, d_model=7, noise=noise) for noise in (0.0, 0.5))
    n = 20_000
    noise = SyntheticData(noisy).sample(n, _generator()).x_BD - SyntheticData(quiet).sample(n, _generator()).x_BD
    assert torch.allclose(noise.std(0), torch.tensor(0.5), rtol=0.03)
    assert noise.mean(0).abs().max() < 5 * 0.5 / math.sqrt(n)


def test_rows_are_fixed_by_the_generator_and_features_by_the_config() -> None:
    data, again = SyntheticData(EVERYTHING), SyntheticData(EVERYTHING)
    assert torch.equal(data.features_FD, again.features_FD)
    assert torch.equal(data.sample(63, _generator()).x_BD, again.sample(63, _generator()).x_BD)
    assert not torch.equal(data.sample(63, _generator(1)).x_BD, data.sample(63, _generator(2)).x_BD)
    other = SyntheticConfig(n_features=100, d_model=17, seed=64)
    assert not torch.allclose(SyntheticData(other).features_FD, data.features_FD)


def test_the_global_seed_plays_no_part() -> None:
    data = SyntheticData(EVERYTHING)
    before = torch.random.get_rng_state()
    data.sample(63, _generator())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_batches_are_samples_one_after_the_other_at_a_site_of_their_own() -> None:
    data = SyntheticData(SyntheticConfig())
    batches = list(islice(data.batches(63, _generator()), 3))
    generator = _generator()
    for batch in batches:
        assert list(batch) == ["synthetic"]
        assert torch.equal(batch["synthetic"], data.sample(63, generator).x_BD)
    assert not torch.equal(batches[0]["synthetic"], batches[1]["synthetic"])


def test_the_defaults_are_four_times_as_many_independent_features_as_dimensions() -> None:
    config = SyntheticConfig()
    assert build(SyntheticConfig, parse_toml(to_toml(config), "memory")) == config
    data = SyntheticData(config)
    assert data.features_FD.shape == (256, 64)
    assert data.loadings_FR.shape == (256, 0) and (data.parents_F == -1).all()
    overlap = (data.features_FD @ data.features_FD.T).square().sum().item()
    assert overlap == pytest.approx(256**2 / 64, rel=1e-3)
    rows = data.sample(10_000, _generator())
    assert len(rows.magnitudes_BF.values) / 10_000 == pytest.approx(data.probabilities_F.sum().item(), rel=0.02)
    assert rows.x_BD.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_features": 0}, "synthetic.n_features must be finite and more than 0, got 0"),
        ({"d_model": -1}, "synthetic.d_model must be finite and more than 0, got -1"),
        ({"zipf_exponent": 0.0}, "synthetic.zipf_exponent must be finite and more than 0, got 0.0"),
        ({"magnitude_mean": float("nan")}, "synthetic.magnitude_mean must be finite and more than 0, got nan"),
        ({"magnitude_spread": -0.1}, "synthetic.magnitude_spread must be finite and not negative, got -0.1"),
        ({"noise": float("inf")}, "synthetic.noise must be finite and not negative, got inf"),
        ({"max_probability": 1.1}, "0 < min_probability <= max_probability <= 1, got 0.01 and 1.1"),
        ({"min_probability": 0.5}, "0 < min_probability <= max_probability <= 1, got 0.5 and 0.3"),
        ({"min_probability": 0.0}, "0 < min_probability <= max_probability <= 1, got 0.0 and 0.3"),
        ({"correlation_rank": 3}, "are both 0 or both more than 0, got 3 and 0.0"),
        ({"correlation_scale": 0.1}, "are both 0 or both more than 0, got 0 and 0.1"),
        ({"roots": 3}, "roots, branching and depth are all 0 or all more than 0, got 3, 0, 0"),
        ({"depth": 3, "branching": 2}, "roots, branching and depth are all 0 or all more than 0, got 0, 2, 3"),
        ({"exclusive_siblings": True}, "needs a branching of at least 2, got branching=0"),
        (
            {"roots": 63, "branching": 2, "depth": 2},
            "63 trees with branching 2 and depth 2 have 441 nodes, more than synthetic.n_features=256",
        ),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        SyntheticConfig(**settings)


def test_a_sample_of_no_rows_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1 row, got 0"):
        SyntheticData(SyntheticConfig()).sample(0, _generator())


def test_a_coder_of_the_same_seed_does_not_start_at_the_features() -> None:
    data = SyntheticData(SyntheticConfig(n_features=63, d_model=20, seed=7, orthogonal_turns=0))
    drawn = torch.nn.functional.normalize(torch.randn(63, 20, generator=_generator(7)), dim=1)
    assert (drawn * data.features_FD).sum(1).abs().max() < 0.9
