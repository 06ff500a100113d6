"""Both routes of every kernel, masks of active entries of every kind, and what all codes must look like."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from unweave.kernels import density
from unweave.kernels.encode import cpu as encode_cpu
from unweave.kernels.selection import cpu as selection_cpu
from unweave.types import Codes


@contextmanager
def bfloat16_proposes(*, everywhere: bool = True) -> Iterator[None]:
    """Sends every float32 product through the rounded proposal, however small it is and slow on this machine."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encode_cpu, "WORTH", 0)
        patched.setattr(encode_cpu, "_has_bfloat16", lambda: True)
        if everywhere:
            patched.setattr(selection_cpu, "TOO_DENSE", 2.0)
        yield


@contextmanager
def float32_alone() -> Iterator[None]:
    """Makes the exact product even where the machine could propose in bfloat16."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encode_cpu, "_has_bfloat16", lambda: False)
        yield


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def assert_same(ours: Tensor, plain: Tensor) -> None:
    """In float64, up to rounding."""
    assert ours.dtype == plain.dtype
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def mask_of(codes: Codes) -> Tensor:
    """The active entries as a boolean matrix."""
    mask = torch.zeros(codes.n_rows, codes.n_latents, dtype=torch.bool)
    mask[codes.row_ids, codes.latent_ids] = True
    return mask


def assert_well_formed(codes: Codes, shape: tuple[int, int]) -> None:
    """Offsets, order within rows, and row ids."""
    assert (codes.n_rows, codes.n_latents) == tuple(shape)
    assert codes.row_offsets[0] == 0 and codes.row_offsets[-1] == len(codes.values) == len(codes.latent_ids)
    counts = codes.row_offsets.diff()
    assert (counts >= 0).all()
    assert torch.equal(codes.row_ids, torch.arange(shape[0]).repeat_interleave(counts))
    assert ((codes.latent_ids >= 0) & (codes.latent_ids < shape[1])).all()
    assert ((codes.row_ids * shape[1] + codes.latent_ids).diff() > 0).all()


@pytest.fixture(params=["sparse route", "dense route"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Forces one of the two routes, whatever the density."""
    monkeypatch.setattr(density, "DENSE_FROM", 2.0 if request.param == "sparse route" else 0.0)
    return request.param


@pytest.fixture(params=["sparse", "with empty rows and silent latents", "full", "one entry", "no entry", "one row"])
def codes(request: pytest.FixtureRequest, make_codes: Callable[..., Codes]) -> Codes:
    """One to sixty-three rows over a hundred latents, in float64."""
    mask = mask_of_kind(request.param, 63, 100)
    return make_codes(*mask.shape, mask=mask)


def mask_of_kind(kind: str, n_rows: int, n_latents: int) -> Tensor:
    """A sparse random mask of active entries, or what the kind says."""
    mask = torch.rand(n_rows, n_latents) < 0.08
    match kind:
        case "with empty rows and silent latents":
            mask[[0, 1, n_rows // 2, -1]] = False
            mask[:, [0, 7, 8, -1]] = False
        case "with hot latents":
            mask[:, [0, 7, -1]] = True
            mask[3:-2, 8] = True
        case "full":
            mask = torch.ones(7, n_latents, dtype=torch.bool)
        case "one entry":
            mask[:] = False
            mask[7, n_latents // 2] = True
        case "no entry":
            mask[:] = False
        case "one row":
            mask = mask[:1]
    return mask
