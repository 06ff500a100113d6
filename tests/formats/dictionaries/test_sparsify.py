"""Folders of sparsify: hookpoints, seeds, runs, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from unweave.coders import Origin, Port, Wiring, architecture
from unweave.errors import UserError
from unweave.formats.dictionaries import Place, sparsify, write_dictionary

from .golden_cases import GOLDEN, read
from .ours import coder

THEIRS = GOLDEN / "sparsify" / "theirs"


def test_a_root_holds_a_coder_for_each_hookpoint(tmp_path: Path) -> None:
    for case, hookpoint in (("topk", "layers.3"), ("seed", "layers.3/seed1"), ("groupmax_transcode", "layers.3.mlp")):
        shutil.copytree(THEIRS / case / hookpoint, tmp_path / hookpoint, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text('{"model": "some/model"}')
    found = sparsify.read(tmp_path, Place())
    assert list(found) == ["layers.3", "layers.3/seed1", "layers.3.mlp"]
    assert all(coder.origin == Origin("some/model") for coder in found.values())
    assert [coder.wiring.reads[0].site for coder in found.values()] == [
        "layers.3.resid_post",
        "layers.3.resid_post",
        "layers.3.mlp:in",
    ]
    assert list(sparsify.read(tmp_path / "layers.3.mlp", Place())) == ["layers.3.mlp"]
    assert list(sparsify.read(tmp_path / "layers.3" / "seed1" / "sae.safetensors", Place())) == ["layers.3/seed1"]
    with pytest.raises(UserError, match="holds 3 coders, so that one site does not do"):
        sparsify.read(tmp_path, Place(site="layers.1.mlp_out"))


def test_a_transcoder_reads_what_enters_a_module_and_writes_what_leaves_it() -> None:
    found = read("sparsify", "theirs", "skip_transcode")
    assert found.wiring == Wiring.transcoder(Port("layers.3.mlp:in", 6), Port("layers.3.mlp:out", 6), skip=True)
    (found,) = sparsify.read(THEIRS / "transcode", Place("m", "layers.3.mlp_in", "layers.3.mlp_out")).values()
    assert found.wiring == Wiring.transcoder(Port("layers.3.mlp_in", 6), Port("layers.3.mlp_out", 6))
    assert found.origin == Origin("m")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"k": 0}, r"cannot be read as topk: coder\.k needs 0 < k"),
        ({"k": "many"}, "'k' in .* is 'many', expected a whole number"),
        ({"activation": "relu"}, "'activation' in .* is 'relu', expected one of topk, groupmax"),
        ({"d_in": 7}, "13 latents of width 7, but the encoder beside it has shape"),
        ({"num_latents": 0}, "192 latents of width 6"),
        ({"skip_connection": True}, "lacks W_skip"),
        ({"transcode": "yes"}, "'transcode' in .* is 'yes', expected true or false"),
        ({"activation": "groupmax"}, r"cannot be read as group_max: coder\.k must divide"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = shutil.copytree(THEIRS / "topk" / "layers.3", tmp_path / "layers.3")
    config = json.loads((folder / "cfg.json").read_text()) | changes
    (folder / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=says) as error:
        sparsify.read(folder, Place())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "wiring", "says"),
    [
        ("abs_topk", Wiring.sae(6, "a"), "sparsify cannot hold a coder of type abs_topk; it holds types topk"),
        ("relu", Wiring.sae(6, "a"), "a coder of type relu"),
        ("topk", Wiring((Port("a", 6),), (Port("a", 6),), row_norm="layer_norm"), "row_norm layer_norm"),
        ("topk", Wiring.transcoder(Port("a:in", 6), Port("a:out", 5)), "a coder from width 6 to 5"),
        ("topk", Wiring.transcoder(Port("a:out", 6), Port("b:out", 6)), "a transcoder from a:out to b:out"),
        ("topk", Wiring.crosscoder(Port("a", 6), Port("b", 6)), "a crosscoder of 2 sites"),
    ],
)
def test_what_sparsify_has_no_place_for_is_refused(name: str, wiring: Wiring, says: str, tmp_path: Path) -> None:
    cls = architecture(name)
    with pytest.raises(UserError, match=says):
        write_dictionary(cls(cls.Config(n_latents=64), wiring), tmp_path / "out", "sparsify")
    assert not (tmp_path / "out").exists()


def test_several_coders_are_written_below_one_root(tmp_path: Path) -> None:
    for case in ("topk", "topk-transcoder", "topk-block"):
        write_dictionary(coder("sparsify", case), tmp_path, "sparsify")
    assert list(sparsify.read(tmp_path, Place())) == ["layers.3", "layers.3.mlp", "layers.3.resid_pre"]
    assert json.loads((tmp_path / "config.json").read_text()) == {"model": "some/model"}


def test_a_folder_without_coders_is_named(tmp_path: Path) -> None:
    assert not sparsify.recognises(tmp_path)
    with pytest.raises(UserError, match=r"no folder with cfg\.json and sae\.safetensors"):
        sparsify.read(tmp_path, Place())
