# pyright: reportMissingImports=false
"""A whole training run of SAELens: text, model, buffer and coder, by its own runner.

Says how long ``runner.run()`` took, its memory, and how much of held-out rows the finished coder explains.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import sae_lens
import torch
from datasets import Dataset
from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig, TopKTrainingSAEConfig
from sae_lens.llm_sae_training_runner import LanguageModelSAETrainingRunner
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import AutoTokenizer, GPT2LMHeadModel
from turns import Driver, leave_at_once, memory


def main() -> None:
    driver = Driver()
    parser = argparse.ArgumentParser()
    for name in ("model", "texts", "heldout", "wanted"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    told = parser.parse_args()
    wanted = json.loads(told.wanted.read_text())
    texts = [json.loads(line)["text"] for line in told.texts.read_text().splitlines()]
    driver.introduce(library="sae-lens", version=sae_lens.__version__)
    torch.manual_seed(0)
    model = _hooked(told.model)
    with tempfile.TemporaryDirectory() as folder:
        runner = LanguageModelSAETrainingRunner(
            _config(wanted, Path(folder)), override_dataset=Dataset.from_dict({"text": texts}), override_model=model
        )
        started = time.perf_counter()
        sae = runner.run()
        seconds = time.perf_counter() - started
    driver.say(
        {
            "seconds": seconds,
            "peak_bytes": memory("VmHWM"),
            "explained_variance": _explained(sae, load_file(told.heldout)["rows"]),
        }
    )
    leave_at_once()


def _hooked(folder: Path) -> HookedTransformer:
    """The model as TransformerLens has it, which is what SAELens is used with."""
    hf = GPT2LMHeadModel.from_pretrained(folder)
    own = hf.config
    config = HookedTransformerConfig(
        n_layers=own.n_layer,
        d_model=own.n_embd,
        n_ctx=own.n_positions,
        d_head=own.n_embd // own.n_head,
        n_heads=own.n_head,
        d_mlp=4 * own.n_embd,
        d_vocab=own.vocab_size,
        act_fn="gelu_new",
        normalization_type="LN",
        model_name="gpt2-style",
        device="cpu",
    )
    model = HookedTransformer(config, tokenizer=AutoTokenizer.from_pretrained(folder), default_padding_side="right")
    model.load_and_process_state_dict(
        convert_gpt2_weights(hf, config),
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model


def _config(wanted: dict[str, Any], folder: Path) -> LanguageModelSAERunnerConfig:
    return LanguageModelSAERunnerConfig(
        sae=TopKTrainingSAEConfig(d_in=wanted["d_model"], d_sae=wanted["n_latents"], k=wanted["k"]),
        model_name="gpt2-style",
        hook_name=f"blocks.{wanted['block']}.hook_resid_post",
        dataset_path="given",
        is_dataset_tokenized=False,
        streaming=False,
        context_size=wanted["context"],
        training_tokens=wanted["rows"],
        train_batch_size_tokens=wanted["batch"],
        store_batch_size_prompts=wanted["sequences"],
        n_batches_in_buffer=wanted["buffer"] // (wanted["sequences"] * wanted["context"]),
        exclude_special_tokens=True,
        lr=wanted["lr"],
        device="cpu",
        logger=LoggingConfig(log_to_wandb=False),
        checkpoint_path=str(folder / "checkpoints"),
        output_path=str(folder / "output"),
        verbose=False,
    )


@torch.no_grad()
def _explained(sae: Any, rows_BD: torch.Tensor) -> float:
    error = torch.cat([rows - sae.decode(sae.encode(rows)) for rows in rows_BD.split(2048)])
    return 1 - (error.square().sum() / (rows_BD - rows_BD.mean(0)).square().sum()).item()


if __name__ == "__main__":
    main()
