import pytest
import torch

from unweave.activations.quantize import LostInStoring, check_stored_dtype, restore, store
from unweave.errors import UserError

X = torch.tensor([[127.0, 0.4, -3.6], [-12.7, 1.25, 0.04]])
"""Scales 1 and 0.1; the integers are 127, 0, -4 and -127, 12 or 13 (12.5 is a tie, to even), 0."""


def test_int8_rows_are_multiples_of_a_127th_of_their_largest_magnitude() -> None:
    stored = store(X, "int8")
    assert stored.scale is not None
    assert stored.x.dtype == torch.int8
    assert stored.x.tolist() == [[127, 0, -4], [-127, 12, 0]]
    torch.testing.assert_close(stored.scale, torch.tensor([1.0, 0.1]))
    torch.testing.assert_close(restore(stored), torch.tensor([[127.0, 0, -4], [-12.7, 1.2, 0]]))


def test_the_share_of_the_variance_that_int8_loses_is_that_worked_by_hand() -> None:
    # errors: 0.4² + 0.4² = 0.32 and 0.05² + 0.04² = 0.0041; the rows lie half their difference from the mean, so the
    # spread is (139.7² + 0.85² + 3.64²) / 2 = 9765.03105
    lost = LostInStoring()
    for x in X.split(1):
        lost.update(x, store(x, "int8"))
    assert lost.compute().error == pytest.approx(0.3241, rel=1e-5)
    assert lost.compute().spread == pytest.approx(9765.03105, rel=1e-6)
    assert lost.compute().share == pytest.approx(0.3241 / 9765.03105, rel=1e-5)


def test_float32_loses_nothing_and_bfloat16_at_most_a_256th_of_each_number() -> None:
    x = torch.randn(100, 63)
    for dtype in ("float32", "bfloat16"):
        lost = LostInStoring()
        lost.update(x, store(x, dtype))
        assert lost.compute().error == pytest.approx((x.to(getattr(torch, dtype)).float() - x).square().sum().item())
        assert ((restore(store(x, dtype)) - x).abs() <= x.abs() / 256).all()
    assert torch.equal(restore(store(x, "float32")), x)


def test_rows_of_zeros_and_of_the_smallest_numbers_stay_finite_in_int8() -> None:
    x = torch.tensor([[0.0, 0.0], [1e-45, -1e-45], [1e-38, 3e38]])
    assert restore(store(x, "int8")).isfinite().all()
    assert restore(store(x, "int8"))[0].tolist() == [0, 0]
    assert restore(store(x[:0], "int8")).shape == (0, 2)


def test_rows_of_a_model_in_low_precision_are_stored_as_they_are() -> None:
    x = torch.randn(7, 9).bfloat16()
    assert torch.equal(restore(store(x, "float32")), x.float())
    assert torch.equal(restore(store(x, "bfloat16")), x.float())


def test_rows_that_are_all_the_same_lose_nothing_to_speak_of() -> None:
    lost = LostInStoring()
    x = torch.full((3, 2), 0.3)
    lost.update(x, store(x, "float32"))
    assert lost.compute().share == 0


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(UserError, match="float32, bfloat16, int8, got dtype 'bfloat'; did you mean 'bfloat16'"):
        check_stored_dtype("bfloat")
