"""A folder with a small indexed run, the app on it, a real server, and a browser that must stay silent and at home."""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page

from unweave.formats.native import write_coder
from unweave.pipelines.index import index_run
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_job
from unweave.pipelines.train import run_job
from unweave.web.app import create_app
from unweave.web.serve import listening

QUIET = Watch(quiet=True)
ADDRESS = "http://127.0.0.1:7001"
DEAD = 62
"""A latent of ``small`` that never fires."""
HOSTILE = "</script><img src=x onerror=alert(63)> \u202eevil\u2066 \x00\x1b[31m naïve \U0001f9f6\u200d\U0001f9f5 שלום"
"""What a person may type or paste."""


@pytest.fixture(scope="session")
def runs(model_folders: dict[str, Path], reader: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small``, which is whole; ``sub/bare`` without an index; ``begun``, half an index; ``other``, of another coder.

    Tests write no more than notes to them.
    """
    folder = tmp_path_factory.mktemp("served")
    text = folder / "weaver.txt"
    text.write_text("".join(f"Chapter {i}.\n{reader}" for i in range(150)))
    small = run_job(build_job(_recipe(model_folders["gpt2"], text)), folder / "small", QUIET)
    small.coder.load_state_dict(
        small.coder.state_dict() | {"b_enc": small.coder.b_enc - 1000 * (torch.arange(63) == DEAD)}
    )
    write_coder(small.path / "coder", small.coder)
    index_run(small.path, QUIET)
    for name in ("sub/bare", "begun", "other"):
        shutil.copytree(folder / "small", folder / name)
    shutil.rmtree(folder / "sub" / "bare" / "index")
    (folder / "begun" / "index").rename(folder / "begun" / "index.partial")
    with (folder / "other" / "coder" / "weights.safetensors").open("ab") as weights:
        weights.write(b" ")
    return folder


@pytest.fixture(scope="session")
def app(runs: Path) -> FastAPI:
    return create_app(runs)


@pytest.fixture(scope="session")
def client(app: FastAPI) -> TestClient:
    """Asks the app as a page of its own would."""
    return TestClient(app, base_url=ADDRESS)


@pytest.fixture(scope="session")
def server(app: FastAPI) -> Iterator[str]:
    """The address of a real server."""
    with serving(app) as address:
        yield address


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """A real server in a thread."""
    with listening(0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def visit(browser: Browser, server: str) -> Iterator[Callable[..., Page]]:
    """Opens a page and waits until it is drawn; at the end none has complained, or asked another machine."""
    said: list[str] = []
    asked: list[str] = []
    opened = []

    def visit(path: str, **settings: Any) -> Page:
        page = browser.new_page(**settings)
        opened.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server + path)
        page.wait_for_selector("body[data-drawn]")
        return page

    yield visit
    for page in opened:
        page.close()
    # a browser writes a line for every answer that is an error, which some pages are there to show
    unexpected = [line for line in said if not re.search(r"status of (400|404)", line)]
    assert not unexpected
    assert {urlsplit(address).netloc for address in asked if not address.startswith(("data:", "blob:"))} <= {
        urlsplit(server).netloc
    }


def _recipe(model: Path, text: Path) -> dict[str, Any]:
    return {
        "site": "layers.1.resid_post",
        "model": {"name": str(model), "device": "cpu", "sequences": 4},
        "text": {"source": str(text)},
        "packing": {"context": 32},
        "coder": {"type": "batch_topk", "n_latents": 63, "k": 7, "k_aux": 12},
        "training": {"rows": 6000, "batch": 100, "buffer": 1000, "log_every": 5, "dead_window": 1500},
        "index": {"tokens": 1200, "examples": 4, "groups": 3, "drawn": 2, "partners": 7},
        "evaluation": {"tokens": 1500, "splice_tokens": 600},
    }
