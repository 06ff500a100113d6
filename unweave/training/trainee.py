"""A coder in training: its weights, how its rows are scaled, and all else that a run must know to go on exactly."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders import Port, SparseCoder
from unweave.coders.folding import Scaling
from unweave.errors import UserError
from unweave.training.average import WeightAverage
from unweave.training.config import TrainingConfig
from unweave.training.dead_latents import DeadLatents
from unweave.training.muon import CoderMuon
from unweave.training.objective import LOCAL, Batch, Objective, RowsBySite
from unweave.training.optimizer import CoderAdam, CoderOptimizer
from unweave.training.resampling import CUT
from unweave.training.schedule import rate_factor
from unweave.training.sign_sgd import CoderSign


@dataclass
class Trainee:
    """A coder in training, with its settings, optimizer and counters; it shares nothing with other coders."""

    name: str
    coder: SparseCoder
    config: TrainingConfig
    reads: list[Scaling]
    """How rows are scaled at each site that the coder reads."""
    writes: list[Scaling]
    """How rows are scaled at each site that it writes."""
    objective: Objective = LOCAL
    """What it is to be good at."""
    optimizer: CoderOptimizer = field(init=False)
    dead: DeadLatents = field(init=False)
    average: WeightAverage | None = field(init=False, default=None)
    """The running mean of the weights, where there is one."""
    generator: torch.Generator = field(init=False)
    """What resampling draws from."""
    resampled: float = field(init=False, default=-1.0)
    """Share of the run after which dead latents were last resampled."""

    def __post_init__(self) -> None:
        trained = {name for name, parameter in self.coder.named_parameters() if parameter.requires_grad}
        if self.config.resample_at and not {"W_enc", "b_enc", "W_dec"} <= trained:
            raise UserError(
                f"training.resample_at gives latents weights of their own, which coder {self.name} has not; "
                "leave it empty"
            )
        peers = self.coder.peers
        if self.config.resample_at and peers.n_latent_parts * peers.n_row_parts > 1:
            raise UserError("training.resample_at needs a single process; leave it empty")
        if self.objective is not LOCAL and peers.n_latent_parts * peers.n_row_parts > 1:
            raise UserError("objective.kl and objective.downstream need a single process; set them 0")
        if self.config.optimizer == "muon" and peers.n_latent_parts > 1:
            raise UserError('training.optimizer="muon" needs whole matrices; set training.latent_parts=1')
        self.optimizer = _optimizer(self.coder, self.config)
        self.dead = DeadLatents(self.coder.n_latents, self.config.dead_window, self.coder.W_dec.device, peers)
        if self.config.average > 0:
            self.average = WeightAverage(self.coder, self.config.average)
        self.generator = torch.Generator().manual_seed(0)

    @property
    def sites(self) -> set[str]:
        wiring = self.coder.wiring
        return {port.site for port in wiring.reads + wiring.writes}

    def rows(self, batch: Batch) -> tuple[Float[Tensor, "B D_read"], Float[Tensor, "B D_write"]]:
        """What the coder reads and what it should write, scaled, sites side by side."""
        return scaled(self.coder, self.objective.rows(batch), self.reads, self.writes)

    def rate(self, step: int) -> float:
        """The learning rate of a step, with its cut after resampling."""
        config = self.config
        progress = (step + 1) / config.n_steps
        factor = rate_factor(progress, config.warm_up, config.decay, config.schedule, config.restarts)
        if self.resampled >= 0 and config.resample_warm_up > 0:
            risen = (step / config.n_steps - self.resampled) / config.resample_warm_up
            factor *= min(1.0, CUT + (1 - CUT) * risen)
        return config.lr * factor

    def state(self) -> dict[str, Tensor]:
        """All that a run needs to go on exactly, by flat dotted names.

        Most tensors are those in use, so write or copy them before the next step.
        """
        return {
            **_under("coder", self.coder.state_dict()),
            **_under("optimizer", self.optimizer.state()),
            **_under("dead", self.dead.state()),
            **_under("average", {} if self.average is None else self.average.state()),
            **_under("reads", _scaling_state(self.reads)),
            **_under("writes", _scaling_state(self.writes)),
            "generator": self.generator.get_state(),
            "resampled": torch.tensor(self.resampled, dtype=torch.float64),
        }

    def names_per_latent(self) -> Iterator[str]:
        """Names of the tensors in ``state`` that have a row or a number for each latent."""
        tensors = self.coder.state_dict()
        for name in self.state():
            kind, _, of = name.partition(".")
            of = of.rpartition(".")[0] if kind == "optimizer" else of
            is_weight = kind in ("coder", "optimizer", "average") and of in tensors
            if (is_weight and self.coder.has_row_per_latent(of, tensors[of])) or (kind == "dead" and of != "steps"):
                yield name

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what ``state`` gave; ``UserError`` where that was another coder or another kind of training."""
        self._check_fits(state)
        self.coder.load_state_dict(part_of(state, "coder"))
        self.optimizer.load_state(part_of(state, "optimizer"))
        self.dead.load_state(part_of(state, "dead"))
        if self.average is not None:
            self.average.load_state(part_of(state, "average"))
        self.reads, self.writes = saved_scalings(self.coder, state)
        self.generator.set_state(state["generator"].cpu())
        self.resampled = state["resampled"].item()

    def _check_fits(self, state: dict[str, Tensor]) -> None:
        here = self.state()
        advice = "resume with the settings that it was saved with"
        for known, others, what in ((here, state, "lacks"), (state, here, "has an unknown")):
            names = sorted(known.keys() - others.keys())
            if names:
                raise UserError(f"the saved state of coder {self.name} {what} {names[0]!r}; {advice}")
        for name, tensor in here.items():
            got, expected = list(state[name].shape), list(tensor.shape)
            if got != expected:
                raise UserError(f"{name!r} of coder {self.name} has shape {expected}, the saved one {got}; {advice}")


