import threading
from collections.abc import Iterator

import pytest

from unweave.activations.ahead import ahead


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "unweave-ahead"]


@pytest.mark.parametrize("n", [1, 7, 100])
def test_items_come_in_order_and_the_thread_ends_with_them(n: int) -> None:
    assert list(ahead(iter(range(63)), n)) == list(range(63))
    assert list(ahead(iter([]), n)) == []
    assert not _threads()


def test_what_the_iterator_raises_is_raised_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    items = ahead(source(), 7)
    assert next(items) == 1
    with pytest.raises(KeyError, match="lost"):
        next(items)
    assert not _threads()


def test_no_more_is_read_than_there_is_room_for_and_closing_ends_thread_and_iterator() -> None:
    taken, closed, paused = [], [], threading.Event()

    def source() -> Iterator[int]:
        try:
            for i in range(100):
                taken.append(i)
                if i == 4:  # 0 was had, 1 to 3 are ready, 4 waits for its place
                    paused.set()
                yield i
        finally:
            closed.append(threading.current_thread().name)

    items = ahead(source(), 3)
    assert not taken
    assert next(items) == 0
    assert paused.wait(10)
    items.close()
    assert (taken, closed, _threads()) == ([0, 1, 2, 3, 4], ["unweave-ahead"], [])
