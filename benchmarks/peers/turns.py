"""How a worker takes turns: it waits for a line of its driver, takes one step, and says how long the step took.

A worker is a process of its own, so that libraries that cannot share an environment can take turns in one run. It says
what it is, then reads "step" (one step, answered by its seconds) until "done" (answered by its memory); every answer is
one line of JSON. This file and its neighbours run in the peers' environment and import nothing of unweave.
"""

import contextlib
import ctypes
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import torch


class Finished(Exception):
    """The driver has no more turns to give; it ends a training loop that would go on."""


class Driver:
    """Whoever started this worker and holds the other end of its stdin and stdout."""

    def __init__(self) -> None:
        """Keep stdout for answers: what a library prints goes to stderr from here on."""
        sys.stdout.flush()
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def introduce(self, **about: object) -> None:
        self.say({**about, "torch": torch.__version__, "threads": torch.get_num_threads()})

    def say(self, answer: Mapping[str, object]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def hear(self) -> str:
        """The next line; "done" when the driver has gone."""
        return sys.stdin.readline().strip() or "done"


class Turns:
    """Steps on request, each with its time, and the memory they took in the end."""

    def __init__(self, driver: Driver, others: Mapping[str, Callable[[], Mapping[str, object]]] | None = None) -> None:
        """``others`` are lines that the worker understands besides "step" and "done", and what answers them."""
        self._driver = driver
        self._others = others or {}
        self._asked_at: float | None = None
        self._resident_before = 0

    def await_step(self) -> None:
        """Report the step that ended just now, if any, and wait until another one is asked for.

        To be called from where a library's own loop asks for its next batch: the time of a step is then the time
        between two batches, whatever the loop does meanwhile. Raises ``Finished`` when the driver is done.
        """
        if self._asked_at is not None:
            self._driver.say({"seconds": time.perf_counter() - self._asked_at})
        while (line := self._driver.hear()) in self._others:
            self._driver.say(self._others[line]())
        if line != "step":
            raise Finished
        if self._asked_at is None:
            self._resident_before = _reset_peak()
        self._asked_at = time.perf_counter()

    def take_leave(self, outcome: Callable[[], Mapping[str, object]] | None = None) -> None:
        """Answer "done": the highest resident memory since the first step, over what was resident before it.

        ``outcome`` says what became of the coder; it is called after memory is read, so that its own is not counted.
        """
        grown = memory("VmHWM") - self._resident_before if self._asked_at is not None else None
        self._driver.say({"peak_bytes": grown, **(outcome() if outcome else {})})


def leave_at_once() -> NoReturn:
    """End the process without the exit hooks of libraries, which may take seconds or wait for a network."""
    os._exit(0)


def _reset_peak() -> int:
    """Start a new high-water mark; returns the bytes resident now."""
    with contextlib.suppress(OSError, AttributeError):  # a C library that is not glibc cannot trim
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: 5 resets VmHWM to VmRSS
    return memory("VmRSS")


def memory(name: str) -> int:
    """Bytes that /proc counts under a name: VmRSS for what is resident now, VmHWM for the most so far."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, f"/proc/self/status has no {name}"
    return 1024 * int(found[1])
