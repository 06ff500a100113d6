"""A model that transformers places on the devices at hand is read and edited as one that we place is."""

from pathlib import Path

import pytest
import torch

from unweave.errors import UserError
from unweave.models.language_model import LanguageModel

SITES = ["layers.0.resid_mid", "layers.1.mlp.post", "layers.2.resid_post"]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_is_captured_and_said_is_the_same(model_folders: dict[str, Path], family: str) -> None:
    plain = LanguageModel.load(model_folders[family])
    spread = LanguageModel.load(model_folders[family], spread="devices")
    tokens = torch.randint(0, plain.n_vocabulary, (3, 17))
    for site, x in plain.capture(tokens, SITES).items():
        assert torch.equal(spread.capture(tokens, SITES)[site], x), site
    with plain.patch({SITES[0]: torch.zeros_like}), spread.patch({SITES[0]: torch.zeros_like}):
        assert torch.equal(spread.logits(tokens), plain.logits(tokens))


def test_without_accelerate_it_is_said_what_to_install(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"model.spread needs accelerate; pip install 'unweave\[large\]'"):
        LanguageModel.load(model_folders["gpt2"], spread="devices")
