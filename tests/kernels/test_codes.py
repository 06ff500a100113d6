from collections.abc import Callable

import torch

from unweave.types import Codes


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
    entries, offsets = codes.by_latent
    ends = [*offsets.tolist()[1:], len(codes.values)]
    for latent, (start, end) in enumerate(zip(offsets.tolist(), ends, strict=True)):
        group = entries[start:end]
        assert (codes.latent_ids[group] == latent).all()
        rows = codes.row_ids[group].tolist()
        assert rows == sorted(rows)


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
