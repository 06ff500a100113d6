"""``unweave serve``: the address is printed, a port in use is no obstacle, Ctrl-C ends it, others are not heard."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from unweave.errors import UserError
from unweave.pages import shell as pages_shell
from unweave.web import shell as web_shell
from unweave.web.app import create_app
from unweave.web.serve import listening


@contextmanager
def serving(path: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], list[str], str]]:
    """The process, what it said until it was ready, and its address."""
    command = [sys.executable, "-m", "unweave", "serve", str(path), "--port", str(port), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = []
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.strip())
                if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                    yield process, lines, found[0]
                    break
        finally:
            process.kill()


def test_two_servers_on_one_folder_and_ctrl_c(runs: Path) -> None:
    with listening(0) as free:
        port = free.getsockname()[1]
    with serving(runs / "small", port) as (first, _, address), serving(runs / "small", port) as (second, said, other):
        assert address == f"http://127.0.0.1:{port}/" and other != address
        assert said[0] == f"port {port} is in use, so this is port {httpx.URL(other).port}"
        for place in (address, other):
            found = httpx.get(f"{place}index.json", timeout=60).json()["runs"]
            assert [run["name"] for run in found] == ["small"], "a run that is served itself is the only one"
        for label, place in (("mine", address), ("yours", other)):
            httpx.put(f"{place}runs/small/latents/21/label", json={"label": label}, timeout=60).raise_for_status()
        changes = httpx.get(f"{address}runs/small/latents/21.json", timeout=60).json()["history"]
        assert [change["new"] for change in changes] == ["yours", "mine"]
        for process in (first, second):
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
            assert process.returncode == 0 and rest.strip() == "ended" and "Traceback" not in errors


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unweave", "serve", str(tmp_path / "no"), "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: there is no folder") and done.stderr.count("\n") == 1


def test_a_folder_without_runs_is_served(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    assert list(create_app(tmp_path).state.library.places()) == []


def test_no_file_of_the_app_hides_one_that_reports_have_too() -> None:
    own, shared = ({file.name for file in folder.iterdir()} for folder in (web_shell.STATIC, pages_shell.STATIC))
    assert own & shared == {"shell.html"}, "each serves files from both under one address; templates are not asked for"


def test_only_this_machine_is_listened_to() -> None:
    with listening(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_small_answers_are_sent_without_delay() -> None:
    with listening(0) as listener:
        assert listener.proto == socket.IPPROTO_TCP, "asyncio asks for it before it turns Nagle's algorithm off"


def test_a_port_that_is_in_use_is_passed_over() -> None:
    with listening(0) as first:
        port = first.getsockname()[1]
        with listening(port) as second:
            assert second.getsockname()[1] != port
            socket.create_connection(second.getsockname(), timeout=5).close()
    with pytest.raises(UserError, match="a port is a number from 1 to 65535"):
        listening(70_000)
