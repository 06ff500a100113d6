# pyright: reportMissingImports=false
"""Steps of SAELens, taken by its own ``SAETrainer.fit``.

A step is all that happens between two batches that the trainer asks for: forward pass, losses, firing statistics,
backward pass, clipping, Adam, both schedules, and the previous step's output that the loop keeps alive. Nothing is
logged and no evaluation runs.
"""

from collections.abc import Iterator

import sae_lens
import torch
from prepared import Prepared, Shape, outcome, worker_arguments
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from saelens_coders import new_sae
from torch import Tensor
from turns import Driver, Finished, Turns, leave_at_once

SPARSE = {"use_sparse_activations": True, "rescale_acts_by_decoder_norm": False}
"""SAELens' sparse route for topk; its backward pass fails on a CPU with the default rescaling (torch 2.13)."""


def main() -> None:
    driver = Driver()
    turns = Turns(driver)
    told = worker_arguments()
    shape, prepared = told.shape, Prepared.load(told.data)
    settings = SPARSE if told.variant == "sparse" else {}
    sae = new_sae(told.architecture, shape.D, shape.L, shape.K, coefficient=1e-3, **settings)
    _set_weights(sae, told.architecture, prepared)
    config = SAETrainerConfig(
        total_training_samples=10**6 * shape.B,
        train_batch_size_samples=shape.B,
        # so low that the number of active latents stays what it was prepared to be
        lr=1e-6,
        lr_end=1e-7,
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=_on_request(turns, prepared, shape))
    driver.introduce(library="sae-lens", version=sae_lens.__version__)
    try:
        trainer.fit()
    except Finished:
        turns.take_leave(lambda: _outcome(sae, prepared.rows_ND[: shape.B]))
    leave_at_once()


def _on_request(turns: Turns, prepared: Prepared, shape: Shape) -> Iterator[Tensor]:
    for batch in prepared.batches(shape):
        turns.await_step()
        yield batch


@torch.no_grad()
def _set_weights(sae: sae_lens.TrainingSAE, architecture: str, prepared: Prepared) -> None:
    sae.W_enc.copy_(prepared.W_enc_LD.T)
    sae.W_dec.copy_(prepared.W_dec_LD)
    sae.b_dec.copy_(prepared.b_dec_D)
    match architecture:
        case "relu":
            sae.b_enc.fill_(-prepared.cut)
        case "gated":
            sae.b_gate.fill_(-prepared.cut)
        case "jumprelu":
            sae.threshold.fill_(prepared.cut)


@torch.no_grad()
def _outcome(sae: sae_lens.TrainingSAE, x_BD: Tensor) -> dict[str, float]:
    acts, _ = sae.encode_with_hidden_pre(x_BD)
    return outcome(x_BD, sae.decode(acts), acts)


if __name__ == "__main__":
    main()
