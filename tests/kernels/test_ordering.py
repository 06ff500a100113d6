"""Orders and order statistics in compiled code are those of NumPy, ties included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unweave.kernels.ordering import falling, nth_largest


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=200), st.sampled_from(["float32", "float64", "int64"]))
def test_they_are_those_of_numpy_where_many_are_equal(numbers: list[int], dtype: str) -> None:
    values = np.array(numbers, dtype=dtype)
    np.testing.assert_array_equal(falling(values), np.argsort(-values, kind="stable"))
    for n in (1, (len(values) + 1) // 2, len(values)):
        assert nth_largest(values.copy(), n) == np.sort(values)[-n]


@pytest.mark.parametrize("n", [0, 1, 16, 17, 33, 5000])
def test_any_number_of_values_is_ordered(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n).astype(np.float32)
    np.testing.assert_array_equal(falling(values), np.argsort(-values, kind="stable"))


def test_values_that_are_no_numbers_end_the_search() -> None:
    values = np.array([np.nan, 3.0, -np.inf, np.nan, 1.0, np.inf, np.nan], dtype=np.float32)
    for n in range(1, 8):
        nth_largest(values.copy(), n)
