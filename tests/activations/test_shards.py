"""Shards written from rows that are made here, and read back."""

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path

import fsspec
import pytest
import safetensors.torch
import torch

from unweave.activations.quantize import StoredDtype
from unweave.activations.shard_files import Manifest, ShardFolder, read_manifest
from unweave.activations.shard_writer import ShardWriter
from unweave.activations.shards import Shards
from unweave.errors import UserError
from unweave.types import Rows, TextPosition

SITES = {"layers.0.mlp_out": 7, "layers.1.resid_post": 12}
SIZES = [30, 33, 0, 63, 7, 100, 1, 29, 40]
"""Rows of the token batches; with 64 rows a shard they make shards of 126, 107 and 70 rows; no rows are no batch."""


def _batch(number: int, size: int) -> Rows:
    generator = torch.Generator().manual_seed(number)
    x = {site: 3 * torch.randn(size, width, generator=generator) + 1 for site, width in SITES.items()}
    ids = torch.randint(50_000, (4, size), generator=generator)
    return Rows(x, *ids, after=TextPosition(number, 10 * number))


def _batches() -> list[Rows]:
    return [_batch(number, size) for number, size in enumerate(SIZES)]


def _with_rows() -> list[Rows]:
    return [rows for rows in _batches() if len(rows)]


def _manifest(dtype: StoredDtype) -> Manifest:
    return Manifest(origin={"text": {"sha256": "ab"}}, sites=SITES, dtype=dtype, made_with={"unweave": "0"})


def _write(address: str | Path, dtype: StoredDtype = "float32") -> Shards:
    writer = ShardWriter(ShardFolder(address), _manifest(dtype), shard_rows=64)
    for rows in _batches():
        writer.add(rows)
    writer.finish_shard()
    return Shards(address)


@pytest.fixture
def memory() -> Iterator[str]:
    address = "memory://caches/one"
    yield address
    fsspec.filesystem("memory").rm("/caches", recursive=True)


def _assert_same(read: Rows, written: Rows, rounded: torch.dtype = torch.float32) -> None:
    for site, x in read.activations.items():
        assert x.dtype == torch.float32
        assert torch.equal(x, written.activations[site].to(rounded).float())
    for name in ("token_ids", "document_ids", "sequences", "positions"):
        assert torch.equal(getattr(read, name), getattr(written, name))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_come_back_in_the_same_batches_and_the_same_order(tmp_path: Path, dtype: StoredDtype) -> None:
    shards = _write(tmp_path / "cache", dtype)
    assert (shards.n_rows, shards.sites) == (sum(SIZES), tuple(SITES))
    assert [shard.rows for shard in shards.manifest.shards] == [126, 107, 70]
    for read, written in zip(shards.rows(), _with_rows(), strict=True):
        assert list(read.activations) == list(SITES)
        _assert_same(read, written, getattr(torch, dtype))


def test_int8_rows_come_back_within_half_a_step_of_their_own_scale(tmp_path: Path) -> None:
    shards = _write(tmp_path / "cache", "int8")
    for read, written in zip(shards.rows(), _with_rows(), strict=True):
        for site, x in written.activations.items():
            step = x.abs().amax(1, keepdim=True) / 127 if len(x) else x
            assert ((read.activations[site] - x).abs() <= 0.5001 * step).all()


def test_a_shard_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    shards = _write(tmp_path / "cache", "int8")
    tensors = safetensors.torch.load_file(tmp_path / "cache" / shards.manifest.shards[1].file)
    assert tensors["x.layers.0.mlp_out"].shape == (107, 7)
    assert tensors["x.layers.0.mlp_out"].dtype == torch.int8
    assert (tensors["scale.layers.1.resid_post"].shape, tensors["positions"].dtype) == ((107,), torch.int32)
    assert tensors["batch_rows"].tolist() == [7, 100]


def test_reading_goes_on_behind_any_batch(tmp_path: Path) -> None:
    shards = _write(tmp_path / "cache")
    whole = list(shards.rows())
    for i, rows in enumerate(whole):
        assert rows.after is not None
        rest = list(shards.rows(start=rows.after))
        assert [len(part) for part in rest] == [len(part) for part in whole[i + 1 :]]
        for read, expected in zip(rest, whole[i + 1 :], strict=True):
            _assert_same(read, expected)
            assert read.after == expected.after
    assert [rows.after for rows in whole[-3:]] == [TextPosition(2, 1), TextPosition(2, 30), TextPosition(3)]


def test_reading_forever_begins_again_and_counts_shards_on(tmp_path: Path) -> None:
    shards = _write(tmp_path / "cache")
    with closing(shards.rows_forever()) as source:
        rounds = list(islice(source, 19))
    for rows, again in zip(rounds, rounds[8:], strict=False):
        _assert_same(again, rows)
    assert all(a.after < b.after for a, b in pairwise(rounds))
    position = rounds[9].after
    assert position == TextPosition(3, 63)
    with closing(shards.rows_forever(start=position)) as source:
        for read, expected in zip(islice(source, 4), rounds[10:], strict=False):
            _assert_same(read, expected)
            assert read.after == expected.after


