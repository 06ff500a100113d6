"""One of several processes that train coders together; the first one writes what became of them.

Run by ``test_ranks.py`` through torchrun: ``ranks_worker.py FILE LATENT_PARTS...``
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from tests.training import runs
from unweave.coders import SparseCoder
from unweave.training.config import TrainingConfig
from unweave.training.loop import finish, new_trainee, train
from unweave.training.ranks import Ranks
from unweave.training.trainee import Trainee

CONFIG = TrainingConfig(rows=14 * 64, batch=64, buffer=128, lr=1e-2, dead_window=200, log_every=1, clip=1.0)
CASES = {
    "topk": ("topk", "sae", {"k": 4, "k_aux": 6}),
    "topk, multi": ("topk", "sae", {"k": 4, "multi_k": 3, "k_start": 8}),
    "topk, no momentum": ("topk", "sae", {"k": 2, "aux_coefficient": 0.0}),
    "topk, transcoder": ("topk", "skip_transcoder", {"k": 4}),
    "batch_topk": ("batch_topk", "sae", {"k": 3.5}),
    "batch_topk, crosscoder": ("batch_topk", "crosscoder", {"k": 4.0}),
    "jumprelu": ("jumprelu", "sae", {"bandwidth": 0.5, "sparsity_coefficient": 0.05}),
    "jumprelu, target": ("jumprelu", "transcoder", {"penalty": "target_l0", "target_l0": 6.0, "bandwidth": 0.5}),
    "jumprelu, tanh": ("jumprelu", "sae", {"variant": "anthropic"}),
    "relu": ("relu", "sae", {}),
    "relu, april": ("relu", "crosscoder", {"variant": "april_2024", "l1_coefficient": 0.1}),
    "gated": ("gated", "sae", {}),
    "gated, free": ("gated", "skip_transcoder", {"variant": "norm_weighted"}),
    "abs_topk": ("abs_topk", "sae", {"k": 4}),
}
FEW = ("topk", "batch_topk", "jumprelu, target", "relu")
"""Cases for more than two processes."""
NO_MOMENTUM = ("topk, no momentum",)
"""Cases with beta1 = 0."""
N_QUIET = 9
"""Latents, all in the first part, that lose every selection by size, so that losses for dead latents take part."""


def new_case(name: str, ranks: Ranks | None = None) -> Trainee:
    """A coder of a case in training: whole, or this process' part of it."""
    architecture, wiring, settings = CASES[name]
    coder = runs.new_coder(architecture, runs.WIRINGS[wiring], n_latents=64, **settings).double()
    sample = {site: rows.double() for site, rows in runs.sample().items()}
    config = replace(CONFIG, average=0.8, beta1=0.0 if name in NO_MOMENTUM else CONFIG.beta1)
    trainee = new_trainee(name, coder, sample, config, ranks)
    if ranks is None or ranks.latent_part == 0:
        with torch.no_grad():
            coder.W_enc[:N_QUIET] *= 1e-3
            coder.b_enc[:N_QUIET] = 1e-4
    return trainee


def batches() -> Iterator[dict[str, Tensor]]:
    """The same batches for everyone."""
    for batch in runs.data(CONFIG.n_steps, size=CONFIG.batch):
        yield {site: rows.double() for site, rows in batch.items()}


def own_batches(ranks: Ranks) -> Iterator[dict[str, Tensor]]:
    """Each process brings its share of a batch, and sees the shares of all that have the same part of the rows."""
    for batch in batches():
        yield {site: ranks.rows_of_part(rows.chunk(ranks.count)[ranks.rank]) for site, rows in batch.items()}


def outcome(trainee: Trainee, stream: Iterator[dict[str, Tensor]]) -> tuple[dict[str, list[float]], SparseCoder]:
    """Every figure of every step, and the finished coder."""
    figures: dict[str, list[float]] = {}
    for progress in train([trainee], stream, CONFIG):
        for key, value in progress.metrics[trainee.name].items():
            figures.setdefault(key, []).append(value)
    return figures, finish(trainee)


def whole(coder: SparseCoder, ranks: Ranks) -> dict[str, Tensor]:
    """All latents of a coder that is in parts."""
    state = {}
    for name, tensor in coder.state_dict().items():
        in_parts = ranks.n_latent_parts > 1 and coder.has_row_per_latent(name, tensor)
        state[name] = torch.cat(ranks.parts_of_latents(tensor)) if in_parts else tensor.clone()
    return state


def main() -> None:
    file, *latent_parts = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    tensors: dict[str, Tensor] = {}
    for n_parts in map(int, latent_parts):
        ranks = Ranks(n_parts)
        for name in CASES if ranks.count == 2 else FEW:
            figures, coder = outcome(new_case(name, ranks), own_batches(ranks))
            tensors |= {f"{n_parts}/{name}/figures/{key}": torch.tensor(x).double() for key, x in figures.items()}
            tensors |= {f"{n_parts}/{name}/weights/{key}": x for key, x in whole(coder, ranks).items()}
    if dist.get_rank() == 0:
        save_file(tensors, Path(file))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
