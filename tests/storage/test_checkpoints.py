"""Checkpoints on disk: what is read is what was written, and nothing else is ever read as good."""

from pathlib import Path

import pytest
import torch

from unweave.storage.checkpoints import (
    Checkpoint,
    DamagedCheckpoint,
    checkpoints,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)


def _checkpoint(step: int) -> Checkpoint:
    state = {"a/coder.W_dec": torch.randn(7, 3), "a/counts": torch.arange(63), "a/half": torch.randn(5).bfloat16()}
    return Checkpoint(step, state, {"buffer.here": torch.randn(100, 7).T, "next": torch.tensor(3)}, {"rows": 7 * step})


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = _checkpoint(123)
    path = write_checkpoint(tmp_path, written)
    read = read_checkpoint(path)
    assert (read.step, read.facts) == (123, {"rows": 861})
    for before, after in ((written.state, read.state), (written.rows, read.rows)):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(before[name].dtype == after[name].dtype for name in before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000123"], "nothing half-written is left"


def test_the_newest_is_that_of_the_latest_step(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none", allow_previous=False) is None
    for step in (9, 100, 20):
        write_checkpoint(tmp_path, _checkpoint(step))
    newest = newest_checkpoint(tmp_path, allow_previous=False)
    assert newest is not None and newest.step == 100
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000009", "step-00000020", "step-00000100"]


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, _checkpoint(5))
    second = _checkpoint(5)
    read = read_checkpoint(write_checkpoint(tmp_path, second))
    assert torch.equal(read.state["a/coder.W_dec"], second.state["a/coder.W_dec"])


def test_a_checkpoint_that_is_still_being_written_is_none(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, _checkpoint(5)).rename(tmp_path / ".step-00000009.partial")
    assert newest_checkpoint(tmp_path, allow_previous=False) is None


@pytest.mark.parametrize("name", ["state/state.safetensors", "rows/00000.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("how", ["truncated", "altered", "missing"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_only_used_when_asked_for(
    tmp_path: Path, name: str, how: str
) -> None:
    write_checkpoint(tmp_path, _checkpoint(5))
    file = write_checkpoint(tmp_path, _checkpoint(9)) / name
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-20] if how == "truncated" else content.replace(b'"', b"'", 2))
    with pytest.raises(DamagedCheckpoint, match=r"step-00000009.*damaged.*--allow-previous"):
        newest_checkpoint(tmp_path, allow_previous=False)
    before = newest_checkpoint(tmp_path, allow_previous=True)
    assert before is not None and before.step == 5


def test_without_another_one_a_damaged_checkpoint_ends_it(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path, _checkpoint(5)) / "state/state.safetensors").write_bytes(b"")
    with pytest.raises(DamagedCheckpoint, match="there is no other"):
        newest_checkpoint(tmp_path, allow_previous=False)
    with pytest.raises(DamagedCheckpoint, match="all 1 checkpoints"):
        newest_checkpoint(tmp_path, allow_previous=True)


def test_a_disk_that_is_full_leaves_no_checkpoint_and_keeps_the_one_before(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write fails at the same place, with an OSError."""
    import resource
    import signal

    write_checkpoint(tmp_path, _checkpoint(5))
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    large = Checkpoint(9, {"x": torch.zeros(100_000)}, {}, {})
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
        with pytest.raises(OSError):
            write_checkpoint(tmp_path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
