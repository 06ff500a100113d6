from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unweave.activations.shuffle import Shuffle
from unweave.errors import UserError
from unweave.types import Rows


def _rows(first: int, n: int) -> Rows:
    """Rows numbered from ``first``, each holding its number at one site and ten times that at another."""
    numbers = torch.arange(first, first + n)
    x = numbers.double()[:, None]
    zeros = torch.zeros(n, dtype=torch.int64)
    return Rows({"here": x.expand(n, 3), "there": 10 * x}, numbers, zeros, zeros, numbers)


def _numbered(sizes: Iterable[int]) -> Iterator[Rows]:
    first = 0
    for size in sizes:
        yield _rows(first, size)
        first += size


def _served(sizes: list[int], n_buffer: int, batch: int, seed: int = 7) -> list[dict[str, Tensor]]:
    return list(Shuffle(_numbered(sizes), n_buffer, batch, torch.Generator().manual_seed(seed)))


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=9), st.integers(1, 20), st.integers(2, 100), st.integers(0, 9)
)
def test_every_row_is_served_exactly_once_in_batches_of_the_right_size(
    sizes: list[int], batch: int, n_buffer: int, seed: int
) -> None:
    n_buffer = max(n_buffer, 2 * batch)
    batches = _served(sizes, n_buffer, batch, seed)
    served = [number for part in batches for number in part["here"][:, 0].tolist()]
    assert sorted(served) == list(range(sum(sizes)))
    lengths = [len(part["here"]) for part in batches]
    assert all(length == batch for length in lengths[:-1])
    assert all(0 < length <= batch for length in lengths[-1:])


@given(st.lists(st.integers(0, 100), min_size=1, max_size=9), st.integers(1, 20))
def test_rows_of_several_sites_stay_together(sizes: list[int], batch: int) -> None:
    for part in _served([*sizes, 7], 3 * batch, batch):
        assert part.keys() == {"here", "there"}
        assert part["here"].shape == (len(part["here"]), 3)
        assert torch.equal(10 * part["here"][:, :1], part["there"])


@given(st.integers(1, 9), st.integers(1, 20), st.integers(2, 100), st.integers(0, 12))
def test_no_more_is_taken_from_the_source_than_will_be_asked_for(
    size: int, batch: int, n_buffer: int, n_batches: int
) -> None:
    taken = 0

    def endless() -> Iterator[Rows]:
        nonlocal taken
        while True:
            taken += size
            yield _rows(taken - size, size)

    generator = torch.Generator().manual_seed(7)
    shuffle = Shuffle(endless(), max(n_buffer, 2 * batch), batch, generator, n_batches * batch)
    served = [number for part in islice(shuffle, n_batches) for number in part["here"][:, 0].tolist()]
    assert sorted(served) == list(range(n_batches * batch)), "each row once, none left over"
    assert taken < n_batches * batch + size


def test_closed_it_ends_its_source_and_holds_nothing() -> None:
    ended = []

    def endless() -> Iterator[Rows]:
        try:
            while True:
                yield _rows(0, 7)
        finally:
            ended.append(True)

    shuffle = Shuffle(endless(), n_buffer=21, batch=3, generator=torch.Generator())
    next(shuffle)
    assert shuffle.n_bytes > 0 and not ended
    shuffle.close()
    assert shuffle.n_bytes == 0 and ended == [True]
    assert list(shuffle) == []


def test_a_source_without_rows_serves_no_batch() -> None:
    assert _served([], 63, 7) == []


def test_a_source_larger_than_the_buffer_may_come_in_one_piece() -> None:
    served = torch.cat([part["here"][:, 0] for part in _served([1000], 63, 7)])
    assert sorted(served.tolist()) == list(range(1000))


