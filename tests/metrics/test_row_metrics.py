"""Reconstruction, L0 and density: numbers worked by hand, and merging equal to one pass."""

import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unweave.metrics import CORE, L0, CodedRows, Density, Kurtosis, Metric, Reconstruction, RowRatios, definitions
from unweave.types import Codes


def _coded(codes: Codes, x: Tensor | None = None, x_hat: Tensor | None = None) -> CodedRows:
    nothing = torch.zeros(codes.n_rows, 2)
    blocks = torch.arange(codes.n_rows) % 5
    return CodedRows(nothing if x is None else x, codes, nothing if x_hat is None else x_hat, blocks)


def _codes(*rows: list[int], n_latents: int = 4) -> Codes:
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row))
    latents = torch.tensor([latent for row in rows for latent in row], dtype=torch.int64)
    return Codes(torch.ones(len(latents)), latents, torch.tensor(offsets), n_latents)


def _reconstructed(x: list[list[float]], x_hat: list[list[float]]) -> CodedRows:
    return _coded(_codes(*[[]] * len(x)), torch.tensor(x), torch.tensor(x_hat))


def test_explained_variance_and_error_of_two_rows_are_worked_by_hand() -> None:
    """Rows (0, 0) and (2, 4) have mean (1, 2) and spread 5 + 5; the errors are 1 and 1 + 1."""
    metric = Reconstruction(2)
    metric.update(_reconstructed([[0, 0], [2, 4]], [[1, 0], [1, 3]]))
    figures = metric.compute()
    assert (figures["explained_variance"], figures["mse"]) == (1 - 3 / 10, 1.5)
    assert figures["normalised_error"] == 3 / 20
    assert figures["scale"] == (1 + 10) / (2 + 12)


def test_explained_variance_is_one_of_all_rows_at_once_and_not_a_mean_over_batches() -> None:
    """Two batches that each vary little about means far apart, reconstructed by their own means.

    Each batch alone has an explained variance of 0; over all rows the spread is 4 x 100 + 4 x 1, the error 4 x 1.
    """
    low, high = [[-11.0, 0], [-9.0, 0]], [[9.0, 0], [11.0, 0]]
    metric, alone = Reconstruction(2), []
    for rows, mean in ((low, -10.0), (high, 10.0)):
        batch = _reconstructed(rows, [[mean, 0], [mean, 0]])
        metric.update(batch)
        single = Reconstruction(2)
        single.update(batch)
        alone.append(single.compute()["explained_variance"])
    assert alone == [0.0, 0.0]
    assert metric.compute()["explained_variance"] == pytest.approx(1 - 4 / 404, abs=1e-12)


