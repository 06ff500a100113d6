# pyright: reportMissingImports=false
"""Steps of EleutherAI's sparsify (package eai-sparsify), taken by its own ``Trainer.fit`` for one hookpoint.

The trainer hooks a language model. Here the model is a module that hands out ready rows, so that a step is what the
trainer itself does between two token batches: the copies of its hook, forward pass with the FVU loss, backward pass,
gradient projection, Adam and its schedule, firing statistics, unit norms. Nothing is logged or saved.
"""

import os
from collections.abc import Iterator
from importlib.metadata import version

import torch
from prepared import Prepared, Shape, outcome, worker_arguments
from torch import Tensor, nn
from torch.utils.data import Dataset
from turns import Driver, Finished, Turns, leave_at_once


def main() -> None:
    driver = Driver()
    turns = Turns(driver)
    told = worker_arguments()
    if told.architecture != "topk":
        raise ValueError(f"sparsify trains topk only, got {told.architecture!r}")
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # read when sparsify is imported, hence the imports here
    from sparsify import SparseCoderConfig, TrainConfig
    from sparsify.trainer import Trainer

    shape, prepared = told.shape, Prepared.load(told.data)
    config = TrainConfig(
        SparseCoderConfig(num_latents=shape.L, k=shape.K),
        batch_size=1,
        optimizer=told.variant or "adam",
        # so low that the weights stay what they were prepared to be
        lr=1e-6,
        hookpoints=["rows"],
        # the trainer only asks whether it is set: then b_dec stays what it was prepared to be
        finetune="prepared",
        save_every=10**9,
        log_to_wandb=False,
    )
    model = ReadyRows(prepared.batches(shape), shape)
    trainer = Trainer(config, TokensOnRequest(turns, shape), model)  # pyright: ignore[reportArgumentType]
    coder = trainer.saes["rows"]
    with torch.no_grad():
        coder.encoder.weight.copy_(prepared.W_enc_LD)
        coder.W_dec.copy_(prepared.W_dec_LD)
        coder.b_dec.copy_(prepared.b_dec_D)
    driver.introduce(library="eai-sparsify", version=version("eai-sparsify"))
    try:
        trainer.fit()
    except Finished:
        turns.take_leave(lambda: _outcome(coder, prepared.rows_ND[: shape.B]))
    leave_at_once()


@torch.no_grad()
def _outcome(coder: nn.Module, x_BD: Tensor) -> dict[str, float]:
    out = coder(x_BD)
    return outcome(x_BD, out.sae_out, out.latent_acts)


class ReadyRows(nn.Module):
    """What the trainer needs of a language model: one hookpoint, "rows", whose output is the next batch."""

    def __init__(self, batches: Iterator[Tensor], shape: Shape) -> None:
        super().__init__()
        self.rows = NextBatch(batches)
        self.dummy_inputs = {"input_ids": torch.zeros(1, shape.B, dtype=torch.long)}
        self.device = torch.device("cpu")

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.rows(input_ids)


class NextBatch(nn.Module):
    def __init__(self, batches: Iterator[Tensor]) -> None:
        super().__init__()
        self.batches = batches

    def forward(self, input_ids: Tensor) -> Tensor:
        return next(self.batches)[None]


class TokensOnRequest(Dataset[dict[str, Tensor]]):
    """Sequences of as many tokens as a batch has rows; each waits for its turn."""

    def __init__(self, turns: Turns, shape: Shape) -> None:
        self.turns, self.tokens = turns, torch.zeros(shape.B, dtype=torch.long)

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self.turns.await_step()
        return {"input_ids": self.tokens}


if __name__ == "__main__":
    main()
