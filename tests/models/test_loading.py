import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from unweave.errors import UserError
from unweave.models.language_model import LanguageModel


@pytest.fixture
def folder(model_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the GPT-2 folder that a test may damage."""
    return Path(shutil.copytree(model_folders["gpt2"], tmp_path / "copy"))


def test_a_loaded_model_is_the_model_that_was_saved(
    model_folders: dict[str, Path], gpt2: LanguageModel, tokens: Tensor
) -> None:
    plain = GPT2LMHeadModel.from_pretrained(model_folders["gpt2"]).eval()
    with torch.no_grad():
        assert torch.equal(gpt2.logits(tokens), plain(input_ids=tokens).logits)
    assert gpt2.name == str(model_folders["gpt2"])


def test_a_loaded_model_is_in_use_mode_and_needs_no_gradients(lm: LanguageModel) -> None:
    assert not lm.model.training
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert {parameter.dtype for parameter in lm.model.parameters()} == {torch.float32}
    assert lm.device == torch.device("cpu")


def test_a_tokenizer_comes_with_the_model_and_gives_the_text_back(lm: LanguageModel, reader: str) -> None:
    ids = lm.tokenizer(reader, add_special_tokens=False)["input_ids"]
    assert max(ids) < lm.n_vocabulary
    assert lm.tokenizer.decode(ids) == reader


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_is_loaded_in_the_precision_asked_for(
    model_folders: dict[str, Path], tokens: Tensor, dtype: str
) -> None:
    half = LanguageModel.load(model_folders["gpt2"], dtype=dtype)
    site = "layers.1.resid_post"
    assert half.capture(tokens, [site])[site].dtype == getattr(torch, dtype)


def test_an_unknown_precision_is_refused(model_folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="dtype must be float32, bfloat16 or float16, got 'float64'"):
        LanguageModel.load(model_folders["gpt2"], dtype="float64")


def test_a_folder_without_a_tokenizer_gives_a_model_without_one(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()
    assert LanguageModel.load(folder).tokenizer is None


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c"])
def test_a_folder_that_does_not_exist_is_an_error(name: str) -> None:
    with pytest.raises(UserError, match=rf"there is no model folder '{name}'"):
        LanguageModel.load(name)


def test_a_file_is_not_a_model_folder(folder: Path) -> None:
    with pytest.raises(UserError, match="there is no model folder"):
        LanguageModel.load(folder / "config.json")


def test_an_unknown_embedded_model_is_an_error_with_the_near_name() -> None:
    with pytest.raises(UserError, match="there is no embedded model 'builtin:pyml'; did you mean 'builtin:pylm'"):
        LanguageModel.load("builtin:pyml")


def test_a_folder_without_a_config_is_an_error(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config\.json"):
        LanguageModel.load(folder)


def test_a_config_that_is_not_json_is_an_error(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="cannot load a language model from"):
        LanguageModel.load(folder)


def test_a_kind_of_model_that_is_not_known_is_an_error(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "loom"}', encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot load a language model from.*loom"):
        LanguageModel.load(folder)


def test_a_folder_without_weights_is_an_error(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot load a language model from"):
        LanguageModel.load(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot load a language model from"):
        LanguageModel.load(folder)


@pytest.mark.parametrize("kept", [0, 7, 5000])
def test_weights_that_were_cut_off_are_an_error(folder: Path, kept: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(UserError, match="damaged"):
        LanguageModel.load(folder)


def test_weights_that_lack_a_tensor_are_an_error(folder: Path) -> None:
    """Otherwise the missing part is filled with random numbers, and nobody hears of it."""
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"transformer\.h\.1\.mlp\.c_fc\.weight|c_fc"):
        LanguageModel.load(folder)


def test_a_model_in_training_mode_is_put_in_use_mode_when_wrapped(folder: Path) -> None:
    plain = GPT2LMHeadModel.from_pretrained(folder).train()
    wrapped = LanguageModel(plain, None, "mine")
    assert wrapped.model is plain
    assert not any(module.training for module in plain.modules() if isinstance(module, nn.Module))
