"""Filling a cache: the same rows as live harvesting, and the same bytes however often it was stopped."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pytest
import tomli_w
import torch

from unweave.activations.harvest import harvest as live_rows
from unweave.activations.shards import Shards
from unweave.cli.main import main
from unweave.errors import UserError
from unweave.pipelines.harvest import harvest
from unweave.pipelines.recipe import build_job
from unweave.pipelines.workbench import set_up
from unweave.types import Rows, TextPosition

SITES = ["layers.1.resid_post", "layers.0.mlp_out"]


@pytest.fixture
def write_recipe(recipe: dict, tmp_path: Path) -> Callable[..., Path]:
    """Write the small recipe, with changes, as a file."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(tomli_w.dumps(recipe | changes))
        return path

    return write


def _live(recipe: Path | dict, sites: list[str], n: int) -> list[Rows]:
    bench = set_up(build_job(recipe).recipe)
    return list(islice(live_rows(bench.model, bench.training_batches(TextPosition()), sites), n))


def _assert_same(read: Rows, live: Rows, rounded: torch.dtype = torch.float32) -> None:
    assert list(read.activations) == list(live.activations)
    for site, x in live.activations.items():
        assert torch.equal(read.activations[site], x.to(rounded).float())
    for name in ("token_ids", "document_ids", "sequences", "positions"):
        assert torch.equal(getattr(read, name), getattr(live, name))


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _n_shards(folder: Path) -> int:
    path = folder / "manifest.json"
    return len(json.loads(path.read_bytes())["shards"]) if path.exists() else 0


def _wait_for_shards(folder: Path, n: int) -> None:
    deadline = time.time() + 60
    while _n_shards(folder) < n:
        assert time.time() < deadline, "no shards came"
        time.sleep(0.005)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cache_holds_what_live_harvesting_of_the_embedded_model_gives(
    recipe: dict, write_recipe: Callable[..., Path], tmp_path: Path, dtype: str
) -> None:
    embedded = recipe | {"model": {"device": "cpu", "sequences": 3}, "site": SITES[0], "target": SITES[1]}
    shards = harvest(
        write_recipe(**embedded), out=tmp_path / "cache", rows=500, shard_rows=200, dtype=dtype, quiet=True
    )
    assert shards.sites == tuple(SITES)
    assert 500 <= shards.n_rows < 500 + 3 * 32
    assert len(shards.manifest.shards) == 2
    read = list(shards.rows())
    for cached, live in zip(read, _live(embedded, SITES, len(read)), strict=True):
        _assert_same(cached, live, getattr(torch, dtype))


def test_a_text_that_is_shorter_than_the_cache_is_read_again(
    recipe: dict, write_recipe: Callable[..., Path], tmp_path: Path, reader: str
) -> None:
    (tmp_path / "short.jsonl").write_text("".join(json.dumps({"text": f"{i} {reader}"}) + "\n" for i in range(3)))
    short = {"text": {"source": str(tmp_path / "short.jsonl")}}
    for rows in (300, 1500):
        shards = harvest(write_recipe(**short), out=tmp_path / "cache", rows=rows, shard_rows=1, quiet=True)
    assert shards.manifest.after.document > 3
    whole = harvest(write_recipe(**short), out=tmp_path / "whole", rows=1500, shard_rows=1, quiet=True)
    assert _files(tmp_path / "cache") == _files(tmp_path / "whole")
    read = list(whole.rows())
    for cached, live in zip(read, _live(recipe | short, ["layers.1.resid_post"], len(read)), strict=True):
        _assert_same(cached, live, torch.bfloat16)


def test_other_sites_and_an_fsspec_address_can_be_named(write_recipe: Callable[..., Path]) -> None:
    address = "memory://harvested"
    shards = harvest(write_recipe(), out=address, rows=100, sites=["blocks.0.hook_mlp_out", SITES[0]], quiet=True)
    assert shards.manifest.sites == {"layers.0.mlp_out": 24, "layers.1.resid_post": 24}
    with closing(Shards(address).rows_forever(["layers.0.mlp_out"])) as source:
        first = next(source)
        for rows in islice(source, 7):
            last = rows
    assert last.activations["layers.0.mlp_out"].shape == first.activations["layers.0.mlp_out"].shape
    assert last.after is not None and last.after.document > 0
    fsspec.filesystem("memory").rm("/harvested", recursive=True)


