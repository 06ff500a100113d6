"""Folders of dictionary_learning: trainers, configs and weights that contradict each other, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Origin, Port, Wiring, architecture
from unweave.errors import UserError
from unweave.formats.dictionaries import Place, dictionary_learning, write_dictionary
from unweave.formats.tensor_file import read_torch

from .golden_cases import GOLDEN, read

THEIRS = GOLDEN / "dictionary_learning" / "theirs"


@pytest.fixture
def copy(tmp_path: Path) -> Any:
    """A copy of a case whose config of the trainer is changed, and whose weights are."""

    def changed(case: str, trainer: dict[str, Any] | None = None, weights: dict[str, Any] | None = None) -> Path:
        folder = shutil.copytree(THEIRS / case, tmp_path / case)
        config = json.loads((folder / "config.json").read_text())
        config["trainer"] |= trainer or {}
        (folder / "config.json").write_text(json.dumps(config))
        tensors = read_torch(folder / "ae.pt") | (weights or {})
        torch.save({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / "ae.pt")
        return folder

    return changed


def test_a_run_of_several_trainers_holds_a_coder_for_each(tmp_path: Path) -> None:
    for number, case in enumerate(("topk", "gated")):
        shutil.copytree(THEIRS / case, tmp_path / "layer_3" / f"trainer_{number}")
    assert dictionary_learning.recognises(tmp_path)
    found = dictionary_learning.read(tmp_path, Place())
    assert list(found) == ["layer_3/trainer_0", "layer_3/trainer_1"]
    assert [type(coder).__name__ for coder in found.values()] == ["TopK", "Gated"]


def test_a_checkpoint_has_its_config_one_folder_up() -> None:
    path = THEIRS / "gated_checkpoint" / "checkpoints" / "ae_100.pt"
    assert list(dictionary_learning.read(path, Place())) == ["ae_100"]


def test_the_model_and_the_site_are_those_of_the_trainer() -> None:
    found = read("dictionary_learning", "theirs", "topk")
    assert found.origin == Origin("EleutherAI/pythia-70m-deduped")
    assert found.site == "layers.3.resid_post"


@pytest.mark.parametrize(
    ("trainer", "site"),
    [
        ({"submodule_name": None}, "layers.3.resid_post"),
        ({"submodule_name": "attention_out_layer_5"}, "layers.5.attn_out"),
        ({"submodule_name": "mlp_out_layer3"}, "layers.3.mlp_out"),
        ({"submodule_name": "resid_out_layer3"}, "layers.3.resid_post"),
        ({"submodule_name": "transformer.h.3"}, "transformer.h.3"),
        ({"submodule_name": "something_else"}, ""),
        ({"submodule_name": None, "layer": None}, ""),
    ],
)
def test_the_name_of_a_submodule_is_a_site(copy: Any, trainer: dict[str, Any], site: str) -> None:
    (found,) = dictionary_learning.read(copy("topk", trainer), Place()).values()
    assert found.site == site


def test_a_threshold_that_was_never_set_makes_it_topk() -> None:
    for case in ("batch_topk_unset", "matryoshka_unset"):
        found = read("dictionary_learning", "theirs", case)
        assert type(found).__name__ == "TopK"
        assert found.config.k == 4  # pyright: ignore[reportAttributeAccessIssue]


def test_groups_are_prefixes() -> None:
    found = read("dictionary_learning", "theirs", "matryoshka")
    assert found.prefix_lengths(1.0) == [4, 8, 13]  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("case", "trainer", "weights", "says"),
    [
        ("topk", {"dict_class": "IdentityDict"}, {}, "unknown dict_class 'IdentityDict'"),
        ("topk", {"dict_class": None}, {}, "'dict_class' in .* is null, expected a text"),
        ("topk", {"k": 5}, {}, "'k' is 5 in .* and 4 in the weights beside it"),
        ("topk", {"k": None}, {"k": None}, "'k' in .* is null, expected a whole number"),
        ("topk", {}, {"k": torch.tensor([4, 4])}, r"'k' in .* has shape \[2\], expected one number"),
        ("topk", {}, {"encoder.bias": torch.zeros(12)}, r"b_enc in .* has shape \[12\], expected \[13\]"),
        ("topk", {}, {"encoder.weight": None}, "lacks W_enc"),
        ("topk", {}, {"decoder.weight": torch.zeros(6)}, r"has decoder.weight of shape \[6\], expected a matrix"),
        ("topk", {}, {"bias": torch.zeros(6)}, "several tensors of one meaning"),
        ("topk", {}, {"steps": 3}, "'steps' in .* is no tensor, it is int"),
        ("topk", {}, {"b_dec": torch.full((6,), torch.nan)}, "not finite"),
        ("jumprelu", {}, {"threshold": None}, "lacks threshold"),
        ("matryoshka", {}, {"group_sizes": torch.tensor([4, 4])}, "do not add up to its 13 latents"),
        ("matryoshka", {}, {"group_sizes": None}, "do not add up to its 13 latents"),
        ("gated", {"dict_class": "AutoEncoder"}, {}, "cannot be read as relu"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    copy: Any, case: str, trainer: dict[str, Any], weights: dict[str, Tensor], says: str
) -> None:
    with pytest.raises(UserError, match=says) as error:
        dictionary_learning.read(copy(case, trainer, weights), Place())
    assert "\n" not in str(error.value)


def test_weights_without_a_config_are_not_recognised(tmp_path: Path) -> None:
    shutil.copy(THEIRS / "topk" / "ae.pt", tmp_path / "ae.pt")
    assert not dictionary_learning.recognises(tmp_path)
    with pytest.raises(UserError, match=r"there is no 'config\.json'"):
        dictionary_learning.read(tmp_path, Place())


@pytest.mark.parametrize(
    ("name", "wiring", "says"),
    [
        ("abs_topk", Wiring.sae(6, "a"), "dictionary_learning cannot hold a coder of type abs_topk; it holds types"),
        ("matching_pursuit", Wiring.sae(6, "a"), "a coder of type matching_pursuit"),
        ("topk", Wiring.transcoder(Port("a", 6), Port("b", 6)), "a transcoder; it holds coders that write what they"),
        ("topk", Wiring((Port("a", 6),), (Port("a", 6),), row_norm="sqrt_width"), "row_norm sqrt_width"),
        ("relu", Wiring.crosscoder(Port("a", 6), Port("b", 6)), "a crosscoder of 2 sites"),
    ],
)
def test_what_it_has_no_place_for_is_refused(name: str, wiring: Wiring, says: str, tmp_path: Path) -> None:
    cls = architecture(name)
    with pytest.raises(UserError, match=says):
        write_dictionary(cls(cls.Config(n_latents=64), wiring), tmp_path / "out", "dictionary_learning")
    assert not (tmp_path / "out").exists()
