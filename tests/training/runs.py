"""What the tests of training share: sparse synthetic rows at two sites, small coders of every wiring, short runs."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from unweave.coders import Port, SparseCoder, Wiring, architecture
from unweave.coders.batch_topk import BatchTopK, BatchTopKConfig
from unweave.coders.relu import Relu, ReluConfig
from unweave.config import build
from unweave.training.config import TrainingConfig
from unweave.training.loop import Progress, new_trainee, train
from unweave.training.trainee import Trainee

WIDTH, OTHER_WIDTH, N_FEATURES = 20, 12, 40
CONFIG = TrainingConfig(rows=60 * 512, batch=512, lr=2e-2, buffer=1024, dead_window=2000)
SHORT = replace(CONFIG, rows=30 * 512, lr=4e-2)
"""Half the steps, each twice as large: enough to learn most of the data."""
HERE, THERE = Port("here", WIDTH), Port("there", OTHER_WIDTH)
WIRINGS = {
    "sae": Wiring.sae(WIDTH, "here"),
    "transcoder": Wiring.transcoder(HERE, THERE),
    "skip_transcoder": Wiring.transcoder(HERE, THERE, skip=True),
    "crosscoder": Wiring.crosscoder(HERE, THERE),
}
SCALES = ("unit_spread", "unit_square", "sqrt_width", "whiten", "none")


def _directions(width: int, seed: int) -> Tensor:
    directions = torch.randn(N_FEATURES, width, generator=torch.Generator().manual_seed(seed))
    return directions / directions.norm(dim=1, keepdim=True)


def data(n_batches: int, seed: int = 7, size: int = 512) -> Iterator[dict[str, Tensor]]:
    """Sparse random sums of random unit directions at two sites, far from the origin and at scales of their own."""
    generator = torch.Generator().manual_seed(seed)
    here, there = _directions(WIDTH, 100), _directions(OTHER_WIDTH, 101)
    linear = 0.02 * torch.randn(WIDTH, OTHER_WIDTH, generator=torch.Generator().manual_seed(102))
    for _ in range(n_batches):
        active = (torch.rand(size, N_FEATURES, generator=generator) < 0.05).float()
        strength = active * (1.0 + torch.rand(size, N_FEATURES, generator=generator))
        x = 30.0 * strength @ here + 5.0
        yield {"here": x, "there": 0.3 * strength @ there + x @ linear - 2.0}


def sample() -> dict[str, Tensor]:
    batches = list(data(2, seed=63))
    return {site: torch.cat([batch[site] for batch in batches]) for site in ("here", "there")}


def new_coder(name: str = "batch_topk", wiring: Wiring = WIRINGS["sae"], seed: int = 7, **settings: Any) -> SparseCoder:
    torch.manual_seed(seed)
    if name == "relu":
        return Relu(ReluConfig(**{"n_latents": 63, "l1_coefficient": 0.02} | settings), wiring)
    if name == "batch_topk":
        return BatchTopK(BatchTopKConfig(**{"n_latents": 63, "k": 4.0, "threshold_decay": 0.8} | settings), wiring)
    cls = architecture(name)
    known = {field.name for field in fields(cls.Config)}
    small = {key: value for key, value in {"n_latents": 96, "k": 4, "k_aux": 8}.items() if key in known}
    return cls(build(cls.Config, small | settings, "coder"), wiring)


def trainee_of(name: str = "batch_topk", seed: int = 7, config: TrainingConfig = CONFIG, **settings: Any) -> Trainee:
    return new_trainee(name, new_coder(name, seed=seed, **settings), sample(), config)


def weights_of(coder: SparseCoder) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in coder.state_dict().values()]


def run(*trainees: Trainee, config: TrainingConfig = CONFIG) -> list[Progress]:
    return list(train(list(trainees), data(config.n_steps + 7), config))


def explained(truth: Tensor, written: Tensor) -> float:
    return 1 - ((truth - written).square().sum() / (truth - truth.mean(0)).square().sum()).item()


def raw_rows(coder: SparseCoder, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What a finished coder reads, and what it should write, as the model has them."""
    sides = (coder.wiring.reads, coder.wiring.writes)
    x, y = (torch.cat([batch[port.site] for port in ports], dim=1).to(coder.W_dec.dtype) for ports in sides)
    return x, y


class Counted:
    """Batches, and how many of them were taken."""

    def __init__(self, batches: Iterable[dict[str, Tensor]]) -> None:
        self.batches = iter(batches)
        self.n_taken = 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self

    def __next__(self) -> dict[str, Tensor]:
        batch = next(self.batches)
        self.n_taken += 1
        return batch
