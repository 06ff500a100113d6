"""Work ahead of the consumer in one thread, so that text is tokenised while the model runs."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


class _Failure:
    """An exception on its way to the consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def ahead(source: Iterable[T], n: int = 4) -> Generator[T, None, None]:
    """The items of ``source`` in order, of which up to ``n`` are made before they are asked for.

    An exception in the source is raised here, behind the items that came before it. Closing the generator ends the
    thread: it waits for the item in the making, and closes the source.
    """
    ready: queue.Queue[object] = queue.Queue(maxsize=n)
    closed = threading.Event()
    thread = threading.Thread(target=_fill, args=(source, ready, closed), name="unweave-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # pyright: ignore[reportReturnType]  # what is neither end nor failure came from the source
    finally:
        closed.set()
        while thread.is_alive():
            while not ready.empty():
                ready.get_nowait()
            thread.join(timeout=0.01)


def _fill(source: Iterable[T], ready: "queue.Queue[object]", closed: threading.Event) -> None:
    iterator = iter(source)
    try:
        while not closed.is_set():
            try:
                item: object = next(iterator, _END)
            except BaseException as error:  # whatever it is, it belongs to the consumer
                item = _Failure(error)
            ready.put(item)
            if item is _END or isinstance(item, _Failure):
                return
    finally:
        if close := getattr(iterator, "close", None):
            close()
