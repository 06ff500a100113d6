"""Files of published dictionaries come from a cache, from a hub or from a web address; or the error says how."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from unweave.errors import UserError
from unweave.formats import fetch as fetching
from unweave.formats.dictionaries import formats
from unweave.formats.fetch import fetch
from unweave.formats.releases import Found, find

GOLDEN = Path(__file__).parent / "dictionaries" / "golden"
NAME = "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
REPOSITORY = GOLDEN / "gemma_scope" / "theirs" / "gemma-scope-2b-pt-res"
SHA = "0123456789" * 4


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of the hub in which one dictionary is, made by hand: blobs, a snapshot of links to them, and a ref."""
    repository = tmp_path / "models--google--gemma-scope-2b-pt-res"
    blob = repository / "blobs" / "abc"
    blob.parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / "layer_12/width_16k/average_l0_82/params.npz", blob)
    link = repository / "snapshots" / SHA / "layer_12/width_16k/average_l0_82/params.npz"
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(SHA)
    return tmp_path


def test_what_is_in_the_cache_needs_no_network(cache: Path) -> None:
    found = find(NAME)
    path = fetch(found, cache)
    (coder,) = formats()[found.format].read(path, found.place).values()
    assert coder.site == "blocks.12.hook_resid_post"
    assert coder.origin is not None and coder.origin.model == "google/gemma-2-2b"


def test_a_folder_of_any_repository_in_the_cache_needs_no_network(cache: Path) -> None:
    path = fetch(find("hf:google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"), cache)
    assert (path / "params.npz").is_file()


@pytest.mark.parametrize(
    ("name", "files", "address"),
    [
        (
            "gpt2-small-res-jb/blocks.8.hook_resid_pre",
            "blocks.8.hook_resid_pre/cfg.json, blocks.8.hook_resid_pre/sae_weights.safetensors",
            "https://huggingface.co/jbloom/GPT2-Small-SAEs-Reformatted",
        ),
        (
            "mwhanna-qwen3-4b-transcoders",
            "layer_0.safetensors, layer_1.safetensors, layer_2.safetensors and 33 more",
            "https://huggingface.co/mwhanna/qwen3-4b-transcoders",
        ),
        ("hf:some/where/layers.3", "layers.3", "https://huggingface.co/some/where"),
    ],
)
def test_with_no_network_the_error_says_what_would_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: str, address: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot fetch") as error:
        fetch(find(name), tmp_path)
    message = str(error.value)
    assert f"it is {files} of {address}: fetch that where there is a network" in message
    assert "\n" not in message and list(tmp_path.iterdir()) == []


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub as ``huggingface_hub`` asks: what a repository has, and its files, by commit."""

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, *, send: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/google/gemma-scope-2b-pt-res"):
            files = [file for file in REPOSITORY.rglob("*") if file.is_file()]
            names = [{"rfilename": str(file.relative_to(REPOSITORY))} for file in files]
            tree = [{"type": "file", "path": n["rfilename"], "size": 1, "oid": "0" * 40} for n in names]
            facts = {"id": "google/gemma-scope-2b-pt-res", "sha": SHA, "siblings": names, "tags": [], "private": False}
            self._send(json.dumps(tree if "/tree/" in path else facts).encode(), send)
            return
        _, marker, name = path.partition(f"/resolve/{SHA}/")
        file = REPOSITORY / name
        if marker and file.is_file():
            self._send(file.read_bytes(), send)
        else:
            self.send_error(404)

    def _send(self, content: bytes, send: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", hashlib.sha1(content).hexdigest())
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if send:
            self.wfile.write(content)


@pytest.fixture
def server() -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()
    thread.join()


def test_what_a_hub_has_is_fetched_once_and_is_then_in_the_cache(tmp_path: Path, server: str) -> None:
    script = (
        "from unweave.formats.releases import find; from unweave.formats.fetch import fetch\n"
        f"print(fetch(find({NAME!r})))\n"
        "try: fetch(find('gemma-scope-2b-pt-res/layer_99/width_16k/average_l0_1'))\n"
        "except ValueError as error: print(error)\n"
    )
    environment = {"HF_ENDPOINT": server, "HF_HUB_CACHE": str(tmp_path), "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", script]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr
    path, missing = done.stdout.splitlines()
    assert path == str(tmp_path / "models--google--gemma-scope-2b-pt-res" / "snapshots" / SHA / NAME.partition("/")[2])
    assert (Path(path) / "params.npz").read_bytes() == (REPOSITORY / NAME.partition("/")[2] / "params.npz").read_bytes()
    assert [file.name for file in Path(path).iterdir()] == ["params.npz"]
    assert "has no 'layer_99/width_16k/average_l0_1/params.npz'" in missing
    assert fetch(find(NAME), tmp_path) == Path(path)


def test_files_on_the_web_are_fetched_once_and_keep_their_names(tmp_path: Path, server: str) -> None:
    file = "layer_12/width_16k/average_l0_82/params.npz"
    web = Found("x", f"{server}/resolve/{SHA}", file, (file,), (), find(NAME).place, "gemma_scope")
    path = fetching._web(web, tmp_path) / file
    assert path.read_bytes() == (REPOSITORY / file).read_bytes()
    assert path.parent.name == "average_l0_82"
    lacking = web._replace(files=("nothing.pt",))
    with pytest.raises(UserError, match=r"cannot fetch 'x' \(HTTP Error 404: Not Found\); it is nothing.pt of http"):
        fetching._web(lacking, tmp_path)


def test_a_web_address_that_is_nowhere_is_an_error_that_says_what_would_be_fetched(tmp_path: Path) -> None:
    found = find("openai-gpt2-small-v5_32k/resid_post_mlp/8")._replace(repository="https://127.0.0.1:9")
    with pytest.raises(UserError, match=r"it is resid_post_mlp_v5_32k/autoencoders/8.pt of https://127.0.0.1:9"):
        fetch(found, tmp_path)