def test_a_harvest_that_was_killed_goes_on_to_the_same_bytes(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe, killed, whole = write_recipe(), tmp_path / "killed", tmp_path / "whole"
    arguments = ["harvest", str(recipe), "--rows", "10000000", "--shard-rows", "1", "--out", str(killed)]
    process = subprocess.Popen(
        [sys.executable, "-m", "unweave.cli.main", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_shards(killed, 3)
    finally:
        process.kill()
        process.wait()
    (killed / ".shard-000009-0123abcd.safetensors.tmp").write_bytes(b"half")
    n_rows = Shards(killed).n_rows + 500
    for folder in (killed, whole):
        harvest(recipe, out=folder, rows=n_rows, shard_rows=1, quiet=True)
    assert _n_shards(whole) > 5
    assert _files(killed) == _files(whole)


def test_ctrl_c_keeps_complete_shards_and_says_how_to_go_on(
    write_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def interrupt() -> None:
        _wait_for_shards(tmp_path / "cache", 2)
        os.kill(os.getpid(), signal.SIGINT)

    line = ["unweave", "harvest", str(write_recipe()), "--out", str(tmp_path / "cache"), "--quiet"]
    monkeypatch.setattr(sys, "argv", [*line, "--rows", "10000000", "--shard-rows", "200"])
    presser = threading.Thread(target=interrupt)
    presser.start()
    with pytest.raises(SystemExit) as ended:
        main()
    presser.join()
    shards = Shards(tmp_path / "cache")
    assert ended.value.code == 130
    said = (
        f"stopped: {shards.n_rows:,} of 10,000,000 rows are in complete shards; the same command goes on behind them\n"
    )
    assert capfd.readouterr().err == said
    assert sum(map(len, shards.rows())) == shards.n_rows > 0


def test_the_command_says_what_int8_loses(
    write_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    line = ["unweave", "harvest", str(write_recipe()), "--out", str(tmp_path / "cache"), "--quiet"]
    monkeypatch.setattr(sys, "argv", [*line, "--rows", "700", "--dtype", "int8", "--sites", ",".join(SITES)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    lost = json.loads((tmp_path / "cache" / "manifest.json").read_bytes())["variance_lost"]
    live = harvest(write_recipe(), out=tmp_path / "exact", rows=700, dtype="float32", sites=SITES, quiet=True)
    printed = capfd.readouterr().out.splitlines()
    for line, site in zip(printed[1:], SITES, strict=True):
        exact, rounded = (
            torch.cat([rows.activations[site] for rows in shards.rows()]).double()
            for shards in (live, Shards(tmp_path / "cache"))
        )
        share = ((exact - rounded).square().sum() / (exact - exact.mean(0)).square().sum()).item()
        assert lost[site] == pytest.approx(share, rel=1e-4)
        assert line == f"{site}: 24 wide, int8 loses {share:.2g} of the variance"


@pytest.mark.parametrize(
    ("changes", "arguments", "says"),
    [
        ({}, {"dtype": "int8"}, r"dtype bfloat16, now it is int8"),
        ({}, {"sites": SITES}, r"sites layers.1.resid_post \(24 wide\), now it is layers.0.mlp_out"),
        ({"packing": {"context": 31}}, {}, "packing.context 32, now it is 31"),
        ({"model": {"device": "cpu", "sequences": 5}}, {}, "packing.sequences 4, now it is 5"),
    ],
)
def test_a_cache_of_something_else_is_refused_with_the_first_difference(
    recipe: dict, write_recipe: Callable[..., Path], tmp_path: Path, changes: dict, arguments: dict, says: str
) -> None:
    harvest(write_recipe(), out=tmp_path / "cache", rows=100, quiet=True)
    before = _files(tmp_path / "cache")
    merged = {name: recipe[name] | section for name, section in changes.items()}
    with pytest.raises(UserError, match=f"was harvested with {says}"):
        harvest(write_recipe(**merged), out=tmp_path / "cache", rows=300, quiet=True, **arguments)
    assert _files(tmp_path / "cache") == before


def test_models_and_texts_are_told_by_their_content_and_not_by_their_names(
    recipe: dict, write_recipe: Callable[..., Path], tmp_path: Path, model_folders: dict[str, Path], text_file: Path
) -> None:
    harvest(write_recipe(), out=tmp_path / "cache", rows=100, quiet=True)
    copy = shutil.copytree(model_folders["llama"], tmp_path / "copy")
    moved = write_recipe(model=recipe["model"] | {"name": str(copy)})
    assert harvest(moved, out=tmp_path / "cache", rows=300, quiet=True).n_rows >= 300
    for name, key in (("tokenizer_config.json", "tokenizer"), ("config.json", "model")):
        (copy / name).write_text((copy / name).read_text() + "\n")
        with pytest.raises(UserError, match=rf"was harvested with {key}.sha256 \w+, now"):
            harvest(moved, out=tmp_path / "cache", rows=500, quiet=True)
    (tmp_path / text_file.name).write_text(text_file.read_text() + "!")
    with pytest.raises(UserError, match=r"was harvested with text.sha256 \w+, now"):
        harvest(write_recipe(text={"source": str(tmp_path / text_file.name)}), out=tmp_path / "cache", quiet=True)


def test_harvesting_does_not_go_on_behind_a_shard_that_is_cut_or_gone(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    shards = harvest(write_recipe(), out=tmp_path / "cache", rows=300, shard_rows=1, quiet=True)
    file = tmp_path / "cache" / shards.manifest.shards[1].file
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"shard {file.name} of .* bytes where"):
        harvest(write_recipe(), out=tmp_path / "cache", rows=500, quiet=True)
    file.unlink()
    with pytest.raises(UserError, match=f"shard {file.name} of .* is missing"):
        harvest(write_recipe(), out=tmp_path / "cache", rows=500, quiet=True)


@contextmanager
def _largest_file(n_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))  # Python ignores the signal that comes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_grow_leaves_the_shards_before_it(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    n_rows = harvest(write_recipe(), out=tmp_path / "cache", rows=300, shard_rows=1, quiet=True).n_rows
    before = _files(tmp_path / "cache")
    with (
        _largest_file(6000),
        pytest.raises(UserError, match=f"cannot write shard-.*: File too large; {n_rows} rows are"),
    ):
        harvest(write_recipe(), out=tmp_path / "cache", rows=500, shard_rows=1, quiet=True)
    assert _files(tmp_path / "cache") == before
    assert harvest(write_recipe(), out=tmp_path / "cache", rows=500, shard_rows=1, quiet=True).n_rows >= 500


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_with_room_the_same_command_goes_on(
    write_recipe: Callable[..., Path], tmp_path: Path, small_disk: Path
) -> None:
    with pytest.raises(UserError, match=r"cannot write .* No space left on device; [\d,]+ rows are in complete shards"):
        harvest(write_recipe(), out=small_disk / "cache", rows=3000, shard_rows=1, quiet=True)
    shards = Shards(small_disk / "cache")
    assert sum(map(len, shards.rows())) == shards.n_rows > 100
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    for folder in (small_disk / "cache", tmp_path / "whole"):
        harvest(write_recipe(), out=folder, rows=3000, shard_rows=1, quiet=True)
    assert _files(small_disk / "cache") == _files(tmp_path / "whole")


def test_what_cannot_work_is_refused_before_anything_is_written(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "cache"
    with pytest.raises(UserError, match="give --out"):
        harvest(write_recipe(), quiet=True)
    with pytest.raises(UserError, match="rows=0"):
        harvest(write_recipe(), out=out, rows=0, quiet=True)
    with pytest.raises(UserError, match="did you mean 'bfloat16'"):
        harvest(write_recipe(), out=out, dtype="bfloat6", quiet=True)
    with pytest.raises(UserError, match=r"did you mean 'layers.1.resid_post'"):
        harvest(write_recipe(), out=out, sites=["layers.1.resid_pst"], quiet=True)
    with pytest.raises(UserError, match="shard_rows=0"):
        harvest(write_recipe(), out=out, shard_rows=0, quiet=True)
    assert not out.exists()
    with pytest.raises(UserError, match="holds other files"):
        harvest(write_recipe(), out=tmp_path, quiet=True)
