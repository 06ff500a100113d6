"""Train the small language model that ships with the package, on the standard library's text.

    python tools/train_embedded_lm.py --minutes 60 --out unweave/models/embedded

A Llama-style model (4 layers, width 256, context 256) over a byte-level BPE of 4,096 tokens. Hidden matrices are
trained with Muon (Jordan et al. 2024), embeddings and norms with AdamW. The learning rate follows the share of the time
budget that is spent (warm-up, plateau, linear decay over the last 40 %), so the same script makes the best model that
ten minutes on a GPU or an hour on two CPU cores allow. Modules that ``is_held_out`` names are never read here
except to report bits per byte beside unigram and interpolated bigram baselines over the same tokens.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unweave.formats.stdlib_corpus import is_held_out, stdlib_documents
from unweave.types import Document

BOS = "<|bos|>"
CONTEXT = 256
VOCABULARY = 4096
PROMPTS = ["def __init__(self, ", "import os\n", "class TestCase(unittest.", '"""Return the ', "for i in range("]


def train_tokenizer(documents: list[Document]) -> Tokenizer:
    """A byte-level BPE with no unknown token; `<|bos|>` is id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[Document]) -> list[np.ndarray]:
    """One array of token ids per document, the beginning-of-text token in front."""
    encoded = tokenizer.encode_batch([document.text for document in documents], add_special_tokens=False)
    return [np.array([0, *item.ids], dtype=np.int32) for item in encoded]


class RowSampler:
    """Rows of `<|bos|>` and 255 consecutive tokens: each epoch cuts the shuffled documents at a new offset."""

    def __init__(self, documents: list[np.ndarray], seed: int) -> None:
        self.documents = documents
        self.random = random.Random(seed)
        self.rows = np.empty((0, CONTEXT), dtype=np.int32)
        self.next_row = 0
        self.epochs = 0

    def batch(self, size: int) -> torch.Tensor:
        while self.next_row + size > len(self.rows):
            self._shuffle()
        rows = self.rows[self.next_row : self.next_row + size]
        self.next_row += size
        return torch.from_numpy(rows).long()

    def _shuffle(self) -> None:
        order = self.random.sample(range(len(self.documents)), len(self.documents))
        stream = np.concatenate([self.documents[i] for i in order])[self.random.randrange(CONTEXT) :]
        stream = stream[: len(stream) // (CONTEXT - 1) * (CONTEXT - 1)].reshape(-1, CONTEXT - 1)
        rows = np.concatenate([np.zeros((len(stream), 1), dtype=np.int32), stream], axis=1)
        self.rows = rows[np.random.default_rng(self.random.randrange(2**32)).permutation(len(rows))]
        self.next_row = 0
        self.epochs += 1


def new_model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config)


def rate_at(spent: float) -> float:
    """The factor on the learning rates when this share of the budget is spent."""
    return min(1.0, spent / 0.01 + 0.05, max(0.0, (1.0 - spent) / 0.4))


def train(model: LlamaForCausalLM, sampler: RowSampler, minutes: float, batch: int, out: Path, save) -> dict:
    device = next(model.parameters()).device
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(hidden, lr=0.02, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    start = saved = time.time()
    step, losses = 0, []
    model.train()
    while (spent := (time.time() - start) / (60 * minutes)) < 1.0:
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate_at(spent)
        tokens = sampler.batch(batch).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        losses.append(loss.detach())
        if step % 50 == 0:
            mean = torch.stack(losses).mean().item()
            losses.clear()
            print(f"{spent:6.1%}  step {step}  loss {mean:.3f}  epoch {sampler.epochs}", flush=True)
        if time.time() - saved > 600:
            save(out)
            saved = time.time()
    return {"steps": step, "tokens": step * batch * CONTEXT, "epochs": sampler.epochs, "minutes": minutes}


@torch.no_grad()
def bits_per_byte(model: LlamaForCausalLM, documents: list[np.ndarray], n_bytes: int) -> tuple[float, float]:
    """Bits per byte and nats per token; every held-out token once, with at least half a context behind it."""
    device = next(model.parameters()).device
    model.eval()
    nats, n_tokens, stride = 0.0, 0, CONTEXT // 2
    windows = []
    for document in documents:
        windows.append((document[:CONTEXT], 1))
        for start in range(CONTEXT, len(document), stride):
            piece = document[start - (CONTEXT - stride - 1) : start + stride]
            windows.append((np.concatenate([[0], piece]), CONTEXT - stride))
    windows.sort(key=lambda window: (len(window[0]), window[1]))
    while windows:
        size, first = len(windows[0][0]), windows[0][1]
        group = [w for w in windows[:32] if len(w[0]) == size and w[1] == first]
        windows = windows[len(group) :]
        tokens = torch.from_numpy(np.stack([w[0] for w in group])).long().to(device)
        logits = model(input_ids=tokens, use_cache=False).logits[:, first - 1 : -1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, first:].flatten(), reduction="sum")
        nats += loss.item()
        n_tokens += tokens[:, first:].numel()
    assert n_tokens == sum(len(document) - 1 for document in documents), (n_tokens,)
    return nats / math.log(2) / n_bytes, nats / n_tokens


def baseline_bits(train_docs: list[np.ndarray], held_out: list[np.ndarray], n_bytes: int) -> dict[str, Any]:
    """Held-out bits per byte of a unigram and an interpolated bigram model of the same tokens.

    Jelinek-Mercer: p = w2 c(ab)/c(a) + w1 c(b)/n + w0/V; the weights that are best on every 20th training document.
    """
    tuning, fitting = train_docs[::20], [doc for i, doc in enumerate(train_docs) if i % 20]
    unigram = np.bincount(np.concatenate([doc[1:] for doc in fitting]), minlength=VOCABULARY)
    pairs = np.zeros((VOCABULARY, VOCABULARY), dtype=np.float32)
    for doc in fitting:
        np.add.at(pairs, (doc[:-1], doc[1:]), 1)
    after = pairs.sum(1)

    def nats(docs: list[np.ndarray], w2: float, w1: float) -> float:
        total = 0.0
        for doc in docs:
            a, b = doc[:-1], doc[1:]
            bigram = np.divide(pairs[a, b], after[a], out=np.zeros(len(a), np.float32), where=after[a] > 0)
            total -= np.log(w2 * bigram + w1 * unigram[b] / unigram.sum() + (1 - w2 - w1) / VOCABULARY).sum()
        return total

    weights = [(w2, w1) for w2 in (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95) for w1 in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)]
    w2, w1 = min((w for w in weights if sum(w) < 1), key=lambda w: nats(tuning, *w))
    bits = math.log(2) * n_bytes
    return {
        "unigram_bits_per_byte": float(nats(held_out, 0.0, 0.999) / bits),
        "bigram_bits_per_byte": float(nats(held_out, w2, w1) / bits),
        "bigram_weights": [w2, w1],
    }


@torch.no_grad()
def sample(model: Any, tokenizer: Tokenizer, prompt: str, n_tokens: int = 120) -> str:
    device = next(model.parameters()).device
    ids = torch.tensor([[0, *tokenizer.encode(prompt, add_special_tokens=False).ids]], device=device)
    out = model.generate(ids, max_new_tokens=n_tokens, do_sample=True, temperature=0.7, top_k=50, eos_token_id=None)
    return tokenizer.decode(out[0].tolist(), skip_special_tokens=True)


def save_folder(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """A standard Hugging Face folder with weights in half precision."""
    out.mkdir(parents=True, exist_ok=True)
    half = new_model().half()
    half.load_state_dict({name: p.half().cpu() for name, p in model.state_dict().items()})
    half.save_pretrained(out)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS, model_max_length=CONTEXT
    ).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=32, help="rows of 256 tokens per step")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("unweave/models/embedded"))
    args = parser.parse_args()
    torch.manual_seed(0)

    documents = stdlib_documents()
    train_docs = [d for d in documents if not is_held_out(d.name)]
    held_out = [d for d in documents if is_held_out(d.name)]
    tokenizer = train_tokenizer(train_docs)
    train_ids, held_out_ids = encode(tokenizer, train_docs), encode(tokenizer, held_out)
    n_bytes = sum(len(d.text.encode()) for d in held_out)
    print(f"{len(train_docs)} documents to train on, {sum(map(len, train_ids)):,} tokens", flush=True)
    print(f"{len(held_out)} held out, {sum(map(len, held_out_ids)):,} tokens, {n_bytes:,} bytes", flush=True)
    baselines = baseline_bits(train_ids, held_out_ids, n_bytes)
    print(json.dumps(baselines), flush=True)

    model = new_model().to(args.device)
    save = lambda out: save_folder(model, tokenizer, out)  # noqa: E731
    report = train(model, RowSampler(train_ids, seed=0), args.minutes, args.batch, args.out, save)
    save(args.out)

    shipped = LlamaForCausalLM.from_pretrained(args.out, dtype=torch.float32).to(args.device)
    bits, nats = bits_per_byte(shipped, held_out_ids, n_bytes)
    report |= {"device": args.device, "parameters": sum(p.numel() for p in shipped.parameters())}
    report |= {"held_out_documents": len(held_out), "held_out_bytes": n_bytes, **baselines}
    report |= {"model_bits_per_byte": bits, "nats_per_token": nats}
    report["better_than_bigram"] = 1 - bits / baselines["bigram_bits_per_byte"]
    report["samples"] = [sample(shipped, tokenizer, prompt) for prompt in PROMPTS]
    (args.out / "training_report.json").write_text(json.dumps(report, indent=2))
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
