"""Work that outlasts a request is made once, told of while it goes on, and tried again where it failed."""

import math
import threading
import time

import pytest

from unweave.errors import UserError
from unweave.web.jobs import Going, Jobs, in_process


def test_work_is_made_once_and_told_of_while_it_goes_on() -> None:
    jobs, gate, made = Jobs(patience=0.05), threading.Event(), []

    def make() -> int:
        gate.wait()
        made.append(7)
        return 7

    first = jobs.result("key", make)
    second = jobs.result("key", make)
    assert isinstance(first, Going) and isinstance(second, Going) and second.seconds > first.seconds > 0
    gate.set()
    deadline = time.monotonic() + 20
    while isinstance(found := jobs.result("key", make), Going) and time.monotonic() < deadline:
        pass
    assert found == 7 and jobs.result("key", make) == 7 and made == [7]


def test_what_failed_is_tried_again() -> None:
    jobs, results = Jobs(), iter([UserError("too early"), TimeoutError("of its own"), 63])

    def make() -> int:
        found = next(results)
        if isinstance(found, Exception):
            raise found
        return found

    with pytest.raises(UserError, match="too early"):
        jobs.result("key", make)
    with pytest.raises(TimeoutError, match="of its own"):
        jobs.result("key", make)
    assert jobs.result("key", make) == 63


def test_few_results_are_kept() -> None:
    jobs, made = Jobs(), []
    for key in range(20):
        jobs.result(key, lambda: made.append(1))
    jobs.result(19, lambda: made.append(2))
    jobs.result(0, lambda: made.append(3))
    assert made == [1] * 20 + [3]


def test_another_process_answers_and_says_what_went_wrong() -> None:
    assert in_process(math.factorial, 7) == 5040
    with pytest.raises(UserError, match=r"factorial failed: ValueError: .*negative"):
        in_process(math.factorial, -1)