def test_a_batch_holds_rows_of_many_documents() -> None:
    """Sixty-three documents of 100 rows pass a buffer that holds twenty of them."""
    batches = _served([100] * 63, 2000, 100)
    n_documents = [len(set((part["here"][:, 0] // 100).int().tolist())) for part in batches]
    assert min(n_documents[:-20]) > 10


def test_rows_of_a_document_are_spread_over_many_batches() -> None:
    batches = _served([100] * 63, 2000, 100)
    for document in range(0, 63, 7):
        holding = sum(bool(((part["here"][:, 0] // 100) == document).any()) for part in batches)
        assert holding > 5


def test_the_order_is_random_and_fixed_by_the_seed() -> None:
    def order(seed: int) -> list[float]:
        return [number for part in _served([100] * 7, 200, 7, seed) for number in part["here"][:, 0].tolist()]

    assert order(1) == order(1)
    assert order(1) != order(2)
    first_hundred = order(1)[:100]
    ascents = sum(a < b for a, b in pairwise(first_hundred))
    assert 30 < ascents < 70


def test_batches_are_copies_that_later_rows_do_not_overwrite() -> None:
    source = Shuffle(_numbered([100] * 7), 63, 7, torch.Generator().manual_seed(7))
    batches, copies = [], []
    for part in source:
        batches.append(part["here"])
        copies.append(part["here"].clone())
    assert all(torch.equal(batch, copy) for batch, copy in zip(batches, copies, strict=True))


def test_rows_are_taken_from_the_source_only_as_needed() -> None:
    taken = []

    def endless() -> Iterator[Rows]:
        while True:
            taken.append(1)
            yield _rows(0, 10)

    next(Shuffle(endless(), 100, 7, torch.Generator().manual_seed(7)))
    assert len(taken) == 10


@pytest.mark.parametrize("n_buffer", [1, 7, 13])
def test_a_buffer_smaller_than_two_batches_is_refused(n_buffer: int) -> None:
    with pytest.raises(UserError, match=f"at least two batches of rows, got {n_buffer} for 7"):
        _served([100], n_buffer, 7)


@pytest.mark.parametrize("n_served", [0, 1, 5, 9, 10, 40, 91])
def test_a_shuffle_goes_on_exactly_from_its_state(n_served: int) -> None:
    sizes = [7, 0, 63, 100, 30, 200, 1, 99, 200]
    whole = _served(sizes, 63, 7)
    taken = []

    def source() -> Iterator[Rows]:
        for rows in _numbered(sizes):
            taken.append(1)
            yield rows

    first = Shuffle(source(), 63, 7, torch.Generator().manual_seed(7))
    for _ in range(n_served):
        next(first)
    state = {name: x.clone() for name, x in first.state().items()}
    rest = islice(_numbered(sizes), len(taken), None)
    second = Shuffle(rest, 63, 7, torch.Generator().manual_seed(99))
    second.load_state(state)
    assert len(whole) == 100
    for expected, batch in zip(whole[n_served:], second, strict=True):
        assert torch.equal(batch["here"], expected["here"])
        assert torch.equal(batch["there"], expected["there"])


def test_rows_are_mixed_at_least_as_well_as_by_shuffling_stretches_as_long_as_the_buffer() -> None:
    def distance(batches: Iterable[Tensor]) -> float:
        """How far apart in the text two rows of a batch were, on average."""
        return torch.stack([(x[:, None] - x).abs().mean() for x in batches]).mean().item()

    n_buffer, batch = 1000, 50
    ours = distance(part["here"][:, 0] for part in _served([100] * 100, n_buffer, batch))
    stretches = torch.arange(10_000.0).view(10, n_buffer)
    generator = torch.Generator().manual_seed(7)
    full = [x[torch.randperm(n_buffer, generator=generator)] for x in stretches]
    assert ours >= distance(piece for x in full for piece in x.split(batch))


def test_the_buffer_takes_the_memory_of_its_rows_and_no_more() -> None:
    shuffle = Shuffle(_numbered([100] * 7), 63, 7, torch.Generator().manual_seed(7))
    next(shuffle)
    assert shuffle.n_bytes == 63 * (3 + 1) * 8
