"""Work that may take longer than a request should: begun once, asked for until it is done, and kept."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

from unweave.errors import UserError

T = TypeVar("T")
PATIENCE = 2.0
"""Seconds that a request waits for work before it answers that the work goes on."""
_KEPT = 12
"""Results that stay in memory, those last asked for."""


class Going(NamedTuple):
    """Work that is not done yet."""

    seconds: float
    """Since it was begun."""


class Jobs:
    """Makes things in threads of their own; any number of threads may ask."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, tuple[float, Future]] = OrderedDict()

    def result(self, key: Hashable, make: Callable[[], T]) -> T | Going:
        """What ``make`` makes, made once for a key; ``Going`` where it takes longer than the patience of a request.

        What ``make`` raises is raised here, and the next call tries again.
        """
        began, future = self._begun(key, make)
        wait([future], self.patience)
        if not future.done():
            return Going(time.monotonic() - began)
        if future.exception() is not None:
            self._forget(key, future)
        return future.result()

    def _begun(self, key: Hashable, make: Callable[[], T]) -> tuple[float, Future[T]]:
        with self._lock:
            if key not in self._known:
                future: Future[T] = Future()
                threading.Thread(target=self._run, args=(future, make), daemon=True).start()
                self._known[key] = time.monotonic(), future
            self._known.move_to_end(key)
            done = [known for known, (_, future) in self._known.items() if known != key and future.done()]
            for old in done[: max(0, len(self._known) - _KEPT)]:
                del self._known[old]
            return self._known[key]

    def _run(self, future: Future[T], make: Callable[[], T]) -> None:
        try:
            future.set_result(make())
        except BaseException as error:
            future.set_exception(error)

    def _forget(self, key: Hashable, future: Future) -> None:
        with self._lock:
            if key in self._known and self._known[key][1] is future:
                del self._known[key]


def in_process(make: Callable[..., T], *arguments: Any) -> T:
    """What a function makes in a process of its own, which ends with this one.

    For libraries that hold the interpreter, or whose threads may not meet those of others.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_sent, args=(theirs, make, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        made, problem = ours.recv()
    except EOFError as error:
        raise UserError(f"{make.__name__} ended without a result; is there enough memory?") from error
    finally:
        ours.close()
        process.join()
    if problem:
        raise UserError(f"{make.__name__} failed: {problem}")
    return made


def _sent(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        connection.send((make(*arguments), ""))
    except Exception as error:
        connection.send((None, " ".join(f"{type(error).__name__}: {error}".split())))
