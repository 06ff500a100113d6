"""What a coder of any architecture must do, in any wiring; a new file in ``unweave/coders`` is tested as it exists."""

from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from unweave.coders import SparseCoder, Wiring, architectures
from unweave.coders.folding import Scaling, fold_decoder_norms, fold_scaling
from unweave.errors import UserError

from .conftest import At, Case


def _sum(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def _all_finite(coder: SparseCoder, losses: dict[str, Tensor]) -> bool:
    gradients = [p.grad for p in coder.parameters() if p.grad is not None]
    return all(tensor.isfinite().all() for tensor in [*losses.values(), *gradients])


def _silent(coder: SparseCoder, x: Tensor, y: Tensor, at: At) -> list[int]:
    codes = coder.loss(x, y, at()).codes
    return sorted(set(range(coder.n_latents)) - set(codes.latent_ids[codes.values != 0].tolist()))


def _copy(coder: SparseCoder, **settings: Any) -> SparseCoder:
    """A coder of the same architecture and wiring, in float64."""
    return type(coder)(replace(coder.config, **settings), coder.wiring).double()


def test_encoding_a_batch_is_encoding_its_rows_one_by_one(case: Case) -> None:
    coder, x, _ = case
    whole = coder.encode(x)
    assert whole.n_rows == len(x)
    assert len(whole.values) > 0
    for row in [0, 1, 7, 50, 99]:
        alone = coder.encode(x[row : row + 1])
        start, end = whole.row_offsets[row], whole.row_offsets[row + 1]
        assert torch.equal(alone.latent_ids, whole.latent_ids[start:end])
        torch.testing.assert_close(alone.values, whole.values[start:end], rtol=1e-12, atol=1e-12)


def test_codes_have_no_zeros_and_are_in_order(case: Case) -> None:
    codes = case.coder.encode(case.x)
    assert (codes.values != 0).all()
    position = codes.row_ids * codes.n_latents + codes.latent_ids
    assert (position.diff() > 0).all()


def test_encoding_builds_no_graph(case: Case) -> None:
    assert not case.coder.encode(case.x).values.requires_grad


def test_rows_of_another_shape_are_refused(case: Case) -> None:
    with pytest.raises(UserError, match=rf"rows \[B, {case.x.shape[1]}\]"):
        case.coder.encode(torch.zeros(3, case.x.shape[1] + 1, dtype=torch.float64))


def test_a_new_coder_has_decoder_rows_of_the_norm_it_was_asked_for(case: Case) -> None:
    fresh = _copy(case.coder)
    size = fresh.W_dec.norm(dim=1).square().mean().sqrt().item()
    assert size == pytest.approx(case.coder.config.decoder_init_norm, rel=0.15)
    assert (fresh.n_latents, fresh.d_model) == (63, case.x.shape[1])
    pointers = [p.data_ptr() for p in fresh.parameters()]
    assert len(set(pointers)) == len(pointers), "parameters share memory"


@pytest.mark.parametrize("start", ["mean", "geometric_median", "zero"])
def test_b_dec_starts_where_the_config_says(case: Case, start: str) -> None:
    fresh = _copy(case.coder, bias_start=start)
    fresh.start_from(case.x, case.y)
    if start == "mean":
        torch.testing.assert_close(fresh.b_dec.detach(), case.y.mean(0))
    elif start == "zero":
        assert not fresh.b_dec.any()
    else:
        directions = (case.y - fresh.b_dec) / (case.y - fresh.b_dec).norm(dim=1, keepdim=True)
        assert directions.sum(0).norm() < 1e-3 * len(case.y), "the sum of directions from a geometric median is 0"


@pytest.mark.parametrize("dead", ["none", "silent", "all"])
def test_losses_and_gradients_are_finite_whatever_is_dead(case: Case, dead: str, at: At) -> None:
    coder, x, y = case
    latents = _silent(coder, x, y, at) if dead == "silent" else range(coder.n_latents * (dead == "all"))
    for progress in (0.0, 0.03, 1.0):
        coder.zero_grad()
        step = coder.loss(x, y, at(*latents, progress=progress))
        _sum(step.losses).backward()
        assert step.losses
        assert all(loss.shape == () for loss in step.losses.values())
        assert step.reconstruction.shape == y.shape
        assert _all_finite(coder, step.losses), progress


@pytest.mark.parametrize("dead", ["none", "all"])
def test_losses_and_gradients_are_finite_on_rows_that_are_all_the_same(case: Case, dead: str, at: At) -> None:
    coder = case.coder
    x = case.x.mean(0).expand(7, -1)
    y = x if coder.wiring.writes_what_it_reads else case.y.mean(0).expand(7, -1)
    step = coder.loss(x, y, at(*range(coder.n_latents * (dead == "all"))))
    _sum(step.losses).backward()
    assert _all_finite(coder, step.losses)


@pytest.mark.parametrize("dead", ["none", "all"])
def test_losses_and_gradients_are_finite_on_one_row(case: Case, dead: str, at: At) -> None:
    coder = case.coder
    step = coder.loss(case.x[:1], case.y[:1], at(*range(coder.n_latents * (dead == "all"))))
    _sum(step.losses).backward()
    assert step.reconstruction.shape == (1, case.y.shape[1])
    assert _all_finite(coder, step.losses)


def test_a_coder_in_which_nothing_fires_writes_its_bias_and_trains_on(case: Case, at: At) -> None:
    coder, x, y = case
    with torch.no_grad():
        for name in ("b_enc", "b_p", "b_q"):
            if hasattr(coder, name):
                getattr(coder, name).fill_(-1000.0)
    if len(coder.encode(x).values) and not hasattr(coder, "b_enc"):
        pytest.skip("without an encoder's bias some latent always fires")
    step = coder.loss(x, y, at(*range(coder.n_latents)))
    _sum(step.losses).backward()
    assert _all_finite(coder, step.losses)
    if (step.codes.values != 0).any():
        return  # large negative activations are activations where signs are kept
    skip = 0.0 if coder.W_skip is None else x @ coder.W_skip.T
    torch.testing.assert_close(step.reconstruction, coder.b_dec + skip + torch.zeros_like(y), rtol=1e-12, atol=1e-12)


def test_all_latents_may_be_asked_for(case: Case, at: At) -> None:
    if "k" not in {field.name for field in fields(case.coder.config)}:
        pytest.skip("this architecture has no k")
    try:
        coder = _copy(case.coder, k=type(case.coder.config.k)(case.coder.n_latents))
    except UserError as error:
        pytest.skip(str(error))
    coder.start_from(case.x, case.y)
    step = coder.loss(case.x, case.y, at())
    _sum(step.losses).backward()
    assert _all_finite(coder, step.losses)


def test_the_step_reports_the_reconstruction_of_its_own_codes(case: Case, at: At) -> None:
    coder, x, y = case
    step = coder.loss(x, y, at())
    by_hand = step.codes.dense() @ coder.W_dec + coder.b_dec
    if coder.W_skip is not None:
        by_hand = by_hand + x @ coder.W_skip.T
    torch.testing.assert_close(step.reconstruction, by_hand, rtol=1e-12, atol=1e-12, check_dtype=True)


def test_the_mean_squared_error_is_summed_over_the_width(case: Case, at: At) -> None:
    step = case.coder.loss(case.x, case.y, at())
    if "mse" not in step.losses:
        pytest.skip("this architecture counts several reconstructions")
    by_hand = ((case.y - step.reconstruction) ** 2).sum() / len(case.y)
    torch.testing.assert_close(step.losses["mse"], by_hand, rtol=1e-12, atol=0)


def test_gradients_reach_every_parameter(case: Case, at: At) -> None:
    coder, x, y = case
    _sum(coder.loss(x, y, at()).losses).backward()
    for name, parameter in coder.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_dead_latents_get_gradients_in_the_encoder_and_the_decoder(case: Case, at: At) -> None:
    coder, x, y = case
    dead = _silent(coder, x, y, at)
    losses = coder.loss(x, y, at(*dead)).losses
    if "aux" not in losses:
        pytest.skip("this architecture has no loss for dead latents, or none is silent")
    losses["aux"].backward()
    for name in coder.readers:
        gradient = getattr(coder, name).grad
        assert gradient.abs().max() > 0, name
    for name in {"W_enc", "b_enc", "W_dec"} & {name for name, p in coder.named_parameters() if p.requires_grad}:
        gradient = getattr(coder, name).grad.reshape(coder.n_latents, -1).abs().sum(1)
        # a dead latent learns once it is among the k_aux largest of a row
        assert (gradient[dead] > 0).any(), name
        alive = [i for i in range(coder.n_latents) if i not in dead]
        assert not gradient[alive].any(), f"the loss for dead latents moves living ones: {name}"


def test_rows_that_need_a_gradient_get_one(case: Case, at: At) -> None:
    x = case.x.clone().requires_grad_()
    y = x.detach() if case.coder.wiring.writes_what_it_reads else case.y
    _sum(case.coder.loss(x, y, at()).losses).backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_decoding_is_linear_in_the_values_up_to_the_bias(case: Case) -> None:
    coder = case.coder
    codes = coder.encode(case.x)
    other = torch.randn_like(codes.values)
    mixed = coder.decode(codes.with_values(0.3 * codes.values + 0.7 * other))
    apart = 0.3 * coder.decode(codes) + 0.7 * coder.decode(codes.with_values(other))
    torch.testing.assert_close(mixed, apart, rtol=1e-12, atol=1e-12)
    nothing = coder.decode(codes.with_values(torch.zeros_like(other)))
    torch.testing.assert_close(nothing, coder.b_dec.expand_as(case.y), rtol=0, atol=1e-12)


def _scalings(wiring: Wiring, kind: str) -> tuple[list[Scaling], list[Scaling]]:
    """How each port is scaled: by one number, by one for each site, or whitened about its own mean."""

    def one(width: int, number: float) -> Scaling:
        if kind == "whiten":
            matrix = torch.eye(width, dtype=torch.float64) + 0.2 * torch.randn(width, width, dtype=torch.float64)
            return Scaling(mean=torch.randn(width, dtype=torch.float64), matrix=matrix)
        return Scaling(factor=0.37 if kind == "one number" else number)

    reads = [one(port.width, 0.4 + i) for i, port in enumerate(wiring.reads)]
    if wiring.writes_what_it_reads:
        return reads, reads
    return reads, [one(port.width, 2.7 + i) for i, port in enumerate(wiring.writes)]


def _applied(scalings: list[Scaling], rows: Tensor, widths: list[int]) -> Tensor:
    return torch.cat([scale(part) for scale, part in zip(scalings, rows.split(widths, dim=1), strict=True)], dim=1)


@pytest.mark.parametrize("kind", ["one number", "a number for each site", "whiten"])
def test_folding_the_scale_of_rows_is_exact(case: Case, kind: str) -> None:
    """The folded coder on x does what the training coder does on scaled x, in units of x."""
    coder, x, _ = case
    if kind == "whiten":
        try:
            _copy(coder, input_scale="whiten")
        except UserError as error:
            pytest.skip(str(error))
    reads, writes = _scalings(coder.wiring, kind)
    d_reads = [port.width for port in coder.wiring.reads]
    d_writes = [port.width for port in coder.wiring.writes]
    z = _applied(reads, x, d_reads)
    with torch.no_grad():
        codes = coder.encode(z)
        expected = coder.reconstruct(codes, z)
        fold_scaling(coder, reads, writes)
        folded = coder.encode(x)
        written = coder.reconstruct(folded, x)
    assert len(codes.values) > 0
    assert torch.equal(folded.latent_ids, codes.latent_ids)
    assert torch.equal(folded.row_offsets, codes.row_offsets)
    torch.testing.assert_close(folded.values * writes[0].factor, codes.values, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(_applied(writes, written, d_writes), expected, rtol=1e-10, atol=1e-10)


def test_folding_decoder_norms_is_exact(case: Case) -> None:
    coder, x, _ = case
    if not coder.per_latent:
        pytest.skip("latents of this architecture cannot be rescaled one by one")
    with torch.no_grad():
        coder.W_dec.mul_(0.5 + torch.rand(coder.n_latents, 1, dtype=torch.float64))
        codes, norms = coder.encode(x), coder.W_dec.norm(dim=1)
        expected = coder.reconstruct(codes, x)
        fold_decoder_norms(coder)
        folded = coder.encode(x)
        written = coder.reconstruct(folded, x)
    torch.testing.assert_close(coder.W_dec.norm(dim=1), torch.ones_like(norms))
    assert torch.equal(folded.latent_ids, codes.latent_ids)
    assert torch.equal(folded.row_offsets, codes.row_offsets)
    torch.testing.assert_close(folded.values, codes.values * norms[codes.latent_ids], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(written, expected, rtol=1e-10, atol=1e-10)


def test_a_saved_state_makes_an_equal_coder(case: Case, at: At) -> None:
    coder, x, y = case
    other = _copy(coder)
    other.load_state_dict(coder.state_dict())
    ours, theirs = coder.encode(x), other.encode(x)
    assert torch.equal(ours.latent_ids, theirs.latent_ids)
    assert torch.equal(ours.values, theirs.values)
    assert torch.equal(coder.reconstruct(ours, x), other.reconstruct(theirs, x))
    ours_after, theirs_after = (c.loss(x, y, at(progress=0.9)).losses for c in (coder, other))
    assert all(torch.equal(loss, theirs_after[name]) for name, loss in ours_after.items())


def test_a_coder_works_in_single_precision(case: Case, at: At) -> None:
    coder = case.coder.float()
    x, y = case.x.float(), case.y.float()
    step = coder.loss(x, y, at(*range(0, 63, 9)))
    _sum(step.losses).backward()
    assert _all_finite(coder, step.losses)
    assert step.reconstruction.dtype == coder.encode(x).values.dtype == torch.float32


@pytest.mark.parametrize("name", sorted(architectures()))
@pytest.mark.parametrize("n_latents", [0, -7])
def test_a_coder_without_latents_is_refused(name: str, n_latents: int) -> None:
    with pytest.raises(UserError, match=rf"n_latents.*{n_latents}"):
        architectures()[name].Config(n_latents=n_latents)


@pytest.mark.parametrize("name", sorted(architectures()))
def test_every_setting_has_a_docstring_a_default_and_its_declared_type(name: str) -> None:
    from unweave.config import field_docs

    config = architectures()[name].Config()
    docs, hints = field_docs(type(config)), get_type_hints(type(config))
    assert {field.name for field in fields(config)} == docs.keys()
    for field in fields(config):
        if getattr(config, field.name) is None:
            assert type(None) in get_args(hints[field.name]), f"{name}.{field.name} was not filled"
    assert isinstance(getattr(config, architectures()[name].sparsity), int | float)
