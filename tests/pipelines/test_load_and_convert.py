"""Coders of other libraries by folder, file and name, and coders written for them; small ones that are made here."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import unweave
from unweave.coders import Origin, Port, Wiring
from unweave.coders.topk import TopK, TopKConfig
from unweave.errors import UserError
from unweave.formats.native import write_coder
from unweave.pipelines.convert import convert
from unweave.pipelines.load import load_all

GOLDEN = Path(__file__).parents[1] / "formats" / "dictionaries" / "golden"
X = torch.randn(63, 12, generator=torch.Generator().manual_seed(63))


@pytest.fixture
def coder() -> TopK:
    coder = TopK(TopKConfig(n_latents=40, k=5), Wiring.sae(12, "layers.1.resid_post"))
    torch.nn.init.normal_(coder.b_dec)
    coder.origin = Origin("some/model")
    return coder


@pytest.fixture
def transcoders(tmp_path: Path) -> Path:
    """A set of two, as circuit-tracer reads them."""
    folder = tmp_path / "set"
    folder.mkdir()
    for layer in range(2):
        tensors = {"W_enc": torch.randn(20, 12), "W_dec": torch.randn(20, 12), "b_enc": torch.randn(20)}
        save_file(tensors | {"b_dec": torch.randn(12)}, folder / f"layer_{layer}.safetensors")
    hooks = "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    (folder / "config.yaml").write_text(f"model_name: some/model\nmodel_kind: transcoder_set\n{hooks}")
    return folder


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return bool(torch.allclose(one(X), other(X), rtol=0, atol=1e-5))


@pytest.mark.parametrize("to", ["saelens", "sparsify", "dictionary_learning", "unweave"])
def test_a_coder_that_was_converted_is_the_same_and_knows_its_site(coder: TopK, tmp_path: Path, to: str) -> None:
    out = tmp_path / "out"
    (folder,) = convert({"mine": coder}, out, to)
    assert folder == out
    read = unweave.load(out, model="some/model", site="layers.1.resid_post")
    assert same(read, coder)
    assert (read.site, read.origin) == ("layers.1.resid_post", Origin("some/model"))


def test_a_transformer_lens_name_becomes_ours(coder: TopK, tmp_path: Path) -> None:
    convert({"mine": coder}, tmp_path / "out", "saelens")
    config = json.loads((tmp_path / "out/cfg.json").read_text())
    assert config["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
    assert unweave.load(tmp_path / "out").site == "layers.1.resid_post"


def test_a_set_is_loaded_whole_or_one_by_one(transcoders: Path, tmp_path: Path) -> None:
    found = load_all(transcoders)
    assert list(found) == ["layers.0", "layers.1"]
    one = unweave.load(transcoders, "layers.1")
    assert one.wiring.reads == (Port("layers.1.resid_mid", 12),)
    assert one.wiring.writes == (Port("layers.1.mlp_out", 12),)
    assert same(one, found["layers.1"]) and not same(one, found["layers.0"])
    folders = convert(found, tmp_path / "ours")
    assert [folder.name for folder in folders] == ["layers.0", "layers.1"]
    assert same(unweave.load(tmp_path / "ours/layers.1"), one)


@pytest.mark.parametrize("which", ["", "layers.7"])
def test_one_of_several_has_to_be_named(transcoders: Path, which: str) -> None:
    with pytest.raises(UserError, match=r"layers\.0, layers\.1"):
        unweave.load(transcoders, which)


def test_what_the_caller_says_wins_over_the_files(coder: TopK, tmp_path: Path) -> None:
    write_coder(tmp_path / "mine", coder)
    moved = unweave.load(tmp_path / "mine", model="other/model", site="blocks.0.hook_mlp_out")
    assert (moved.site, moved.origin) == ("layers.0.mlp_out", Origin("other/model"))


def test_nothing_is_overwritten(coder: TopK, tmp_path: Path) -> None:
    convert({"mine": coder}, tmp_path / "out", "saelens")
    with pytest.raises(UserError, match="exists; give a new folder"):
        convert({"mine": coder}, tmp_path / "out", "saelens")


def test_a_coder_of_no_known_site_is_not_written(coder: TopK, tmp_path: Path) -> None:
    coder.wiring = Wiring.sae(12)
    with pytest.raises(UserError, match="which site the coder belongs to; give --site"):
        convert({"mine": coder}, tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nothing-here", r"there is nothing at"),
        ("gemma-scope-2b-pt-ress/layer_0", r"did you mean 'gemma-scope-2b-pt-res'"),
        ("no-such-thing-at-all", r"no-such-thing-at-all"),
    ],
)
def test_what_is_nowhere_is_an_error_in_one_line(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        unweave.load(source)
    assert "\n" not in str(error.value)


def test_a_folder_that_holds_no_dictionary_says_which_formats_are_known(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UserError, match=r"no dictionary of a known format \(.*saelens"):
        unweave.load(tmp_path)
    with pytest.raises(UserError, match="unknown format 'saelen'"):
        unweave.load(tmp_path, format="saelen")


@pytest.mark.parametrize("to", ["saelens", "unweave"])
def test_whether_texts_began_with_a_token_of_their_own_is_kept(
    coder: TopK, gpt2: unweave.LanguageModel, tmp_path: Path, to: str
) -> None:
    coder.origin = Origin("some/model", prepend_bos=False)
    convert({"mine": coder}, tmp_path / "out", to)
    read = unweave.load(tmp_path / "out")
    assert read.origin == coder.origin
    text = "A weaver ties the warp"
    with_bos, without = gpt2.tokens(text), gpt2.tokens(text, prepend_bos=read.origin.prepend_bos)
    assert with_bos[0, 0] == gpt2.tokenizer.bos_token_id
    assert torch.equal(with_bos[:, 1:], without)


def test_what_a_release_says_of_its_config_is_put_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the hub, made by hand, with a coder whose config does not say that rows are normed."""
    snapshots = tmp_path / "models--JoshEngels--Mistral-7B-Residual-Stream-SAEs"
    folder = snapshots / "snapshots" / "abc" / "mistral_7b_layer_16"
    shutil.copytree(GOLDEN / "saelens" / "theirs" / "standard", folder)
    (snapshots / "refs").mkdir()
    (snapshots / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = unweave.load("mistral-7b-res-wg/blocks.16.hook_resid_pre")
    assert unweave.load(folder).wiring.row_norm == "none"
    assert found.wiring.row_norm == "sqrt_width"
    assert found.origin == Origin("mistralai/Mistral-7B-v0.1")


@pytest.mark.parametrize("to", ["saelens", "unweave"])
def test_a_coder_of_sequences_is_the_same_when_it_was_converted(tmp_path: Path, to: str) -> None:
    published = GOLDEN / "temporal_saes" / "theirs" / "temporalSAEs" / "gemma-2-2B" / "layer_12" / "temporal"
    before = unweave.load(published)
    convert({"mine": before}, tmp_path / "out", to)
    after = unweave.load(tmp_path / "out")
    assert after.origin == before.origin == Origin("google/gemma-2-2b")
    assert after.site == before.site == "layers.12.resid_post"
    x = torch.randn(3, 7, 6)
    torch.testing.assert_close(after.encode(x).dense(), before.encode(x).dense())
    torch.testing.assert_close(after(x), before(x))
