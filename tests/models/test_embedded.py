"""The language model that comes with the package: its size, its shape, and that it has learned its text."""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F

import unweave.models
from unweave.formats.stdlib_corpus import is_held_out, stdlib_documents
from unweave.models.language_model import LanguageModel
from unweave.models.tokens import PackingConfig, pack

FOLDER = Path(unweave.models.__path__[0]) / "embedded"


def test_it_is_a_small_standard_folder() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 12_000_000
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert (config["num_hidden_layers"], config["hidden_size"], config["max_position_embeddings"]) == (4, 256, 256)


def test_its_report_beats_the_bigram_by_a_quarter() -> None:
    report = json.loads((FOLDER / "training_report.json").read_text())
    assert report["model_bits_per_byte"] < 0.75 * report["bigram_bits_per_byte"]
    assert report["bigram_bits_per_byte"] < report["unigram_bits_per_byte"]


def test_on_held_out_modules_it_predicts_far_better_than_the_bigram_of_its_report() -> None:
    """A part of the held-out text, in packed sequences, measured anew."""
    model = LanguageModel.load("builtin:pylm")
    documents = [document for document in stdlib_documents() if is_held_out(document.name)]
    nats, n_bytes = 0.0, 0
    for i, batch in enumerate(pack(documents, model, PackingConfig(), 8)):
        logits, targets = model.logits(batch.token_ids)[:, 64:-1], batch.token_ids[:, 65:]
        nats += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        n_bytes += sum(len(text.encode()) for text in model.tokenizer.batch_decode(targets, skip_special_tokens=True))
        if i == 7:
            break
    report = json.loads((FOLDER / "training_report.json").read_text())
    assert nats / math.log(2) / n_bytes < 0.75 * report["bigram_bits_per_byte"]


def test_it_goes_on_like_python() -> None:
    model = LanguageModel.load("builtin:pylm")
    tokens = model.tokenizer("<|bos|>import os\nimport sys\n\ndef __init__", return_tensors="pt")["input_ids"]
    best = model.tokenizer.decode(model.logits(tokens)[0, -1].topk(3).indices)
    assert "(" in best
    assert torch.isfinite(model.logits(tokens)).all()
