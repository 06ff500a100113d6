"""Latents matched by what they do: planted partners, noise and latents that share a partner."""

import pytest
import torch

from unweave.analysis.cofiring import CoFiring, shuffled_rows
from unweave.analysis.correlation import (
    DEFINITIONS,
    best,
    correlated,
    correlation_figures,
    match_by_correlation,
    unique_best,
)
from unweave.errors import UserError
from unweave.kernels.selection import Above, select


def _planted(n_rows: int = 2000, n_latents: int = 40) -> tuple[CoFiring, torch.Tensor]:
    """The second coder has the first's latents in another order, scaled, noisy, and with 10 of its own."""
    a = torch.relu(torch.randn(n_rows, n_latents) - 1.2)
    order = torch.randperm(n_latents)
    own = torch.relu(torch.randn(n_rows, 10) - 1.2)
    b = torch.cat([(3 * a[:, order] + 0.3 * torch.randn(n_rows, n_latents) * (a[:, order] > 0)).relu(), own], 1)
    counted = CoFiring(n_latents, n_latents + 10)
    for x, y in zip(a.split(300), b.split(300), strict=True):
        counted.update(select(x, Above(0.0)), select(y, Above(0.0)))
    return counted, order


def test_planted_partners_are_found_exactly() -> None:
    counted, order = _planted()
    pairs = correlated(counted)
    for found in (match_by_correlation(pairs, counted), unique_best(pairs)):
        right = found.strength > 0.5
        assert right.sum() == 40
        assert torch.equal(order[found.second[right]], found.first[right])
    figures = correlation_figures(pairs, counted)
    assert set(figures) == {definition.name for definition in DEFINITIONS}
    assert figures["correlation_best"] > 0.9 and figures["correlation_partners"] == 1.0


def test_with_rows_in_another_order_nothing_is_left() -> None:
    a = torch.relu(torch.randn(2000, 40) - 1.2)
    codes = select(a, Above(0.0))
    counted = CoFiring(40, 40)
    counted.update(codes, shuffled_rows(codes, torch.Generator().manual_seed(0)))
    assert correlation_figures(correlated(counted), counted)["correlation_best"] < 0.1


def test_latents_with_one_partner_in_common_are_left_out_of_the_unique_ones() -> None:
    """Latents 0 and 1 of the first are copies; the second has it once, and the first's latent 2."""
    a = torch.relu(torch.randn(500, 2) - 0.5)
    counted = CoFiring(3, 2)
    counted.update(select(a[:, [0, 0, 1]], Above(0.0)), select(a, Above(0.0)))
    pairs = correlated(counted)
    assert best(pairs).second.tolist() == [0, 0, 1]
    assert unique_best(pairs).first.tolist() == [2]
    assert len(match_by_correlation(pairs, counted).first) == 2
    kept = correlated(counted, keep_first=torch.tensor([True, False, True]))
    assert unique_best(kept).first.tolist() == [0, 2]
    with pytest.raises(UserError, match="said of all 2, got 3"):
        correlated(counted, keep_second=torch.tensor([True, False, True]))


def test_two_parts_of_one_latent_share_its_correlation() -> None:
    """Correlation of a latent with one that has the half of its rows."""
    a = torch.relu(torch.randn(400, 1))
    b = torch.where(torch.arange(400)[:, None] % 2 == 0, a, 0.0)
    counted = CoFiring(1, 1)
    counted.update(select(a, Above(0.0)), select(b, Above(0.0)))
    expected = torch.corrcoef(torch.cat([a, b], 1).double().T)[0, 1].item()
    assert correlated(counted).strength.item() == pytest.approx(expected)