def test_some_sites_can_be_read_alone(tmp_path: Path) -> None:
    shards = _write(tmp_path / "cache", "bfloat16")
    rows = next(iter(shards.rows(["layers.1.resid_post"])))
    assert list(rows.activations) == ["layers.1.resid_post"]
    with pytest.raises(UserError, match=r"no activations at 'layers.1.resid_pst'; did you mean 'layers.1.resid_post'"):
        shards.rows(["layers.1.resid_pst"])


def test_a_start_that_no_batch_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no token batch of shard 1 begins at row 8"):
        next(iter(_write(tmp_path / "cache").rows(start=TextPosition(1, 8))))


def test_a_cache_can_lie_at_an_fsspec_address(memory: str, tmp_path: Path) -> None:
    for address in (memory, f"file://{tmp_path}/cache"):
        for read, written in zip(_write(address).rows(), _with_rows(), strict=True):
            _assert_same(read, written)
    here = {file.name: file.read_bytes() for file in (tmp_path / "cache").iterdir()}
    there = {
        Path(name).name: fsspec.filesystem("memory").cat_file(name)
        for name in fsspec.filesystem("memory").find("/caches")
    }
    assert here == there


def test_an_address_that_nothing_can_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot open 'nosuch://x'.*give a folder"):
        Shards("nosuch://x")
    with pytest.raises(UserError, match="no activations in"):
        Shards(tmp_path / "none")
    (tmp_path / "file").write_text("words")
    with pytest.raises(UserError, match="no activations in"):
        Shards(tmp_path / "file")


def test_a_shard_that_was_altered_cut_or_removed_is_named_and_nothing_of_it_is_read(tmp_path: Path) -> None:
    shards = _write(tmp_path / "cache")
    file = tmp_path / "cache" / shards.manifest.shards[1].file
    data = file.read_bytes()
    altered = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
    for content, says in (
        (altered, "was altered"),
        (data[:-1], "bytes where"),
        (b"", "has 0 bytes"),
        (None, "missing"),
    ):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        source = Shards(tmp_path / "cache").rows()
        assert [len(rows) for rows in islice(source, 3)] == [30, 33, 63]
        with pytest.raises(UserError, match=f"shard {file.name} of .*{says}"):
            next(source)


def test_checksums_can_be_left_unverified(tmp_path: Path) -> None:
    shards = _write(tmp_path / "cache")
    file = tmp_path / "cache" / shards.manifest.shards[0].file
    data = file.read_bytes()
    file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    assert sum(map(len, Shards(tmp_path / "cache", verify=False).rows())) == sum(SIZES)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 1, "origin": {"text": 3}}'])
def test_a_damaged_manifest_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"the manifest.json of .* is damaged; harvest into a new folder"):
        Shards(tmp_path)


def test_a_manifest_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(UserError, match="has format 2, this version reads 1"):
        Shards(tmp_path)


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    shards = _write(tmp_path / "cache", "int8")
    assert read_manifest(ShardFolder(tmp_path / "cache")) == shards.manifest
    assert shards.manifest.after == TextPosition(8, 80)
    assert shards.manifest.bytes == sum(f.stat().st_size for f in (tmp_path / "cache").glob("*.safetensors"))


def test_rows_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    for bad in (float("nan"), float("inf")):
        for dtype in ("float32", "bfloat16", "int8"):
            address = tmp_path / f"{bad}-{dtype}"
            writer = ShardWriter(ShardFolder(address), _manifest(dtype), shard_rows=64)
            rows = _batch(1, 100)
            rows.activations["layers.1.resid_post"][63, 5] = bad
            with pytest.raises(UserError, match=r"activations at layers.1.resid_post are NaN or infinite"):
                writer.add(rows)
            assert [file.name for file in address.iterdir()] == ["manifest.json"]


def test_two_writers_of_one_folder_do_not_mix(tmp_path: Path) -> None:
    first, second = (ShardWriter(ShardFolder(tmp_path), _manifest("float32"), 64) for _ in range(2))
    first.add(_batch(0, 100))
    with pytest.raises(UserError, match="something else writes to"):
        second.add(_batch(1, 100))
    assert [len(rows) for rows in Shards(tmp_path).rows()] == [100]


def test_a_new_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    shards = _write(tmp_path)
    for name in (
        "shard-000003-0badcafe.safetensors",
        ".shard-000003-0badcafe.safetensors.x1",
        ".manifest.json.x2",
        "notes",
    ):
        (tmp_path / name).write_text("half")
    ShardWriter(ShardFolder(tmp_path), shards.manifest, 64)
    kept = {"manifest.json", "notes"} | {shard.file for shard in shards.manifest.shards}
    assert {file.name for file in tmp_path.iterdir()} == kept
    assert Shards(tmp_path).n_rows == sum(SIZES)


def _n_reading() -> int:
    return sum(thread.name == "unweave-ahead" for thread in threading.enumerate())


def test_the_reading_thread_ends_with_the_reading(tmp_path: Path) -> None:
    shards = _write(tmp_path / "cache")
    before = _n_reading()
    source = shards.rows_forever()
    assert _n_reading() == before
    next(source)
    assert _n_reading() == before + 1
    source.close()
    assert _n_reading() == before
    assert sum(map(len, shards.rows())) == sum(SIZES)
    assert _n_reading() == before


def test_a_shard_needs_a_row(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shard_rows=0"):
        ShardWriter(ShardFolder(tmp_path), _manifest("float32"), 0)
