"""Export of a small run: what is in the folders, and that a folder is there whole or not at all."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from unweave.cli.main import main
from unweave.errors import UserError
from unweave.formats.neuronpedia import UploadBatch, parse_row
from unweave.formats.neuronpedia_rows import Activation, Feature, Model, Release, Source, SourceSet
from unweave.formats.saedashboard import Batch, read_batches
from unweave.pipelines import export_dashboards
from unweave.pipelines.export import FORMATS, Format, export
from unweave.pipelines.export_sources import ExportConfig, LatentSource, Told, chosen_latents, open_source
from unweave.pipelines.progress import Watch
from unweave.storage.notes import Notes
from unweave.storage.run_folder import Run

QUIET = Watch(quiet=True)


def written(run: Run, to: str, out: Path, **config: object) -> Path:
    return export([run.path], to, out, QUIET, ExportConfig(**config))  # pyright: ignore[reportArgumentType]


def lines(path: Path, kind: type) -> list:
    return [parse_row(kind, line) for line in gzip.decompress(path.read_bytes()).splitlines()]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", [0, 1, 2, 3, 4, 5, 6]), ("3", [3]), (" 5-6, 0 ,5", [0, 5, 6]), ("2-2", [2])],
)
def test_latents_are_chosen_by_number_and_range(text: str, numbers: list[int]) -> None:
    assert chosen_latents(text, 7) == numbers


@pytest.mark.parametrize("text", ["7", "5-3", "0-7", "a", "1,,2", "-1", "1-2-3", "９9"])
def test_latents_that_are_not_there_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="latents"):
        chosen_latents(text, 7)


def test_dashboards_hold_every_latent_that_fires(run: Run, tmp_path: Path) -> None:
    folder = written(run, "saedashboard", tmp_path / "out")
    (batch,) = read_batches(folder)
    assert isinstance(batch, Batch) and (batch.layer, batch.sae_set) == (1, "small")
    skipped = json.loads((folder / "skipped_indexes.json").read_text())["skipped_indexes"]
    assert sorted([*skipped, *(feature.feature_index for feature in batch.features)]) == list(range(63))
    for feature in batch.features:
        record = run.latents.record(feature.feature_index, reach=63)
        assert feature.frac_nonzero == record.density > 0
        shown = sum(len(group.examples) for group in record.groups) + len(record.examples)
        assert len(feature.activations) == shown
        assert feature.activations[0].values == record.examples[0].activations
        assert feature.n_tokens_in_prompt == 32


def test_dashboards_are_a_source_too(run: Run, tmp_path: Path) -> None:
    first = written(run, "saedashboard", tmp_path / "first")
    again = export([first], "saedashboard", tmp_path / "again", QUIET, ExportConfig())
    one, two = (next(read_batches(folder)) for folder in (first, again))
    assert [f.activations for f in one.features] == [f.activations for f in two.features]
    assert one.layer == two.layer


def test_the_tree_for_neuronpedia_is_whole(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_dashboards, "PER_BATCH", 10)
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    fires = [record.latent for record in run.latents if not record.is_dead]
    Notes(copy / "notes.sqlite").write(fires[0], label="looms")
    config = ExportConfig(latents="0-24", model_id="weaver", name="res-63", reach=4)
    folder = export([copy], "neuronpedia", tmp_path / "out", QUIET, config) / "weaver" / "1-res-63"
    for name, kind in {"release": Release, "model": Model, "sourceset": SourceSet, "source": Source}.items():
        assert parse_row(kind, (folder / f"{name}.jsonl").read_bytes())
    parts = [f"batch-{number}.jsonl.gz" for number in range(3)]
    assert sorted(path.name for path in (folder / "features").iterdir()) == parts
    features = [row for part in parts for row in lines(folder / "features" / part, Feature)]
    assert [int(row.index) for row in features] == list(range(25))
    activations = [row for part in parts for row in lines(folder / "activations" / part, Activation)]
    assert all(len(row.tokens) <= 9 for row in activations)
    bodies = [parse_row(UploadBatch, path.read_bytes()) for path in sorted((folder / "upload").iterdir())]
    uploaded = [feature for body in bodies for feature in body.features]
    assert [feature.index for feature in uploaded] == [latent for latent in fires if latent < 25]
    assert [e.text for feature in uploaded for e in feature.explanations] == ["looms"]


def test_several_runs_of_one_name_have_no_place_on_neuronpedia(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one address"):
        export([run.path, run.path], "neuronpedia", tmp_path / "out", QUIET, ExportConfig(latents="1"))
    with pytest.raises(UserError, match="one at a time"):
        export([run.path, run.path], "saedashboard", tmp_path / "out", QUIET, ExportConfig(latents="1"))
    assert list(tmp_path.iterdir()) == [], "nothing is left of what was refused"


def test_only_an_export_is_overwritten_and_only_when_asked(run: Run, tmp_path: Path) -> None:
    out = written(run, "saedashboard", tmp_path / "out", latents="0-9")
    with pytest.raises(UserError, match="--overwrite"):
        written(run, "saedashboard", out)
    export([run.path], "saedashboard", out, QUIET, ExportConfig(latents="1"), overwrite=True)
    assert json.loads((out / "export.json").read_text())["n_latents"] == [1]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not an export"):
        export([run.path], "saedashboard", tmp_path / "own", QUIET, ExportConfig(latents="1"), overwrite=True)
    assert (tmp_path / "own" / "thesis.txt").read_text() == "years of work"


def test_an_export_that_fails_leaves_the_old_one(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(run, "saedashboard", tmp_path / "out", latents="0-9")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(sources: list[LatentSource], folder: Path, config: ExportConfig, told: Told) -> None:
        (folder / "begun").write_text("half")
        raise OSError("the disk is full")

    monkeypatch.setitem(FORMATS, "failing", Format(fail, 1))
    with pytest.raises(OSError, match="disk is full"):
        export([run.path], "failing", out, QUIET, ExportConfig(), overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_records_are_read_one_at_a_time(run: Run) -> None:
    source = open_source(run.path, "3-5", 2)
    records = source.records()
    assert next(records).latent == 3
    assert [record.latent for record in records] == [4, 5]
    assert all(len(example.token_ids) <= 5 for record in source.records() for example in record.examples)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}", "--to", "pdf"], "unknown format 'pdf'"),
        (["{run}", "--to", "html", "--latents", "60-63"], "there are latents 0 to 62"),
        (["{run}", "--to", "neuronpedia", "--name", "Res 1"], "try 'res-1'"),
        (["{run}", "--to", "neuronpedia", "--reach", "512"], "reach is 0 to 511"),
        (["{run}/nowhere", "--to", "html"], "there is no run folder"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list, said: str
) -> None:
    filled = [argument.format(run=run.path) for argument in arguments]
    monkeypatch.setattr("sys.argv", ["unweave", "export", *filled, "--out", str(tmp_path / "out"), "--quiet"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