def scaled(
    coder: SparseCoder, batch: RowsBySite, reads: list[Scaling], writes: list[Scaling]
) -> tuple[Float[Tensor, "B D_read"], Float[Tensor, "B D_write"]]:
    """What a coder reads and what it should write, scaled, sites side by side."""
    x_BD = _side_by_side(batch, coder.wiring.reads, reads, coder.W_dec.dtype)
    if coder.wiring.writes_what_it_reads:
        return x_BD, x_BD
    return x_BD, _side_by_side(batch, coder.wiring.writes, writes, coder.W_dec.dtype)


def part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}


def saved_scalings(coder: SparseCoder, state: dict[str, Tensor]) -> tuple[list[Scaling], list[Scaling]]:
    """How rows are scaled at the sites that are read and those that are written, from a saved state."""
    device = coder.W_dec.device

    def at(side: str, i: int) -> Scaling:
        values = part_of(state, f"{side}.{i}")
        if "factor" not in values:
            raise UserError(f"the saved state does not say how site {i} of {side} is scaled; it is of another wiring")
        tensors = {name: values[name].to(device) for name in ("mean", "matrix") if name in values}
        return Scaling(values["factor"].item(), **tensors)

    sides = {"reads": coder.wiring.reads, "writes": coder.wiring.writes}
    reads, writes = ([at(side, i) for i in range(len(ports))] for side, ports in sides.items())
    return reads, writes


def _optimizer(coder: SparseCoder, config: TrainingConfig) -> CoderOptimizer:
    betas = (config.beta1, config.beta2)
    match config.optimizer:
        case "adam" | "adamw":
            return CoderAdam(coder, betas, weight_decay=config.weight_decay)
        case "sign_sgd":
            return CoderSign(coder)
        case "muon":
            return CoderMuon(coder, betas)


def _side_by_side(batch: RowsBySite, ports: tuple[Port, ...], scalings: list[Scaling], dtype: torch.dtype) -> Tensor:
    parts = [scaling(batch[port.site].to(dtype)) for port, scaling in zip(ports, scalings, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def _scaling_state(scalings: list[Scaling]) -> dict[str, Tensor]:
    state = {}
    for i, scaling in enumerate(scalings):
        state[f"{i}.factor"] = torch.tensor(scaling.factor, dtype=torch.float64)
        for name, tensor in (("mean", scaling.mean), ("matrix", scaling.matrix)):
            if tensor is not None:
                state[f"{i}.{name}"] = tensor
    return state
