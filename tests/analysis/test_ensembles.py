"""Ensembles against the sums of their coders, written out."""

from typing import Any

import pytest
import torch

from unweave.analysis.ensembles import DEFINITIONS, Ensemble, as_one_coder, diversity, ensemble_figures
from unweave.coders import Port, SparseCoder, Wiring, architecture
from unweave.errors import UserError

WIRING = Wiring.sae(12, "layers.1.resid_post")


def _coder(name: str, n_latents: int = 20, wiring: Wiring = WIRING, **settings: Any) -> SparseCoder:
    cls = architecture(name)
    coder = cls(cls.Config(n_latents=n_latents, **settings), wiring)
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
        threshold = getattr(coder, "threshold", None)
        if threshold is not None:
            threshold.copy_(0.5 + 0.1 * torch.rand_like(threshold))
    return coder


def test_a_bag_writes_the_mean_of_its_coders() -> None:
    coders = [_coder("topk", 20, k=3), _coder("relu", 9), _coder("gated", 15)]
    x = torch.randn(63, 12)
    bag = Ensemble(coders, "bagging")
    torch.testing.assert_close(bag(x), torch.stack([coder(x) for coder in coders]).mean(0))
    codes = bag.encode(x)
    assert codes.n_latents == bag.n_latents == 44
    assert torch.equal(codes.dense(), torch.cat([coder.encode(x).dense() for coder in coders], 1))
    within = codes.row_ids.diff() == 0
    assert (codes.latent_ids.diff()[within] > 0).all()


def test_boosted_coders_read_what_the_others_left() -> None:
    coders = [_coder("topk", 20, k=3) for _ in range(3)]
    x = torch.randn(63, 12)
    left, total = x, torch.zeros_like(x)
    for coder in coders:
        total = total + coder(left)
        left = x - total
    torch.testing.assert_close(Ensemble(coders, "boosting")(x), total)


@pytest.mark.parametrize("names", [["relu", "jumprelu"], ["batch_topk", "matryoshka", "p_anneal"], ["jumprelu"] * 2])
def test_a_bag_of_coders_with_thresholds_is_one_coder(names: list[str]) -> None:
    coders = [_coder(name, 40) for name in names]
    if names == ["jumprelu", "jumprelu"]:
        coders[1] = _coder("jumprelu", 20, variant="anthropic")
    bag = Ensemble(coders, "bagging")
    whole = as_one_coder(bag)
    x = torch.randn(100, 12)
    assert len(bag.encode(x).values) > 100
    torch.testing.assert_close(whole.encode(x).dense(), bag.encode(x).dense(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole(x), bag(x), atol=1e-5, rtol=1e-5)


def test_ensembles_that_are_no_single_coder_are_refused() -> None:
    for name in ("topk", "gated"):
        with pytest.raises(UserError, match=f"got bagging of {name}"):
            as_one_coder(Ensemble([_coder(name, 40)], "bagging"))
    with pytest.raises(UserError, match="got boosting of relu"):
        as_one_coder(Ensemble([_coder("relu")], "boosting"))


def test_figures_are_those_of_the_dense_account() -> None:
    coders = [_coder("topk", 20, k=3), _coder("topk", 20, k=3)]
    bag = Ensemble(coders, "bagging")
    x = torch.randn(90, 12)
    figures = ensemble_figures(bag, x.split(40), bag)
    assert set(figures) == {definition.name for definition in DEFINITIONS}
    error = (x - bag(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert figures["ensemble_explained_variance"] == pytest.approx(1 - error.item(), rel=1e-4)
    active = bag.encode(x).dense() != 0
    assert figures["ensemble_l0"] == pytest.approx(active.sum().item() / 90)
    assert figures["ensemble_relative_sparsity"] == pytest.approx(active.double().mean().item())
    both = active.double().T @ active.double()
    assert figures["ensemble_connectivity"] == pytest.approx(((both > 0).sum() - (both.diag() > 0).sum()) / (40 * 39))
    assert figures["ensemble_stability"] == pytest.approx(1.0, abs=1e-5)
    assert "ensemble_stability" not in ensemble_figures(bag, [x])


def test_copies_are_not_diverse() -> None:
    basis = torch.linalg.qr(torch.randn(12, 12)).Q
    assert diversity(basis) == 1.0
    assert diversity(torch.cat([basis, 2 * basis[:3]])) == pytest.approx(9 / 15)
    assert diversity(basis[:1]) == 1.0


def test_coders_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(UserError, match="at least one coder"):
        Ensemble([], "bagging")
    with pytest.raises(UserError, match="coders of one wiring"):
        Ensemble([_coder("relu"), _coder("relu", wiring=Wiring.sae(12, "layers.2.resid_post"))], "bagging")
    normed = Wiring(WIRING.reads, WIRING.writes, row_norm="layer_norm")
    with pytest.raises(UserError, match="without a skip path and a norm of rows"):
        Ensemble([_coder("relu", wiring=normed)], "bagging")
    transcoder = Wiring.transcoder(Port("layers.1.mlp_in", 12), Port("layers.1.mlp_out", 12))
    with pytest.raises(UserError, match="got a transcoder"):
        Ensemble([_coder("relu", wiring=transcoder)], "boosting")
    with pytest.raises(UserError, match="got a transcoder"):
        ensemble_figures(Ensemble([_coder("relu", wiring=transcoder)], "bagging"), [])
