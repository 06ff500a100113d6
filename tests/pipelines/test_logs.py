"""Figures of a training in the real services: read back from the files that they keep."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_plan
from unweave.pipelines.run_plan import run_plan
from unweave.storage.run_folder import Run

QUIET = Watch(quiet=True)


def _records(content: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format: blocks of 32 KiB, each piece with its checksum, length and kind."""
    block, place, parts = 32_768, 7, b""  # a mark of the service comes first
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield parts
            parts = b""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_weights_and_biases_gets_every_figure_of_every_logged_step(
    recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the library of Weights & Biases is an extra")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = run_plan(build_plan(recipe | {"logging": {"wandb": "looms"}}), tmp_path / "logged", QUIET)
    (file,) = out.glob("wandb/offline-run-*/run-*.wandb")
    logged, projects = [], []
    for data in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            logged.append({key: json.loads(value) for key, value in items.items() if not key.startswith("_")})
        if record.HasField("run"):
            projects.append((record.run.project, record.run.run_id))
    expected = [{key: value for key, value in line.items() if key != "step"} for line in Run(out).curve]
    assert logged == expected
    assert projects[0] == ("looms", (out / "wandb_id").read_text())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_the_figures_of_every_coder(recipe: dict, tmp_path: Path) -> None:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is an extra"
    )
    recipe["coder"] |= {"k": [5, 7]}
    out = run_plan(build_plan(recipe | {"logging": {"tensorboard": True}}), tmp_path / "logged", QUIET)
    for name in ("k5", "k7"):
        events = accumulators.EventAccumulator(str(out / "tensorboard" / name))
        events.Reload()
        curve = Run(out / "coders" / name).curve
        found = [(event.step, event.value) for event in events.Scalars("mse")]
        assert found == [(line["step"], pytest.approx(line["mse"], rel=1e-6)) for line in curve]
        assert {"rows", "l0", "explained_variance", "lr"} <= set(events.Tags()["scalars"])
