"""Reconstruction, L0 and density: numbers worked by hand, and merging equal to one pass."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unweave.metrics import L0, CodedRows, Density, Metric, Reconstruction, definitions
from unweave.types import Codes


def _coded(codes: Codes, x: Tensor | None = None, x_hat: Tensor | None = None) -> CodedRows:
    nothing = torch.zeros(codes.n_rows, 2)
    return CodedRows(nothing if x is None else x, codes, nothing if x_hat is None else x_hat)


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
    assert metric.compute() == {"explained_variance": 1 - 3 / 10, "mse": 1.5}
    assert metric.mean_D.tolist() == [1.0, 2.0]


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
    assert perfect.compute() == {"explained_variance": 1.0, "mse": 0.0}
    assert mean.compute()["explained_variance"] == pytest.approx(0.0, abs=1e-12)


def test_l0_is_the_mean_number_of_active_latents() -> None:
    metric = L0()
    metric.update(_coded(_codes([0, 1, 3], [])))
    metric.update(_coded(_codes([2])))
    assert metric.compute() == {"l0": 4 / 3}


def test_density_counts_the_rows_on_which_each_latent_fires() -> None:
    metric = Density(4)
    metric.update(_coded(_codes([0, 1], [0], [0], [])))
    metric.update(_coded(_codes([0, 3])))
    assert metric.fires_L.tolist() == [4, 1, 0, 1]
    assert metric.density_L.tolist() == [0.8, 0.2, 0.0, 0.2]
    assert metric.compute() == {"dead_share": 0.25, "dense_share": 0.75}


def test_a_latent_on_exactly_a_tenth_of_the_rows_is_not_dense() -> None:
    metric = Density(4)
    metric.update(_coded(_codes([0, 1], [1], *[[]] * 8)))
    assert metric.compute()["dense_share"] == 0.25


METRICS: dict[str, Callable[[], Metric[CodedRows]]] = {
    "reconstruction": lambda: Reconstruction(7),
    "l0": L0,
    "density": lambda: Density(100),
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
    from unweave.metrics import FirstPosition, SplicedLoss

    for metric in (Reconstruction, L0, Density, FirstPosition, SplicedLoss):
        for definition in metric.definitions:
            assert definitions()[definition.name] is definition
            assert definition.title and definition.good
            assert definition.meaning.endswith(".")
    every = (Reconstruction, L0, Density, FirstPosition, SplicedLoss)
    assert len(definitions()) == sum(len(metric.definitions) for metric in every)


@pytest.mark.parametrize("name", METRICS)
def test_figures_are_exactly_those_that_are_defined(make_codes: Callable[..., Codes], name: str) -> None:
    metric = METRICS[name]()
    x = torch.randn(7, 7)
    metric.update(_coded(make_codes(7, 100), x, x + 1))
    assert list(metric.compute()) == [definition.name for definition in metric.definitions]
