import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

from unweave.coders import pursuit
from unweave.coders.pursuit import pursue
from unweave.errors import UserError


def _decoder(n_latents: int = 63, width: int = 7) -> Tensor:
    return torch.randn(n_latents, width, dtype=torch.float64)


def _one_row(atoms: np.ndarray, x: np.ndarray, k: int) -> np.ndarray:
    """Gradient pursuit of one row as its definition reads, with a set of latents and a dense code."""
    f, support = np.zeros(len(atoms)), set()
    for _ in range(k):
        r = x - f @ atoms
        products = atoms @ r
        if products.max() > 0:
            support.add(int(products.argmax()))
        g = np.array([products[i] if i in support else 0.0 for i in range(len(atoms))])
        if not g.any():
            break
        c = g @ atoms
        f = np.maximum(f + (c @ r) / (c @ c) * g, 0.0)
        support = {i for i in support if f[i] > 0}
    return f


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
@pytest.mark.parametrize("k", [1, 2, 5, 20, 63])
def test_a_batch_is_pursued_as_its_rows_are_one_by_one(
    monkeypatch: pytest.MonkeyPatch, k: int, rows_at_once: int
) -> None:
    monkeypatch.setattr(pursuit, "_PRODUCTS_AT_ONCE", 63 * rows_at_once)
    W_dec, x = _decoder(), torch.randn(37, 7, dtype=torch.float64)
    norms = W_dec.norm(dim=1)
    expected = np.stack([_one_row((W_dec / norms[:, None]).numpy(), row, k) for row in x.numpy()])
    codes = pursue(W_dec, x, k)
    torch.testing.assert_close(codes.dense() * norms, torch.tensor(expected), rtol=1e-9, atol=1e-9)
    assert (codes.values > 0).all()
    assert (codes.row_offsets.diff() <= k).all()
    position = codes.row_ids * 63 + codes.latent_ids
    assert (position.diff() > 0).all()


def test_with_orthogonal_latents_it_is_the_largest_positive_products() -> None:
    W_dec = torch.linalg.qr(_decoder(7, 7)).Q
    x = torch.randn(20, 7, dtype=torch.float64)
    products = x @ W_dec.T
    fourth = products.sort(dim=1, descending=True).values[:, 3:4]
    expected = torch.where((products > 0) & (products > fourth), products, torch.zeros_like(products))
    torch.testing.assert_close(pursue(W_dec, x, 3).dense(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n_latents", [5, 20])
def test_it_never_beats_and_nearly_reaches_exact_non_negative_least_squares(n_latents: int) -> None:
    W_dec, x = _decoder(n_latents), torch.randn(30, 7, dtype=torch.float64)
    codes = pursue(W_dec, x, n_latents)
    left = (x - codes.dense() @ W_dec).norm(dim=1)
    best = torch.tensor([nnls(W_dec.T.numpy(), row)[1] for row in x.numpy()], dtype=torch.float64)
    assert (left >= best - 1e-9).all()
    assert (left - best).mean() < 0.1 * x.norm(dim=1).mean()


def test_rows_that_a_few_latents_wrote_are_explained_by_a_few() -> None:
    W_dec = _decoder(63, 30)
    f = torch.zeros(50, 63, dtype=torch.float64)
    for row in f:
        row[torch.randperm(63)[:2]] = 1 + torch.rand(2, dtype=torch.float64)
    x = f @ W_dec
    codes = pursue(W_dec, x, 6)
    left = (x - codes.dense() @ W_dec).square().sum() / x.square().sum()
    assert left < 0.02
    found = (codes.dense() > 0.2) & (f > 0)
    assert found.sum() / (f > 0).sum() > 0.97


def test_longer_decoder_rows_only_make_smaller_values() -> None:
    W_dec, x = _decoder(), torch.randn(20, 7, dtype=torch.float64)
    size = 0.1 + torch.rand(63, 1, dtype=torch.float64)
    ours, theirs = pursue(W_dec * size, x, 5), pursue(W_dec, x, 5)
    assert torch.equal(ours.latent_ids, theirs.latent_ids)
    torch.testing.assert_close(ours.values * size[ours.latent_ids, 0], theirs.values, rtol=1e-9, atol=0)


def test_one_step_by_hand() -> None:
    W_dec = torch.tensor([[2.0, 0.0], [0.6, 0.8], [0.0, 0.0]])
    codes = pursue(W_dec, torch.tensor([[5.0, 5.0], [0.0, 0.0], [-1.0, -1.0], [4.0, 0.0]]), 1)
    # (5, 5): 5 along latent 0, 7 along latent 1; (4, 0): 4 along latent 0, which is 2 long
    assert codes.row_offsets.tolist() == [0, 1, 1, 1, 2]
    assert codes.latent_ids.tolist() == [1, 0]
    torch.testing.assert_close(codes.values, torch.tensor([7.0, 2.0]))


def test_the_second_step_by_hand() -> None:
    W_dec = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    x = torch.tensor([[5.0, 5.0]], dtype=torch.float64)
    # r = (0.8, -0.6) after latent 1 has 7; g = (0.8, 0), since r . (0.6, 0.8) = 0; c = (0.8, 0), t = 0.64 / 0.64
    codes = pursue(W_dec, x, 2)
    torch.testing.assert_close(codes.values, torch.tensor([0.8, 7.0], dtype=torch.float64))


@pytest.mark.parametrize("k", [0, -1, 64])
def test_a_number_of_latents_out_of_range_is_named(k: int) -> None:
    with pytest.raises(UserError, match=f"got k={k} with n_latents=63"):
        pursue(_decoder(), torch.zeros(2, 7, dtype=torch.float64), k)