def test_explained_variance_is_the_r_squared_of_all_entries() -> None:
    x = torch.randn(63, 7, dtype=torch.float64) + 5
    x_hat = x + 0.3 * torch.randn(63, 7, dtype=torch.float64)
    metric = Reconstruction(7)
    for start in range(0, 63, 10):
        part, part_hat = x[start : start + 10], x_hat[start : start + 10]
        metric.update(_coded(_codes(*[[]] * len(part)), part, part_hat))
    by_hand = 1 - (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
    assert metric.compute()["explained_variance"] == pytest.approx(by_hand.item(), rel=1e-12)
    assert metric.compute()["mse"] == pytest.approx((x - x_hat).square().sum(1).mean().item(), rel=1e-12)


def test_explained_variance_survives_a_mean_far_from_zero() -> None:
    """Single-precision rows around 1,000, as in the residual stream of some models, summed in double precision."""
    x = 1000 + torch.randn(10_000, 7)
    metric = Reconstruction(7)
    metric.update(_coded(_codes(*[[]] * 10_000), x, x + 0.5))
    exact = x.double()
    by_hand = 1 - 7 * 0.25 * 10_000 / (exact - exact.mean(0)).square().sum()
    assert metric.compute()["explained_variance"] == pytest.approx(by_hand.item(), abs=1e-6)


def test_a_perfect_reconstruction_explains_everything_and_the_mean_nothing() -> None:
    x = [[1.0, 2.0], [3.0, -4.0], [8.0, 0.5]]
    perfect, mean = Reconstruction(2), Reconstruction(2)
    perfect.update(_reconstructed(x, x))
    mean.update(_reconstructed(x, [[4.0, -0.5]] * 3))
    assert perfect.compute() == {"explained_variance": 1.0, "mse": 0.0, "normalised_error": 0.0, "scale": 1.0}
    assert mean.compute()["explained_variance"] == pytest.approx(0.0, abs=1e-12)


def test_l0_is_the_mean_number_of_active_latents() -> None:
    metric = L0()
    metric.update(_coded(_codes([0, 1, 3], [])))
    metric.update(_coded(_codes([2])))
    figures = metric.compute()
    assert figures["l0"] == 4 / 3
    assert figures["l0_spread"] == pytest.approx(statistics.pstdev([3, 0, 1]))
    assert metric.rows_by_count.tolist() == [1, 1, 0, 1]


def test_quantiles_of_l0_are_the_counts_that_a_share_of_rows_does_not_exceed() -> None:
    """Of 100 rows, one each with 0 to 99 active latents, 10 have at most 9, 50 at most 49."""
    metric = L0()
    metric.update(_coded(_codes(*[list(range(n)) for n in range(100)], n_latents=100)))
    quantiles = {name: value for name, value in metric.compute().items() if "_p" in name}
    assert quantiles == {"l0_p10": 9, "l0_p50": 49, "l0_p90": 89, "l0_p99": 98}


def test_density_counts_the_rows_on_which_each_latent_fires() -> None:
    metric = Density(4)
    metric.update(_coded(_codes([0, 1], [0], [0], [])))
    metric.update(_coded(_codes([0, 3])))
    assert metric.fires_L.tolist() == [4, 1, 0, 1]
    assert metric.density_L.tolist() == [0.8, 0.2, 0.0, 0.2]
    assert metric.compute() == pytest.approx(
        {"dead_share": 0.25, "dense_share": 0.75, "often_share": 0.75, "dense_activation_share": 1.0}
    )
    assert sum(metric.histogram().counts) == 4
    assert metric.histogram().counts[0] == 1, "the dead latent is the rarest"


def test_a_latent_on_exactly_a_tenth_of_the_rows_is_not_dense() -> None:
    metric = Density(4)
    metric.update(_coded(_codes([0, 1], [1], *[[]] * 8)))
    assert metric.compute()["dense_share"] == 0.25


def test_densities_fall_into_quarters_of_a_decade() -> None:
    """Densities of 0.2 and 0.3 are 10 to the power of -0.70 and of -0.52, both in the last but two of 28 quarters."""
    metric = Density(4)
    metric.update(_coded(_codes([0, 1], [0, 1], [1], *[[]] * 7)))
    histogram = metric.histogram()
    assert len(histogram.counts) == 28
    assert (histogram.edges[0], histogram.edges[-1]) == (-7.0, 0.0)
    assert [i for i, count in enumerate(histogram.counts) if count] == [0, 25]
    assert histogram.counts[25] == 2


def test_ratios_of_rows_weigh_all_rows_alike() -> None:
    """About a mean of (1, 0), rows (4, 4) and (0, 1): errors 1 and 1 on squared distances 25 and 2."""
    metric = RowRatios(torch.tensor([1.0, 0.0]))
    metric.update(_reconstructed([[4, 4], [0, 1]], [[4, 3], [0, 2]]))
    figures = metric.compute()
    assert figures["explained_variance_of_rows"] == pytest.approx(1 - (1 / 25 + 1 / 2) / 2)
    assert figures["cosine"] == pytest.approx((28 / (32**0.5 * 5) + 1) / 2)
    assert figures["shrinkage"] == pytest.approx((5 / 32**0.5 + 2) / 2)


def test_a_row_of_nothing_has_no_ratio() -> None:
    metric = RowRatios(torch.zeros(2))
    metric.update(_reconstructed([[0, 0], [3, 4]], [[1, 0], [6, 8]]))
    assert metric.compute() == pytest.approx({"explained_variance_of_rows": 0.0, "cosine": 1.0, "shrinkage": 2.0})


def test_kurtosis_of_values_that_are_worked_by_hand() -> None:
    """Neuron 0 has 1, -1, 1, -1: kurtosis 1. Neuron 1 has 0, 0, 0, 4, about 1: (81 + 3) / 4 over ((9 + 3) / 4)^2."""
    x = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 4]])
    metric = Kurtosis(torch.tensor([0.3, 0.7]), 4)
    codes = _codes([0, 1], [0], [0], [0]).with_values(torch.tensor([2.0, 3.0, 2.0, 2.0, 2.0]))
    metric.update(_coded(codes, x, x))
    figures = metric.compute()
    assert figures["kurtosis_of_neurons"] == pytest.approx((1 + 21 / 9) / 2)
    assert figures["kurtosis_of_rows"] == pytest.approx(1.0), "two numbers lie at equal distances from their mean"
    assert figures["kurtosis_of_codes"] == pytest.approx(1.0), "the lower median of 1 and of 4 for one in four"


def test_kurtosis_of_a_normal_distribution_is_three() -> None:
    x = torch.randn(20_000, 7, dtype=torch.float64) * torch.arange(1, 8) + 5
    metric = Kurtosis(x[:100].mean(0), 1)
    metric.update(_coded(_codes(*[[]] * 20_000, n_latents=1), x, x))
    assert metric.compute()["kurtosis_of_neurons"] == pytest.approx(3, abs=0.1)


METRICS: dict[str, Callable[[], Metric[CodedRows]]] = {
    "reconstruction": lambda: Reconstruction(7),
    "l0": L0,
    "density": lambda: Density(100),
    "row ratios": lambda: RowRatios(torch.ones(7)),
    "kurtosis": lambda: Kurtosis(torch.ones(7), 100),
}


@pytest.mark.parametrize("name", METRICS)
def test_merging_parts_is_one_pass_over_all(make_codes: Callable[..., Codes], name: str) -> None:
    batches = []
    for n_rows in (7, 63, 1, 100, 30):
        x = torch.randn(n_rows, 7, dtype=torch.float64) + n_rows
        batches.append(_coded(make_codes(n_rows, 100, 0.02), x, x + torch.randn_like(x)))
    whole, left, right = METRICS[name](), METRICS[name](), METRICS[name]()
    for i, batch in enumerate(batches):
        whole.update(batch)
        (left if i < 2 else right).update(batch)
    before = right.compute()
    left.merge(right)
    assert left.compute() == pytest.approx(whole.compute(), rel=1e-12)
    assert right.compute() == before


def test_every_figure_is_defined_once_in_full() -> None:
    for metric in CORE:
        for definition in metric.definitions:
            assert definitions()[definition.name] is definition
            assert definition.title and definition.good
            assert definition.meaning.endswith(".")
    assert len(definitions()) == sum(len(metric.definitions) for metric in CORE)


@pytest.mark.parametrize("name", METRICS)
def test_figures_are_exactly_those_that_are_defined(make_codes: Callable[..., Codes], name: str) -> None:
    metric = METRICS[name]()
    x = torch.randn(7, 7)
    metric.update(_coded(make_codes(7, 100), x, x + 1))
    assert list(metric.compute()) == [definition.name for definition in metric.definitions]
