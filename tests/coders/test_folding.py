"""What the contract tests do not: numbers by hand, and what scaling does to rows."""

import pytest
import torch

from unweave.coders import Port, Wiring
from unweave.coders.batch_topk import BatchTopK, BatchTopKConfig
from unweave.coders.folding import Scaling, fold_decoder_norms, fold_scaling
from unweave.coders.relu import Relu, ReluConfig

from .conftest import Make


def test_a_scaling_moves_the_mean_before_it_scales() -> None:
    rows = torch.tensor([[3.0, 5.0]])
    assert Scaling()(rows).tolist() == [[3.0, 5.0]]
    assert Scaling(factor=2.0)(rows).tolist() == [[6.0, 10.0]]
    assert Scaling(factor=2.0, mean=torch.tensor([1.0, 1.0]))(rows).tolist() == [[4.0, 8.0]]
    matrix = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    assert Scaling(mean=torch.tensor([1.0, 1.0]), matrix=matrix)(rows).tolist() == [[4.0, 4.0]]


def test_one_latent_by_hand() -> None:
    """Trained on z = 2x with f = relu(3 (z - 4) - 1) and z_hat = f + 4; so x_hat = f / 2 + 2, with latent f / 2."""
    coder = Relu(ReluConfig(n_latents=1), Wiring.sae(1)).double()
    with torch.no_grad():
        coder.W_enc.fill_(3.0)
        coder.b_enc.fill_(-1.0)
        coder.b_dec.fill_(4.0)
        coder.W_dec.fill_(1.0)
    scaling = [Scaling(factor=2.0)]
    fold_scaling(coder, scaling, scaling)
    assert (coder.W_enc.item(), coder.b_enc.item(), coder.b_dec.item(), coder.W_dec.item()) == (3.0, -0.5, 2.0, 1.0)


def test_a_transcoder_between_scales_by_hand() -> None:
    """Reads z = 2x, writes v = 10y: v_hat = 5 relu(3z - 1) + 40, so y_hat = 5 relu(0.6x - 0.1) + 4."""
    coder = Relu(ReluConfig(n_latents=1), Wiring.transcoder(Port("in", 1), Port("out", 1))).double()
    with torch.no_grad():
        coder.W_enc.fill_(3.0)
        coder.b_enc.fill_(-1.0)
        coder.b_dec.fill_(40.0)
        coder.W_dec.fill_(5.0)
    fold_scaling(coder, [Scaling(factor=2.0)], [Scaling(factor=10.0)])
    folded = [p.item() for p in (coder.W_enc, coder.b_enc, coder.b_dec, coder.W_dec)]
    assert folded == pytest.approx([0.6, -0.1, 4.0, 5.0])


def test_thresholds_are_scaled_with_activations() -> None:
    coder = BatchTopK(BatchTopKConfig(n_latents=3, k=1.0), Wiring.sae(2))
    coder.threshold.fill_(6.0)
    fold_scaling(coder, [Scaling(factor=3.0)], [Scaling(factor=3.0)])
    assert coder.threshold.item() == pytest.approx(2.0)


@pytest.mark.parametrize("scale", [1e-3, 63.0])
def test_decoder_rows_keep_their_norm(make_coder: Make, scale: float) -> None:
    coder = make_coder("topk")
    before = coder.W_dec.detach().clone()
    fold_scaling(coder, [Scaling(factor=scale)], [Scaling(factor=scale)])
    torch.testing.assert_close(coder.W_dec.detach(), before)


def test_folding_the_norm_of_a_silent_row_changes_nothing_else(make_coder: Make) -> None:
    coder = make_coder("relu", variant="april_2024")
    with torch.no_grad():
        coder.W_dec[3] = 0.0
    fold_decoder_norms(coder)
    assert all(parameter.isfinite().all() for parameter in coder.parameters())
    assert not coder.W_dec[3].any()


def test_latents_that_compete_cannot_be_rescaled_one_by_one(make_coder: Make) -> None:
    with pytest.raises(AssertionError, match="TopK"):
        fold_decoder_norms(make_coder("topk"))
