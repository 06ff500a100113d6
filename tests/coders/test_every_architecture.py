"""What a coder of any architecture must do; a new file in ``unweave/coders`` is tested because it exists."""

import pytest
import torch
from torch import Tensor

from unweave.coders import Moment, SparseCoder, architectures
from unweave.errors import UserError


def _moment(coder: SparseCoder, *dead: int, progress: float = 0.5) -> Moment:
    dead_L = torch.zeros(coder.n_latents, dtype=torch.bool)
    dead_L[list(dead)] = True
    return Moment(progress, dead_L)


def _quiet(coder: SparseCoder) -> list[int]:
    return list(range(0, coder.n_latents, 9))


def test_encoding_a_batch_is_encoding_its_rows_one_by_one(coder: SparseCoder, x: Tensor) -> None:
    whole = coder.encode(x)
    assert whole.n_rows == len(x)
    assert len(whole.values) > 0
    for row in range(len(x)):
        alone = coder.encode(x[row : row + 1])
        start, end = whole.row_offsets[row], whole.row_offsets[row + 1]
        assert torch.equal(alone.latent_ids, whole.latent_ids[start:end])
        torch.testing.assert_close(alone.values, whole.values[start:end], rtol=1e-12, atol=1e-12)


def test_codes_are_positive_and_in_order(coder: SparseCoder, x: Tensor) -> None:
    codes = coder.encode(x)
    assert (codes.values > 0).all()
    position = codes.row_ids * codes.n_latents + codes.latent_ids
    assert (position.diff() > 0).all()


def test_encoding_builds_no_graph(coder: SparseCoder, x: Tensor) -> None:
    assert not coder.encode(x).values.requires_grad


def test_a_new_coder_has_unit_decoder_rows_and_reads_along_them(coder: SparseCoder) -> None:
    fresh = type(coder)(type(coder).Config(n_latents=63), 7)
    torch.testing.assert_close(fresh.W_dec.norm(dim=1), torch.ones(63))
    assert torch.equal(fresh.W_enc, fresh.W_dec)
    assert fresh.W_enc.data_ptr() != fresh.W_dec.data_ptr()
    assert (fresh.n_latents, fresh.d_model) == (63, 7)


def test_a_coder_starts_from_the_mean_row(coder: SparseCoder, x: Tensor) -> None:
    coder.start_from(x)
    torch.testing.assert_close(coder.b_dec.detach(), x.mean(0))


@pytest.mark.parametrize("dead", ["none", "some", "all"])
@pytest.mark.parametrize("progress", [0.0, 0.03, 1.0])
def test_losses_are_finite_whatever_is_dead(coder: SparseCoder, x: Tensor, dead: str, progress: float) -> None:
    latents = {"none": [], "some": _quiet(coder), "all": list(range(coder.n_latents))}[dead]
    step = coder.loss(x, _moment(coder, *latents, progress=progress))
    assert step.losses
    assert all(loss.shape == () and loss.isfinite() for loss in step.losses.values())
    assert step.reconstruction.shape == x.shape


def test_losses_are_finite_on_rows_that_are_all_the_same(coder: SparseCoder) -> None:
    x = coder.b_dec.detach().expand(7, -1)
    step = coder.loss(x, _moment(coder, *range(coder.n_latents)))
    torch.stack(list(step.losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in step.losses.values())
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in coder.parameters())


def test_the_step_reports_the_reconstruction_of_its_own_codes(coder: SparseCoder, x: Tensor) -> None:
    step = coder.loss(x, _moment(coder))
    by_hand = step.codes.dense() @ coder.W_dec + coder.b_dec
    torch.testing.assert_close(step.reconstruction, by_hand, rtol=1e-12, atol=1e-12)


def test_the_mean_squared_error_is_summed_over_the_width(coder: SparseCoder, x: Tensor) -> None:
    step = coder.loss(x, _moment(coder))
    by_hand = ((x - step.reconstruction) ** 2).sum() / len(x)
    torch.testing.assert_close(step.losses["mse"], by_hand, rtol=1e-12, atol=0)


def test_gradients_reach_every_parameter(coder: SparseCoder, x: Tensor) -> None:
    step = coder.loss(x, _moment(coder))
    torch.stack(list(step.losses.values())).sum().backward()
    for name, parameter in coder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_dead_latents_get_gradients_in_the_encoder_and_the_decoder(coder: SparseCoder, x: Tensor) -> None:
    dead = _quiet(coder)
    step = coder.loss(x, _moment(coder, *dead))
    if "aux" not in step.losses:
        pytest.skip("this architecture has no loss for dead latents")
    assert not set(step.codes.latent_ids.tolist()) & set(dead), "the test needs latents that are silent"
    torch.stack(list(step.losses.values())).sum().backward()
    for name in ("W_enc", "b_enc", "W_dec"):
        gradient = getattr(coder, name).grad[dead].reshape(len(dead), -1)
        assert (gradient.abs().sum(1) > 0).all(), name


def test_the_rows_themselves_get_no_gradient(coder: SparseCoder, x: Tensor) -> None:
    x.requires_grad_()
    codes = coder.loss(x, _moment(coder)).codes
    assert torch.autograd.grad(codes.values.sum(), x, allow_unused=True) == (None,)


def test_decoding_is_linear_in_the_values_up_to_the_bias(coder: SparseCoder, x: Tensor) -> None:
    codes = coder.encode(x)
    other = torch.randn_like(codes.values)
    mixed = coder.decode(codes.with_values(0.3 * codes.values + 0.7 * other))
    apart = 0.3 * coder.decode(codes) + 0.7 * coder.decode(codes.with_values(other))
    torch.testing.assert_close(mixed, apart, rtol=1e-12, atol=1e-12)
    nothing = coder.decode(codes.with_values(torch.zeros_like(other)))
    assert torch.equal(nothing, coder.b_dec.expand_as(x))


@pytest.mark.parametrize("scale", [0.37, 63.0])
def test_folding_the_input_scale_is_exact(coder: SparseCoder, x: Tensor, scale: float) -> None:
    """The folded coder on x does what the training coder does on scale * x, in units of x."""
    with torch.no_grad():
        codes = coder.encode(x)
        x_hat = coder.decode(codes)
        raw = x / scale
        coder.fold_input_scale(scale)
        folded_codes = coder.encode(raw)
        assert torch.equal(folded_codes.latent_ids, codes.latent_ids)
        assert torch.equal(folded_codes.row_offsets, codes.row_offsets)
        torch.testing.assert_close(folded_codes.values * scale, codes.values, rtol=1e-6, atol=0)
        torch.testing.assert_close(coder.decode(folded_codes) * scale, x_hat, rtol=1e-6, atol=1e-12)


def test_a_saved_state_makes_an_equal_coder(coder: SparseCoder, x: Tensor) -> None:
    other = type(coder)(coder.config, coder.d_model).double()
    other.load_state_dict(coder.state_dict())
    ours, theirs = coder.encode(x), other.encode(x)
    assert torch.equal(ours.latent_ids, theirs.latent_ids)
    assert torch.equal(ours.values, theirs.values)
    assert torch.equal(coder.decode(ours), other.decode(theirs))


@pytest.mark.parametrize("name", sorted(architectures()))
@pytest.mark.parametrize("n_latents", [0, -7])
def test_a_coder_without_latents_is_refused(name: str, n_latents: int) -> None:
    with pytest.raises(UserError, match=rf"n_latents.*{n_latents}"):
        architectures()[name].Config(n_latents=n_latents)
