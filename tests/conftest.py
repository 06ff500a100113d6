"""What many tests share: fixed seeds, random codes, and tiny models of three families with a tokenizer, on disk."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported, which torch and transformers may do

import numba
import pytest
import torch
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from unweave.models.language_model import LanguageModel
from unweave.types import Codes

CONTEXT = 63
"""The longest sequence of the tiny models."""

READER = """
A weaver ties the warp to the beam, then passes the weft over and under, over and under, until there is cloth.
To unweave it, she pulls one thread at a time and sees what it held together: here a stripe, there a border.
Seven threads made 63 knots; a hundred knots made the bird in the corner. Überraschend: naïve knots hold best!
def unweave(cloth): return [thread for thread in cloth.threads if thread.is_loose()]
"""
"""A text to train the tiny tokenizer on, and to read in tests."""

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
"""Empty where there is none."""

SET_SEED = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
"""``torch.manual_seed`` keeps a stack trace for a GPU that may come yet, which takes longer than many a test."""

settings.register_profile("fixed", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("fixed")
numba.set_num_threads(1)
torch.set_num_threads(1)  # with two, every tiny operation waits for a thread that another program keeps busy
logging.disable_progress_bar()


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    SET_SEED(7)


@pytest.fixture(scope="session")
def reader() -> str:
    return READER


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no chromium on PATH; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def make_codes() -> Callable[..., Codes]:
    """Codes of a random or given mask, built row by row without the package's own selection."""

    def make(n_rows: int, n_latents: int, share: float = 0.1, mask: Tensor | None = None) -> Codes:
        if mask is None:
            mask = torch.rand(n_rows, n_latents) < share
        latents = [torch.tensor([i for i in range(n_latents) if mask[b, i]], dtype=torch.int64) for b in range(n_rows)]
        offsets = [0]
        for row in latents:
            offsets.append(offsets[-1] + len(row))
        values = torch.randn(offsets[-1], dtype=torch.float64)
        return Codes(values, torch.cat(latents), torch.tensor(offsets), n_latents)

    return make


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Hugging Face folders of three tiny random models, by family."""
    torch.manual_seed(100)
    folders = {}
    for family, build in {"gpt2": _gpt2, "gpt_neo": _gpt_neo, "llama": _llama}.items():
        tokenizer = _byte_level_tokenizer()
        model = build(len(tokenizer), tokenizer.eos_token_id).eval()
        _stir(model)
        folders[family] = tmp_path_factory.mktemp(family)
        model.save_pretrained(folders[family])
        tokenizer.save_pretrained(folders[family])
    return folders


@pytest.fixture(scope="session")
def language_models(model_folders: dict[str, Path]) -> dict[str, LanguageModel]:
    return {family: LanguageModel.load(folder) for family, folder in model_folders.items()}


@pytest.fixture(params=["gpt2", "gpt_neo", "llama"])
def lm(request: pytest.FixtureRequest, language_models: dict[str, LanguageModel]) -> Iterator[LanguageModel]:
    """Each tiny model in turn; fails where a test leaves a hook of ours behind (transformers has its own)."""
    model = language_models[request.param]
    yield model
    left = []
    for name, module in model.model.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        left += [name for hook in hooks if not hook.__module__.startswith("transformers.")]
    assert not left, f"hooks were left on {left}"


@pytest.fixture(scope="session")
def gpt2(language_models: dict[str, LanguageModel]) -> LanguageModel:
    return language_models["gpt2"]


@pytest.fixture
def tokens(gpt2: LanguageModel) -> Tensor:
    """Two sequences of nine tokens; all tiny models have the same vocabulary."""
    generator = torch.Generator().manual_seed(63)
    return torch.randint(gpt2.n_vocabulary, (2, 9), generator=generator)


def _gpt2(n_vocabulary: int, eos: int) -> PreTrainedModel:
    shape = {"n_layer": 3, "n_embd": 28, "n_head": 4, "n_inner": 100, "n_positions": CONTEXT}
    return GPT2LMHeadModel(GPT2Config(vocab_size=n_vocabulary, **shape, bos_token_id=eos, eos_token_id=eos))


def _gpt_neo(n_vocabulary: int, eos: int) -> PreTrainedModel:
    kinds = [[["global", "local"], 1], [["local"], 1]]
    shape = {"num_layers": 3, "hidden_size": 28, "num_heads": 4, "intermediate_size": 100, "window_size": 3}
    config = GPTNeoConfig(
        vocab_size=n_vocabulary,
        **shape,
        attention_types=kinds,
        max_position_embeddings=CONTEXT,
        bos_token_id=eos,
        eos_token_id=eos,
    )
    return GPTNeoForCausalLM(config)


def _llama(n_vocabulary: int, eos: int) -> PreTrainedModel:
    shape = {"num_hidden_layers": 3, "hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(
        vocab_size=n_vocabulary,
        **shape,
        intermediate_size=50,
        max_position_embeddings=CONTEXT,
        bos_token_id=eos,
        eos_token_id=eos,
    )
    return LlamaForCausalLM(config)


def _stir(model: PreTrainedModel) -> None:
    """Weights large enough that every site matters, norms and biases that are not 1 and 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.3 * torch.randn_like(parameter))


def _byte_level_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([READER], trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end)
