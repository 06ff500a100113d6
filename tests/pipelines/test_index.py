"""The latent index of a run against what its model and coder do on the same text, read one token batch at a time."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from unweave.errors import UserError
from unweave.pipelines import index as indexing
from unweave.pipelines.index import index_run
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import read_job
from unweave.pipelines.workbench import SEQUENCES, set_up
from unweave.storage import fire_blocks
from unweave.storage.index_folder import LatentIndex
from unweave.storage.run_folder import Run

QUIET = Watch(quiet=True)
SETTINGS = ["index.tokens=1200", "index.examples=4", "index.groups=3", "index.drawn=2", "index.partners=7"]


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    """Blocks of two token batches, so that a small text has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fire_blocks, "_PLACES", 512)
        yield


@pytest.fixture(scope="module")
def own(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("indexed") / "run"
    shutil.copytree(run.path, path)
    return Run(path)


@pytest.fixture(scope="module")
def index(own: Run, small_blocks: None) -> LatentIndex:
    return index_run(own.path, QUIET, overrides=SETTINGS)


@pytest.fixture(scope="module")
def grid(own: Run, index: LatentIndex) -> np.ndarray:
    """Activations [places, latents] of the indexed text, each sequence encoded alone; 0 at special tokens."""
    bench = set_up(read_job(str(own.path / "config.toml"), []).recipe)
    sequences = []
    for batch in bench.token_batches(bench.corpus.held_out, 1):
        if len(sequences) == len(index.text.token_ids):
            break
        np.testing.assert_array_equal(index.text.token_ids[len(sequences)], batch.token_ids[0].numpy())
        np.testing.assert_array_equal(index.text.document_ids[len(sequences)], batch.document_ids[0].numpy())
        x = bench.model.capture(batch.token_ids, own.coder.site)[own.coder.site][0]
        sequences.append((own.coder.encode(x).dense() * batch.is_content[0][:, None]).numpy())
    return np.concatenate(sequences)


def test_every_fire_is_in_the_index(index: LatentIndex, grid: np.ndarray) -> None:
    assert index.manifest["n_rows"] >= 1200 and index.manifest["n_fires"] == (grid != 0).sum()
    for latent in range(len(index)):
        places, values = index.fires(latent)
        np.testing.assert_array_equal(places, np.flatnonzero(grid[:, latent]))
        np.testing.assert_allclose(values, grid[places, latent], rtol=1e-4, atol=grid[:, latent].max() / 60_000)


def test_a_record_says_what_a_plain_account_says(index: LatentIndex, grid: np.ndarray) -> None:
    n_rows = index.manifest["n_rows"]
    documents = np.asarray(index.text.document_ids).reshape(-1)
    for record in index:
        own = grid[:, record.latent]
        fires = own[own != 0]
        assert record.n_fires == len(fires) and record.density == pytest.approx(len(fires) / n_rows)
        assert record.is_dead == (len(fires) == 0)
        if record.is_dead:
            assert not record.examples and not record.groups and record.histogram is None and record.rule is None
            continue
        assert record.max_activation == pytest.approx(fires.max(), rel=1e-4)
        assert record.mean_activation == pytest.approx(fires.mean(), rel=1e-4)
        assert record.histogram is not None and sum(record.histogram.counts) == len(fires)
        top = [int(place) for place in np.argsort(-own, kind="stable") if own[place] != 0]
        best = {int(documents[place]): place for place in reversed(top)}
        expected = sorted(best.values(), key=lambda place: -own[place])[:4]
        if len(best) >= 4:
            found = [example.place for example in record.examples]
            np.testing.assert_allclose(own[found], own[expected], rtol=1e-4)
        assert sum(group.share for group in record.groups) == pytest.approx(1, abs=1e-4)
        for group in record.groups:
            assert all(group.low * 0.999 <= own[e.place] <= group.high * 1.001 for e in group.examples)


def test_examples_show_the_text_and_the_activations_around_their_peak(index: LatentIndex, grid: np.ndarray) -> None:
    flat = np.asarray(index.text.token_ids).reshape(-1)
    context = index.text.context
    for latent in range(0, len(index), 5):
        for example in index.record(latent, reach=5).examples:
            start = max(example.place - 5, example.place // context * context)
            end = min(example.place + 6, example.place // context * context + context)
            assert example.token_ids == flat[start:end].tolist() and start + example.peak == example.place
            np.testing.assert_allclose(example.activations, grid[start:end, latent], rtol=1e-4, atol=1e-3)


def test_partners_share_tokens_as_told(index: LatentIndex, grid: np.ndarray) -> None:
    active = grid != 0
    n_rows = index.manifest["n_rows"]
    assert any(record.partners for record in index)
    for record in index:
        for partner in record.partners:
            a, b = active[:, record.latent], active[:, partner.latent]
            both = (a & b).sum()
            assert partner.jaccard == pytest.approx(both / (a | b).sum(), rel=1e-4)
            assert partner.pmi == pytest.approx(np.log(both * n_rows / (a.sum() * b.sum())), rel=1e-3, abs=1e-4)


def test_directions_are_those_of_the_coder(index: LatentIndex, own: Run) -> None:
    W_LD = own.coder.W_dec.numpy()
    units = W_LD / np.linalg.norm(W_LD, axis=1, keepdims=True)
    cosines = units @ units.T - 2 * np.eye(len(W_LD))
    for record in index:
        assert record.similar[0].cosine == pytest.approx(cosines[record.latent].max(), abs=1e-4)
        assert record.neurons[0].neuron == np.abs(W_LD[record.latent]).argmax()
        assert record.neurons[0].share == pytest.approx(
            np.abs(W_LD[record.latent]).max() / np.abs(W_LD[record.latent]).sum(), rel=1e-3
        )
        assert record.logits is not None and sum(record.logits.counts) == len(index.vocabulary())
        assert record.logits.high == pytest.approx(record.promoted[0].weight, rel=1e-3)


def _contents(index: LatentIndex) -> dict[str, bytes]:
    """Every array, and every sheet, of an index."""
    arrays = {path.name: path.read_bytes() for path in index.folder.glob("*.npy")}
    return arrays | {"sheets": json.dumps(list(index.table.sheets())).encode()}


def test_a_reading_that_was_cut_short_goes_on_and_gives_the_same_index(
    own: Run, index: LatentIndex, tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    shutil.copytree(own.path, path, ignore=shutil.ignore_patterns("index"))
    batches = indexing.up_to

    def cut_short(*given: object) -> Iterator:
        for number, batch in enumerate(batches(*given)):  # type: ignore[arg-type]
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(indexing, "up_to", cut_short)
    with pytest.raises(KeyboardInterrupt, match="what was read is kept"):
        index_run(path, QUIET, overrides=SETTINGS)
    assert len(list((path / "index.partial").glob("block-*"))) == 1 and not (path / "index").exists()
    monkeypatch.undo()
    monkeypatch.setattr(fire_blocks, "_PLACES", 512)
    n_encoded = []
    encode = indexing.encoded
    monkeypatch.setattr(indexing, "encoded", lambda *given: n_encoded.append(1) or encode(*given))
    again = index_run(path, QUIET, overrides=SETTINGS)
    assert _contents(again) == _contents(index)
    assert len(n_encoded) == -(-len(index.text.token_ids) // SEQUENCES) - 2
    assert not (path / "index.partial").exists()


def test_what_was_read_with_other_settings_is_not_used(own: Run, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(own.path, path, ignore=shutil.ignore_patterns("index"))
    (path / "index.partial").mkdir()
    (path / "index.partial" / "reading.json").write_text("{}")
    (path / "index.partial" / "block-000000.safetensors").write_bytes(b"of another coder")
    found = index_run(path, QUIET, overrides=["index.tokens=300"])
    found.verify()
    assert not list((path / "index").glob("block-*"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="torchrun's gloo processes need a POSIX system")
def test_two_processes_make_the_index_of_one(own: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fire_blocks, "_PLACES", 32_768)
    paths = [tmp_path / "alone", tmp_path / "together"]
    text = tmp_path / "long.txt"
    text.write_text("".join(f"A loom has warp {i} and weft {i * i}.\n" for i in range(6000)))
    for path in paths:
        shutil.copytree(own.path, path, ignore=shutil.ignore_patterns("index"))
    settings = ["index.examples=4", "index.tokens=80000"]
    index_run(paths[0], QUIET, text=str(text), overrides=settings)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unweave"]
    command += ["index", str(paths[1]), "--quiet", "--text", str(text), *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    alone, together = (Run(path).latents for path in paths)
    assert alone.text.token_ids.size > 2 * 32_768  # three blocks, of which the second process reads one
    assert _contents(alone) == _contents(together)


def test_another_text_is_read_whole(own: Run, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(own.path, path, ignore=shutil.ignore_patterns("index"))
    (tmp_path / "other.txt").write_text("".join(f"A loom has warp {i} and weft {i * i}.\n" for i in range(900)))
    found = index_run(path, QUIET, text=str(tmp_path / "other.txt"), overrides=["index.tokens=100000"])
    bench = set_up(read_job(str(path / "config.toml"), [f"text.source={tmp_path / 'other.txt'}"]).recipe)
    n_tokens = sum(int(batch.is_content.sum()) for part in bench.corpus for batch in bench.token_batches(part, 1))
    assert n_tokens - 31 <= found.manifest["n_rows"] <= n_tokens + 62  # one stream leaves out one rest, not two


def test_an_index_of_another_coder_and_a_damaged_one_are_named(index: LatentIndex, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(index.folder.parent, path)
    values = path / "index" / "values.npy"
    content = bytearray(values.read_bytes())
    content[-1] ^= 255
    values.write_bytes(content)
    with pytest.raises(UserError, match=r"values\.npy.*is damaged: its checksum differs; `unweave index`"):
        Run(path).latents.verify()
    values.write_bytes(content[:-4])
    with pytest.raises(UserError, match=r"values\.npy' has [\d,]+ bytes, not [\d,]+; `unweave index`"):
        _ = Run(path).latents
    shutil.copytree(index.folder, path / "index", dirs_exist_ok=True)
    manifest = json.loads((path / "index" / "manifest.json").read_text())
    (path / "index" / "manifest.json").write_text(json.dumps(manifest | {"coder": "0" * 64}))
    with pytest.raises(UserError, match="is of another coder; `unweave index`"):
        _ = Run(path).latents
    with pytest.raises(UserError, match=r"'coder.k=3' would change what was trained; index takes index., text."):
        index_run(path, QUIET, overrides=["coder.k=3"])
