"""Coders that have learned nothing do as the theory says."""

import math

import pytest
import torch

from unweave.coders import Port, Wiring
from unweave.coders.topk import TopK, TopKConfig
from unweave.evals.controls import Kind, control, control_kinds, identity_coder, pca_coder, random_coder

WIRING = Wiring.sae(12, "layers.1.resid_post")


def _rows() -> torch.Tensor:
    """Variances 144, 121, ..., 1 along random orthonormal directions, about a mean of 5."""
    basis = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q
    scales = torch.arange(12, 0, -1, dtype=torch.float64)
    return ((torch.randn(20_000, 12, dtype=torch.float64) * scales) @ basis + 5).float()


def _explained(x: torch.Tensor, x_hat: torch.Tensor) -> float:
    return 1 - ((x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).item()


def test_the_identity_writes_what_it_reads() -> None:
    x = _rows()[:100]
    coder = identity_coder(WIRING)
    assert torch.equal(coder(x), x)
    assert coder.encode(x).row_offsets.diff().tolist() == [12] * 100


def test_principal_directions_explain_their_share_of_the_variance() -> None:
    """The five largest of 1, 4, ..., 144, whose sum is 650: 144 + 121 + 100 + 81 + 64 = 510."""
    x = _rows()
    coder = pca_coder(WIRING, 5.2, x)
    assert coder.encode(x[:63]).row_offsets.diff().tolist() == [5] * 63
    assert _explained(x, coder(x)) == pytest.approx(510 / 650, abs=0.01)


def test_one_random_direction_of_many_explains_its_best_squared_cosine() -> None:
    """Of n random directions in the plane, the best has an angle of at most pi / n: nearly all is explained."""
    plane = Wiring.sae(2, "layers.1.resid_post")
    x = torch.randn(5000, 2) + 3
    coder = random_coder(plane, 2000, 1.0, x.mean(0))
    assert _explained(x, coder(x)) > 0.9999
    few = random_coder(plane, 4, 1.0, x.mean(0))
    assert few.n_latents == 4 and 0 < _explained(x, few(x)) < 0.999
    assert torch.equal(random_coder(plane, 4, 1.0, x.mean(0)).W_dec, few.W_dec)
    assert not torch.equal(random_coder(plane, 4, 1.0, x.mean(0), seed=1).W_dec, few.W_dec)
    assert math.isclose(few.W_dec.norm(dim=1).mean().item(), 1.0, rel_tol=1e-6)


def test_controls_have_the_site_and_the_sparsity_of_the_coder() -> None:
    coder = TopK(TopKConfig(n_latents=63, k=7), WIRING)
    kinds = control_kinds(coder, 6.6)
    site = "layers.1.resid_post"
    assert kinds == {
        "random": Kind("random", site, 7, 63),
        "pca": Kind("pca", site, 7),
        "identity": Kind("identity", site),
    }
    x = _rows()[:300]
    made = {name: control(kind, x) for name, kind in kinds.items()}
    assert {name: its.site for name, its in made.items()} == dict.fromkeys(kinds, site)
    assert torch.equal(made["random"].W_dec, random_coder(WIRING, 63, 7.0, x.mean(0)).W_dec)
    assert torch.equal(made["pca"].W_dec, pca_coder(WIRING, 7.0, x).W_dec)
    assert torch.equal(made["identity"](x), x)
    assert control_kinds(coder, 0.0)["random"].k == 1, "a coder whose latents are all dead"
    assert control_kinds(coder, 100.0)["random"].k == 63


def test_controls_stand_in_for_an_sae_alone_and_know_nothing_of_row_norms() -> None:
    config = TopKConfig(n_latents=63, k=7)
    site, other = WIRING.reads[0], Port("layers.1.mlp_out", 12)
    assert control_kinds(TopK(config, Wiring.transcoder(site, other)), 7.0) == {}
    assert control_kinds(TopK(config, Wiring.crosscoder(site, other)), 7.0) == {}
    normed = Wiring((site,), (site,), row_norm="layer_norm")
    assert control(control_kinds(TopK(config, normed), 7.0)["pca"], _rows()).wiring == WIRING
