# pyright: reportMissingImports=false
"""sparsify's own coders as cases: every activation, transcoders, skip connections, seeds and sizes by factor."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from cases import LATENTS, WIDTH, Found, Library, batches, main, rows, save_expected, stir
from torch import Tensor, nn
from torch.utils.data import Dataset

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # read when sparsify is imported
from sparsify import SparseCoder, SparseCoderConfig, TrainConfig
from sparsify.trainer import Trainer

CASES: dict[str, dict[str, Any]] = {
    "topk": {"num_latents": LATENTS, "k": 4},
    "multi_topk": {"num_latents": LATENTS, "k": 3, "multi_topk": True},
    "expansion_factor": {"expansion_factor": 2, "k": 4},
    "groupmax": {"num_latents": 15, "k": 5, "activation": "groupmax"},
    "skip": {"num_latents": LATENTS, "k": 4, "skip_connection": True},
    "transcode": {"num_latents": LATENTS, "k": 4, "transcode": True},
    "skip_transcode": {"num_latents": LATENTS, "k": 4, "transcode": True, "skip_connection": True},
    "groupmax_transcode": {"num_latents": 15, "k": 5, "activation": "groupmax", "transcode": True},
}


def make(folder: Path) -> None:
    for number, (name, settings) in enumerate(CASES.items()):
        coder = SparseCoder(WIDTH, SparseCoderConfig(**settings))
        stir(coder, number)
        _save(folder / name, "layers.3.mlp" if "transcode" in name else "layers.3", coder)
    coder = SparseCoder(WIDTH, SparseCoderConfig(num_latents=LATENTS, k=4))
    stir(coder, 20)
    _save(folder / "seed", "layers.3/seed1", coder)
    _make_signed(folder / "signed")


def train(folder: Path, steps: int) -> None:
    """Coders that sparsify's own trainer trained on ready rows."""
    for name, settings in CASES.items():
        config = TrainConfig(
            SparseCoderConfig(**settings),
            batch_size=1,
            optimizer="adam",
            lr=3e-3,
            lr_warmup_steps=2,
            hookpoints=["rows"],
            save_every=10**9,
            log_to_wandb=False,
        )
        data = batches(steps + 2, WIDTH)
        trainer = Trainer(config, _Tokens(steps, data[0].shape[0]), _ReadyRows(iter(data * 2)))  # pyright: ignore
        trainer.save = lambda: None
        trainer.fit()
        _save(folder / name, "layers.3.mlp" if "transcode" in name else "layers.3", trainer.saes["rows"])


def run(case: Path, x_BD: Tensor) -> Found:
    (weights,) = case.glob("**/sae.safetensors")
    return _run(SparseCoder.load_from_disk(weights.parent), x_BD)


def _save(case: Path, hookpoint: str, coder: Any) -> None:
    coder.save_to_disk(case / hookpoint)
    (case / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-70m", "ctx_len": 128}))
    x_BD = rows(coder.d_in)
    save_expected(case, x_BD, run(case, x_BD))


def _make_signed(case: Path) -> None:
    """Signed TopK, which an older version had: the k largest magnitudes, with their signs and without the relu."""
    coder = SparseCoder(WIDTH, SparseCoderConfig(num_latents=LATENTS, k=4))
    stir(coder, 30)
    coder.save_to_disk(case / "layers.3")
    config = json.loads((case / "layers.3" / "cfg.json").read_text()) | {"signed": True}
    (case / "layers.3" / "cfg.json").write_text(json.dumps(config))
    x_BD = rows()
    with torch.no_grad():
        pre_BL = coder.encoder(x_BD - coder.b_dec)
        ids_BK = pre_BL.abs().topk(4, dim=1).indices
        codes_BL = torch.zeros_like(pre_BL).scatter(1, ids_BK, pre_BL.gather(1, ids_BK))
        save_expected(case, x_BD, Found(codes_BL, codes_BL @ coder.W_dec + coder.b_dec))


@torch.no_grad()
def _run(coder: Any, x_BD: Tensor) -> Found:
    found = coder.encode(x_BD)
    codes_BL = torch.zeros(len(x_BD), coder.num_latents).scatter_add(1, found.top_indices, found.top_acts)
    if coder.cfg.multi_topk:  # then what forward returns is decoded from 4 k latents, which only its loss is meant for
        return Found(codes_BL, coder.decode(found.top_acts, found.top_indices))
    return Found(codes_BL, coder(x_BD).sae_out)


class _ReadyRows(nn.Module):
    """What the trainer needs of a language model: one hookpoint whose output is the next batch."""

    def __init__(self, data: Iterator[Tensor]) -> None:
        super().__init__()
        self.rows = _NextBatch(data)
        self.dummy_inputs = {"input_ids": torch.zeros(1, 8, dtype=torch.long)}
        self.device = torch.device("cpu")

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.rows(next(self.rows.data)[None])


class _NextBatch(nn.Module):
    """A module that reads rows and writes them turned about, so that a transcoder has something to learn."""

    def __init__(self, data: Iterator[Tensor]) -> None:
        super().__init__()
        self.data = data

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(1, dims=-1)


class _Tokens(Dataset[dict[str, Tensor]]):
    def __init__(self, count: int, length: int) -> None:
        self.count, self.tokens = count, torch.zeros(length, dtype=torch.long)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens}


if __name__ == "__main__":
    main(Library(make, train, run))
