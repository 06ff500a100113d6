"""Coders that have learned nothing do as the theory says."""

import math

import pytest
import torch

from unweave.coders import Wiring
from unweave.evals.controls import identity_coder, pca_coder, random_coder

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
