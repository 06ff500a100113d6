"""Whole training runs, from text to finished coder: tokens per second of unweave, live or from a cache, and of SAELens.

python -m benchmarks.end_to_end --peers /path/to/peers/bin/python --json rows.json

Every library runs the same model (GPT-2's layout, 4 blocks of width 256), reads the same text in the same contexts and
trains the same TopK coder; what is timed is the training, from its first token to the finished coder, without loading
libraries and model. Runs of the libraries alternate, each in a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.worker import PEERS, Worker
from unweave.formats.stdlib_corpus import is_held_out, stdlib_documents
from unweave.models.language_model import EMBEDDED, LanguageModel

SHAPE = {
    "d_model": 256,
    "n_latents": 4096,
    "k": 32,
    "block": 1,
    "context": 256,
    "sequences": 32,
    "rows": 200_000,
    "batch": 2048,
    "buffer": 65_536,
    "lr": 1e-3,
}


def main() -> None:
    told = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        SHAPE.update(rows=told.rows, sequences=told.sequences)
        _write_inputs(folder)
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for _ in range(told.rounds):
            for (library, source), command in _commands(told, folder).items():
                with Worker(command) as worker:
                    found.setdefault((library, source), []).append(worker.answer())
        rows = [_row(library, source, answers, told.rows) for (library, source), answers in found.items()]
    _print(rows)
    if told.json:
        told.json.write_text(json.dumps(rows, indent=1))


def _write_inputs(folder: Path) -> None:
    """A model, a text as JSON lines, recipes, a cache of the text's activations, and held-out rows."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokenizer = LanguageModel.load(EMBEDDED).tokenizer
    assert tokenizer is not None
    config = GPT2Config(
        vocab_size=4096, n_positions=256, n_embd=SHAPE["d_model"], n_layer=4, n_head=4, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    documents = stdlib_documents()
    train = [json.dumps({"text": document.text}) for document in documents if not is_held_out(document.name)]
    (folder / "text.jsonl").write_text("\n".join(train))
    (folder / "wanted.json").write_text(json.dumps(SHAPE))
    recipe = _recipe(folder)
    (folder / "live.json").write_text(json.dumps(recipe))
    (folder / "cached.json").write_text(json.dumps(recipe | {"cache": str(folder / "cache")}))
    _harvest(folder, recipe)
    lm = LanguageModel.load(str(folder / "model"), device="cpu", dtype="float32")
    heldout = "\n".join(document.text for document in documents if is_held_out(document.name))
    token_ids = torch.tensor(tokenizer(heldout)["input_ids"][: 64 * 255]).view(64, 255)
    token_ids = torch.nn.functional.pad(token_ids, (1, 0))
    rows = lm.capture(token_ids, [recipe["site"]])[recipe["site"]][:, 1:].flatten(0, 1)
    save_file({"rows": rows.contiguous()}, folder / "heldout.safetensors")


def _recipe(folder: Path) -> dict[str, Any]:
    return {
        "site": f"layers.{SHAPE['block']}.resid_post",
        "model": {"name": str(folder / "model"), "device": "cpu", "sequences": SHAPE["sequences"]},
        "text": {"source": str(folder / "text.jsonl")},
        "packing": {"context": SHAPE["context"]},
        "coder": {"type": "topk", "n_latents": SHAPE["n_latents"], "k": SHAPE["k"]},
        "training": {key: SHAPE[key] for key in ("rows", "batch", "buffer", "lr")},
    }


def _harvest(folder: Path, recipe: dict[str, Any]) -> None:
    import tomli_w

    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe))
    command = [sys.executable, "-m", "unweave.cli.main", "harvest", str(folder / "recipe.toml")]
    subprocess.run([*command, "--out", str(folder / "cache"), "--quiet"], check=True, stdout=subprocess.DEVNULL)


def _commands(told: argparse.Namespace, folder: Path) -> dict[tuple[str, str], list[str | Path]]:
    heldout = ["--heldout", folder / "heldout.safetensors"]
    ours = [sys.executable, "-m", "benchmarks.unweave_end_to_end", *heldout, "--recipe"]
    commands: dict[tuple[str, str], list[str | Path]] = {
        ("unweave", "live"): [*ours, folder / "live.json"],
        ("unweave", "cache"): [*ours, folder / "cached.json"],
    }
    if told.peers:
        inputs = ["--model", folder / "model", "--texts", folder / "text.jsonl", "--wanted", folder / "wanted.json"]
        script = PEERS / "saelens_end_to_end.py"
        commands["sae-lens", "live"] = [told.peers, script, *inputs, *heldout]
    return commands


def _row(library: str, source: str, answers: list[dict[str, Any]], n_rows: int) -> dict[str, Any]:
    speeds = [n_rows / answer["seconds"] for answer in answers]
    return {
        "library": library,
        "source": source,
        "tokens_per_s": statistics.median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "peak_mb": statistics.median(answer["peak_bytes"] for answer in answers) / 2**20,
        "explained_variance": statistics.median(answer["explained_variance"] for answer in answers),
    }


def _print(rows: list[dict[str, Any]]) -> None:
    print(f"{'library':10}{'source':8}{'tokens/s':>10}{'range':>18}{'peak MiB':>10}{'EV':>8}{'ratio':>8}")
    peer = next((row for row in rows if row["library"] != "unweave"), None)
    for row in rows:
        span = f"{row['slowest']:,.0f} to {row['fastest']:,.0f}"
        ratio = f"{row['tokens_per_s'] / peer['tokens_per_s']:.2f}" if peer else ""
        print(
            f"{row['library']:10}{row['source']:8}{row['tokens_per_s']:>10,.0f}{span:>18}{row['peak_mb']:>10,.0f}"
            f"{row['explained_variance']:>8.3f}{ratio:>8}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python of the environment that holds the peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200_000, help="tokens to train on")
    parser.add_argument("--sequences", type=int, default=32, help="sequences that the model is given at once")
    parser.add_argument("--json", type=Path, help="where to write all rows")
    return parser.parse_args()


if __name__ == "__main__":
    main()
