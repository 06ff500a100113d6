# pyright: reportMissingImports=false
"""Steps of dictionary-learning (saprmarks/dictionary_learning), taken by its own ``trainSAE``.

A step is all that happens between two batches that the loop asks for: forward pass, losses, firing statistics, backward
pass, gradient projection and clipping, Adam, its schedule, unit norms. Nothing is logged or saved.

Of its two trainers of a ReLU coder, relu is ``StandardTrainerAprilUpdate``: like SAELens it weighs the L1 loss by
decoder norms, leaves these norms free and clips the gradient.
"""

from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import torch
from dictionary_learning.trainers import BatchTopKTrainer, GatedSAETrainer, JumpReluTrainer, TopKTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
from dictionary_learning.training import trainSAE
from prepared import Prepared, Shape, matryoshka_widths, outcome, worker_arguments
from torch import Tensor
from turns import Driver, Finished, Turns, leave_at_once

N_STEPS = 10**6


def main() -> None:
    driver = Driver()
    turns = Turns(driver)
    told = worker_arguments()
    shape, prepared = told.shape, Prepared.load(told.data)
    trainer = _new_trainer(told.architecture, shape)

    def batches() -> Iterator[Tensor]:
        for n_steps, batch in enumerate(prepared.batches(shape)):
            if n_steps <= 1:  # again after the first step, which moves b_dec to the geometric median of its rows
                _set_weights(trainer.ae, told.architecture, prepared)
            turns.await_step()
            yield batch

    driver.introduce(library="dictionary-learning", version=version("dictionary-learning"))
    try:
        # the loop calls what it finds under "trainer"
        trainSAE(batches(), [{"trainer": lambda: trainer}], steps=N_STEPS, device="cpu")
    except Finished:
        turns.take_leave(lambda: _outcome(trainer, prepared.rows_ND[: shape.B]))
    leave_at_once()


def _new_trainer(architecture: str, shape: Shape) -> Any:
    """A trainer with the library's defaults, apart from warm-ups, in which a loss or the rate would be 0."""
    settings: dict[str, Any] = {
        "steps": N_STEPS,
        "activation_dim": shape.D,
        "dict_size": shape.L,
        "layer": 0,
        "lm_name": "none",
        # so low that the number of active latents stays what it was prepared to be
        "lr": 1e-6,
        "warmup_steps": 0,
        "device": "cpu",
    }
    match architecture:
        case "relu":
            return StandardTrainerAprilUpdate(**settings, sparsity_warmup_steps=0)
        case "gated":
            return GatedSAETrainer(**settings, sparsity_warmup_steps=0)
        case "jumprelu":
            return JumpReluTrainer(**settings, sparsity_warmup_steps=0)
        case "topk":
            return TopKTrainer(**settings, k=shape.K)
        case "batch_topk":
            return BatchTopKTrainer(**settings, k=shape.K)
        case "matryoshka":
            fractions = [(end - start) / shape.L for start, end in pairwise([0, *matryoshka_widths(shape.L)])]
            return MatryoshkaBatchTopKTrainer(**settings, k=shape.K, group_fractions=fractions)
        case _:
            raise ValueError(f"dictionary-learning has no counterpart of {architecture!r} here")


@torch.no_grad()
def _set_weights(coder: Any, architecture: str, prepared: Prepared) -> None:
    if architecture in ("jumprelu", "matryoshka"):
        coder.W_enc.copy_(prepared.W_enc_LD.T)
        coder.W_dec.copy_(prepared.W_dec_LD)
    else:
        coder.encoder.weight.copy_(prepared.W_enc_LD)
        coder.decoder.weight.copy_(prepared.W_dec_LD.T)
    match architecture:
        case "relu":
            coder.bias.copy_(prepared.b_dec_D)
            coder.encoder.bias.fill_(-prepared.cut)
        case "gated":
            coder.decoder_bias.copy_(prepared.b_dec_D)
            coder.gate_bias.fill_(-prepared.cut)
        case "jumprelu":
            coder.b_dec.copy_(prepared.b_dec_D)
            coder.b_enc.copy_(-prepared.W_enc_LD @ prepared.b_dec_D)  # it does not subtract b_dec from its input
            coder.threshold.fill_(prepared.cut)
        case _:
            coder.b_dec.copy_(prepared.b_dec_D)


@torch.no_grad()
def _outcome(trainer: Any, x_BD: Tensor) -> dict[str, float]:
    """By the forward pass of a training step, since ``encode`` of BatchTopK uses its threshold."""
    _, x_hat_BD, acts_BL, _ = trainer.loss(x_BD, step=0, logging=True)
    return outcome(x_BD, x_hat_BD, acts_BL)


if __name__ == "__main__":
    main()
