"""Latents of a large coder against really adding each of them to the small one."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from unweave.analysis.stitching import (
    DEFINITIONS,
    PROXY_DEFINITIONS,
    StitchedRows,
    Stitching,
    proxy_figures,
    stitched_rows,
)
from unweave.coders import SparseCoder, Wiring, architecture
from unweave.errors import UserError
from unweave.metrics import blocks_of

WIRING = Wiring.sae(12, "layers.1.resid_post")


def _coder(name: str, n_latents: int, wiring: Wiring = WIRING, **settings: Any) -> SparseCoder:
    """Random weights, biases that are not 0, decoder rows that have no unit norm."""
    cls = architecture(name)
    coder = cls(cls.Config(n_latents=n_latents, centre=False, **settings), wiring)
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return coder


def _with_latent(small: SparseCoder, large: SparseCoder, latent: int) -> SparseCoder:
    """The small coder with one latent of the large one, really."""
    added = type(small)(replace(small.config, n_latents=small.n_latents + 1), small.wiring)
    with torch.no_grad():
        for name, parameter in added.named_parameters():
            own = getattr(small, name)
            row = getattr(large, name)[latent : latent + 1]
            parameter.copy_(torch.cat([own, row]) if added.has_row_per_latent(name, parameter) else own)
    return added


def _mse(coder: SparseCoder, x: torch.Tensor) -> float:
    return (x - coder(x)).double().square().sum(1).mean().item()


def _measured(small: SparseCoder, large: SparseCoder, x: torch.Tensor) -> Stitching:
    stitching = Stitching(large.W_dec)
    for start in range(0, len(x), 40):
        part = x[start : start + 40]
        stitching.update(stitched_rows(small, large, part, part, blocks_of(torch.arange(start, start + len(part)))))
    return stitching


@pytest.mark.parametrize("share", [0.0, 0.2], ids=["sparse", "dense"])
def test_the_change_of_the_error_is_that_of_really_adding_the_latent(share: float) -> None:
    small, large = _coder("relu", 9), _coder("relu", 20)
    with torch.no_grad():
        assert isinstance(large.b_enc, torch.Tensor)
        large.b_enc.sub_(4.0 if share == 0 else 0.5)
        large.b_enc[3] = -1e4  # never fires
    x = 2 * torch.randn(100, 12)
    stitching = _measured(small, large, x)
    fires = torch.zeros(20).index_add_(0, large.encode(x).latent_ids, torch.ones(len(large.encode(x).values)))
    before = _mse(small, x)
    for latent in range(20):
        change = _mse(_with_latent(small, large, latent), x) - before
        if fires[latent] == 0:
            assert change == pytest.approx(0.0, abs=1e-6) and stitching.delta_L[latent].isnan()
        else:
            assert stitching.delta_L[latent].item() == pytest.approx(change, rel=1e-3, abs=1e-5)
    figures = stitching.compute()
    fired = fires > 0
    assert fired.any() and not fired.all()
    novel = (stitching.delta_L[fired] < 0).double()
    assert figures["stitched_novel_share"] == pytest.approx(novel.mean().item())
    assert figures["stitched_silent_share"] == pytest.approx((~fired).double().mean().item())
    gain = -stitching.delta_L[fired].clamp(max=0).sum().item() / before
    assert figures["stitched_novel_gain"] == pytest.approx(gain, rel=1e-4)
    assert math.isnan(figures["stitched_novel_share_with_k"])
    assert set(figures) == {definition.name for definition in DEFINITIONS}


def test_a_topk_coder_loses_its_weakest_latent_to_one_that_is_stronger() -> None:
    """The large coder has room for all of its latents, so that the activation of each is known on every row."""
    small, large = _coder("topk", 9, k=3), _coder("topk", 20, k=20)
    x = 2 * torch.randn(100, 12)
    stitching = _measured(small, large, x)
    before = _mse(small, x)
    for latent in range(20):
        change = _mse(_with_latent(small, large, latent), x) - before
        assert stitching.delta_with_k_L[latent].item() == pytest.approx(change, rel=1e-3, abs=1e-5)
    novel = (stitching.delta_with_k_L < 0).double().mean().item()
    assert stitching.compute()["stitched_novel_share_with_k"] == pytest.approx(novel)
    assert (stitching.delta_with_k_L - stitching.delta_L).abs().min() > 1e-4


def test_a_topk_coder_with_room_loses_nothing() -> None:
    small, large = _coder("topk", 3, k=3), _coder("topk", 20, k=20)
    with torch.no_grad():
        assert isinstance(small.b_enc, torch.Tensor)
        small.b_enc[1] = -1e4
    stitching = _measured(small, large, torch.randn(63, 12))
    torch.testing.assert_close(stitching.delta_with_k_L, stitching.delta_L)


@pytest.mark.parametrize("row_norm", ["layer_norm", "sqrt_width"])
def test_coders_that_norm_their_rows_are_measured_in_the_rows_own_units(row_norm: str) -> None:
    wiring = replace(WIRING, row_norm=row_norm)
    small, large = _coder("relu", 9, wiring), _coder("relu", 15, wiring)
    x = 5 * torch.randn(63, 12) + 1
    stitching = _measured(small, large, x)
    latent = int(stitching.delta_L.nan_to_num(0).argmin())
    change = _mse(_with_latent(small, large, latent), x) - _mse(small, x)
    assert stitching.delta_L[latent].item() == pytest.approx(change, rel=1e-3)


def test_latents_that_the_small_coder_lacks_are_novel_and_its_own_are_not() -> None:
    """Rows are sums of 12 orthogonal directions, of which the small coder has the first 7."""
    basis = torch.linalg.qr(torch.randn(12, 12)).Q
    small, large = _coder("relu", 7), _coder("relu", 12)
    for coder in (small, large):
        with torch.no_grad():
            assert isinstance(coder.W_enc, torch.Tensor) and isinstance(coder.b_enc, torch.Tensor)
            coder.W_enc.copy_(basis[: coder.n_latents])
            coder.W_dec.copy_(basis[: coder.n_latents])
            coder.b_enc.zero_()
            coder.b_dec.zero_()
    x = (torch.relu(torch.randn(200, 12) - 0.3)) @ basis
    stitching = _measured(small, large, x)
    assert (stitching.delta_L[7:] < -0.01).all() and (stitching.delta_L[:7] > 0.01).all()
    assert stitching.compute()["stitched_novel_share"] == pytest.approx(5 / 12)
    # the directions are orthogonal, so each gain stands alone
    assert stitching.compute()["stitched_novel_gain"] == pytest.approx(1.0, rel=1e-4)
    figures = proxy_figures(large.W_dec, small.W_dec, stitching.delta_L)
    assert figures == {"stitched_proxy_auc": 1.0, "stitched_proxy_share": pytest.approx(5 / 12)}
    assert set(figures) == {definition.name for definition in PROXY_DEFINITIONS}
    assert stitching.standard_errors()["stitched_novel_gain"] < 0.01


def test_the_proxy_is_judged_by_the_area_under_its_curve() -> None:
    """Cosines 1, 0.8, 0.6 and 0; novel are those of 0.8 and 0: of four comparisons three are right."""
    W = F.normalize(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    delta = torch.tensor([0.1, -0.1, 0.2, -0.3, float("nan")])
    figures = proxy_figures(W, torch.tensor([[1.0, 0.0]]), delta)
    assert figures == {"stitched_proxy_auc": 0.75, "stitched_proxy_share": 0.5}
    assert math.isnan(proxy_figures(W, torch.tensor([[1.0, 0.0]]), -delta.abs())["stitched_proxy_auc"])
    tied = proxy_figures(W[[0, 0]], torch.tensor([[1.0, 0.0]]), torch.tensor([0.1, -0.1]))
    assert tied["stitched_proxy_auc"] == 0.5


def test_coders_that_do_not_fit_are_refused() -> None:
    small, large = _coder("relu", 5), _coder("relu", 9)
    x = torch.randn(7, 12)
    elsewhere = _coder("relu", 9, Wiring.sae(12, "layers.2.resid_post"))
    with pytest.raises(UserError, match="read and write the same sites"):
        stitched_rows(small, elsewhere, x, x, torch.zeros(7, dtype=torch.int64))
    with pytest.raises(UserError, match="do not fit a large coder of 5 latents"):
        Stitching(small.W_dec).update(StitchedRows(x, large.encode(x), torch.zeros(7, dtype=torch.int64)))
