"""Keep memory that a step frees, since the next step asks for as much again.

The C library gives large blocks back to the system as soon as they are free, and the system clears every page of the
next ones: in steps of tens of milliseconds that took a fifth of the time. While training it is told to keep what was
freed; the most that a run holds at once does not change.
"""

import contextlib
import ctypes
import threading
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's mallopt."""
_NEVER = 2**31 - 1
_USUAL = 32 * 2**20
"""As far as glibc itself raises them for a process that asks for large blocks."""
_lock = threading.Lock()
_users = 0


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within the block, in any thread, freed memory stays with the process; afterwards it goes back to the system.

    Where the C library is another than glibc nothing changes.
    """
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    global _users
    with _lock, contextlib.suppress(OSError, AttributeError):
        before, _users = _users, _users + change
        if bool(before) == bool(_users):
            return
        libc = ctypes.CDLL("libc.so.6")
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            libc.mallopt(option, _NEVER if _users else _USUAL)
        if not _users:
            libc.malloc_trim(0)
