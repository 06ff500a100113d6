from collections.abc import Callable

import torch

from unweave.types import Codes

from .conftest import assert_well_formed, mask_of


def test_codes_of_a_small_matrix_are_what_one_writes_by_hand() -> None:
    codes = Codes(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2, 0, 1, 2]), torch.tensor([0, 1, 1, 4]), 3)
    assert codes.n_rows == 3
    assert codes.density == 4 / 9
    assert codes.row_ids.tolist() == [0, 2, 2, 2]
    assert codes.dense().tolist() == [[0, 0, 1], [0, 0, 0], [2, 3, 4]]
    assert codes.by_latent.entries.tolist() == [1, 2, 0, 3]
    assert codes.by_latent.offsets.tolist() == [0, 1, 2]


def test_entries_grouped_by_latent_keep_the_order_of_their_rows(make_codes: Callable[..., Codes]) -> None:
    codes = make_codes(63, 7, 0.5)
    entries, rows, offsets = codes.by_latent
    assert torch.equal(rows, codes.row_ids[entries])
    ends = [*offsets.tolist()[1:], len(codes.values)]
    for latent, (start, end) in enumerate(zip(offsets.tolist(), ends, strict=True)):
        group = entries[start:end]
        assert (codes.latent_ids[group] == latent).all()
        assert (codes.row_ids[group].diff() > 0).all()


def test_other_values_keep_the_entries_and_what_was_worked_out_of_them(make_codes: Callable[..., Codes]) -> None:
    codes = make_codes(7, 63)
    order, rows = codes.by_latent, codes.row_ids
    doubled = codes.with_values(2 * codes.values)
    assert doubled.by_latent is order
    assert doubled.row_ids is rows
    assert torch.equal(doubled.dense(), 2 * codes.dense())


def test_the_dense_matrix_is_differentiable_in_the_values(make_codes: Callable[..., Codes]) -> None:
    codes = make_codes(7, 63)
    values = codes.values.clone().requires_grad_()
    weight = torch.randn(7, 63, dtype=torch.float64)
    (codes.with_values(values).dense() * weight).sum().backward()
    assert torch.equal(values.grad, weight[codes.row_ids, codes.latent_ids])


def test_codes_with_more_than_65536_latents_are_grouped_by_latent_too() -> None:
    """Ids that do not fit 16 bits are sorted in another way."""
    latents = torch.tensor([70_007, 3, 65_536, 131_071, 3, 0])
    codes = Codes(torch.ones(6), latents, torch.tensor([0, 1, 4, 6]), 131_072)
    assert codes.by_latent.entries.tolist() == [5, 1, 4, 2, 0, 3]
    assert codes.by_latent.rows.tolist() == [2, 1, 2, 1, 0, 1]


def test_some_of_the_entries_are_codes_again(codes: Codes) -> None:
    keep = torch.rand(len(codes.values)) < 0.6
    some = codes.where(keep)
    by_hand = torch.zeros(codes.n_rows, codes.n_latents, dtype=torch.float64)
    for entry in range(len(codes.values)):
        if keep[entry]:
            by_hand[codes.row_ids[entry], codes.latent_ids[entry]] = codes.values[entry]
    assert_well_formed(some, (codes.n_rows, codes.n_latents))
    assert torch.equal(some.dense(), by_hand)
    assert len(some.values) == int(keep.sum())


def test_all_and_none_of_the_entries_are_codes_again(codes: Codes) -> None:
    every = codes.where(torch.ones(len(codes.values), dtype=torch.bool))
    assert torch.equal(every.dense(), codes.dense())
    none = codes.where(torch.zeros(len(codes.values), dtype=torch.bool))
    assert_well_formed(none, (codes.n_rows, codes.n_latents))
    assert not mask_of(none).any()


def test_gradients_reach_the_entries_that_were_kept(make_codes: Callable[..., Codes]) -> None:
    codes = make_codes(7, 63)
    keep = torch.rand(len(codes.values)) < 0.5
    values = codes.values.clone().requires_grad_()
    weights = torch.randn(int(keep.sum()), dtype=torch.float64)
    (codes.with_values(values).where(keep).values * weights).sum().backward()
    assert torch.equal(values.grad[keep], weights)
    assert torch.equal(values.grad[~keep], torch.zeros(int((~keep).sum()), dtype=torch.float64))


def test_some_rows_in_any_order_and_more_than_once(make_codes: Callable[..., Codes]) -> None:
    codes = make_codes(63, 7, 0.3)
    for index in ([5, 0, 62, 5], [], list(range(63))):
        some = codes.rows(torch.tensor(index, dtype=torch.int64))
        assert_well_formed(some, (len(index), 7))
        assert torch.equal(some.dense(), codes.dense()[index])
