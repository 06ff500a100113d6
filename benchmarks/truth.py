"""Which library finds the features that rows were made of? Trains coders on drawn data, and compares with the truth.

python -m benchmarks.truth --peers /path/to/peers/bin/python --d-model 32 --features 64 --latents 64 --steps 1000

Every library reads the same rows in the same order, for the same number of steps, at the same learning rates and
schedule. Where L0 follows from a coefficient, the coefficient is searched with the same number of runs for each
library, until L0 on held-out rows is what the others have. What is judged is the coder as it is used after training.
"""

import argparse
import contextlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.peers.prepared import ARCHITECTURES, matryoshka_widths
from benchmarks.rows import random_features, sparse_sums
from benchmarks.worker import PEERS, Worker
from unweave.metrics.ground_truth import DetectedFeatures, FeatureDetection, best_matches, mcc, uniqueness
from unweave.types import Codes

CLOSE = 0.05
"""Relative distance from the wanted L0 at which the search for a coefficient ends."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One coder to train; what a library is asked for."""

    architecture: str
    n_latents: int
    k: int
    steps: int
    batch: int
    lr: float
    warm_up: float
    decay: float
    """Shares of the run over which the learning rate rises from 0 and falls to 0."""
    dead_steps: int
    """A latent that was silent for so many steps is dead."""
    coefficient: float | None
    """Weight of the sparsity loss; None where there is none."""
    coefficient_warm_up: float
    """Share of the run over which the coefficient rises from 0."""
    seed: int


class Truth(NamedTuple):
    """Rows and the features that they were made of."""

    train_ND: Tensor
    heldout_MD: Tensor
    heldout_MF: Tensor
    features_FD: Tensor


class Trained(NamedTuple):
    """What is judged: a finished coder's decoder, and its activations on the held-out rows."""

    W_dec_LD: Tensor
    b_dec_D: Tensor
    heldout_ML: Tensor
    seconds: float


Train = Callable[[Request], Trained]


def main() -> None:
    told = _arguments()
    truth = draw(told)
    found = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        libraries: dict[str, Train] = {}
        if not told.without_unweave:
            libraries["unweave"] = partial(train_with_unweave, truth)
        if told.peers:
            save_file({"train_ND": truth.train_ND, "heldout_MD": truth.heldout_MD}, Path(folder) / "rows.safetensors")
            command = [told.peers, PEERS / "saelens_truth.py", "--data", Path(folder) / "rows.safetensors"]
            libraries["sae-lens"] = train_with_peer(stack.enter_context(Worker(command)), Path(folder))
        print(_line("architecture", "library", "lr", "coefficient", *FIGURES), flush=True)
        for architecture in told.architectures:
            for name, train in libraries.items():
                for lr in told.lr:
                    wanted = _request(told, architecture, lr)
                    request, figures = match_l0(train, wanted, truth, told.tries)
                    seeds = [figures] + [
                        judge(train(replace(request, seed=told.seed + i)), truth) for i in range(1, told.seeds)
                    ]
                    found.append({"library": name, **asdict(request), "by_seed": seeds})
                    numbers = (_with_error([seed[figure] for seed in seeds]) for figure in FIGURES)
                    print(_line(architecture, name, lr, _short(request.coefficient), *numbers), flush=True)
    if told.json:
        told.json.write_text(json.dumps(found, indent=1))


def draw(told: argparse.Namespace) -> Truth:
    """Features, and as many rows as training reads, so that no row is read twice."""
    # far from the coders' seeds: one that draws the same numbers would start at the features themselves
    torch.manual_seed(1_000_003 + told.seed)
    features_FD = random_features(told.features, told.d_model)
    train = sparse_sums(told.steps * told.batch, features_FD, told.probability)
    heldout = sparse_sums(told.heldout, features_FD, told.probability)
    return Truth(train.rows_ND, heldout.rows_ND, heldout.activations_NF, features_FD)


def train_with_peer(worker: Worker, folder: Path) -> Train:
    """Training in the peer's environment; the coder comes back in a file."""
    out = folder / "trained.safetensors"

    def train(request: Request) -> Trained:
        answer = worker.ask(json.dumps(asdict(request) | {"out": str(out)}))
        return Trained(**load_file(out), seconds=answer["seconds"])

    return train


def train_with_unweave(truth: Truth, request: Request) -> Trained:
    from unweave.coders import Wiring, architecture
    from unweave.training.config import TrainingConfig
    from unweave.training.loop import finish, new_trainee
    from unweave.training.loop import train as run

    torch.manual_seed(request.seed)
    kind = architecture(request.architecture)
    settings: dict[str, Any] = {"n_latents": request.n_latents}
    if request.coefficient is None:
        settings |= {"k": request.k, "k_aux": truth.features_FD.shape[1] // 2}
    else:
        settings[kind.sparsity] = request.coefficient
        settings["l1_warm_up" if "l1" in kind.sparsity else "sparsity_warm_up"] = request.coefficient_warm_up
    if request.architecture == "matryoshka":
        settings["prefixes"] = tuple(width / request.n_latents for width in matryoshka_widths(request.n_latents))
    config = TrainingConfig(
        rows=request.steps * request.batch,
        batch=request.batch,
        lr=request.lr,
        warm_up=request.warm_up,
        decay=request.decay,
        dead_window=request.dead_steps * request.batch,
        buffer=2 * request.batch,
        log_every=max(1, request.steps),
    )
    start = time.perf_counter()
    coder = kind(kind.Config(**settings), Wiring.sae(truth.train_ND.shape[1], "rows"))
    trainee = new_trainee("coder", coder, {"rows": truth.train_ND[:16_384]}, config)
    for _ in run([trainee], ({"rows": rows} for rows in truth.train_ND.split(request.batch)), config):
        pass
    finished = finish(trainee)
    seconds = time.perf_counter() - start
    heldout_ML = torch.cat([finished.encode(rows).dense() for rows in truth.heldout_MD.split(4096)])
    return Trained(finished.W_dec.data, finished.b_dec.data, heldout_ML, seconds)


FIGURES = ("l0", "explained_variance", "mcc", "uniqueness", "precision", "recall", "f1", "dead_share", "seconds")


def judge(trained: Trained, truth: Truth) -> dict[str, float]:
    """All figures on the held-out rows, computed here for every library."""
    matches_L = best_matches(trained.W_dec_LD, truth.features_FD)
    detection = FeatureDetection(matches_L, len(truth.features_FD))
    detection.update(DetectedFeatures(_codes(trained.heldout_ML), _codes(truth.heldout_MF)))
    x_hat_MD = trained.heldout_ML @ trained.W_dec_LD + trained.b_dec_D
    error = (truth.heldout_MD - x_hat_MD).square().sum()
    spread = (truth.heldout_MD - truth.heldout_MD.mean(0)).square().sum()
    return {
        "l0": trained.heldout_ML.count_nonzero().item() / len(trained.heldout_ML),
        "explained_variance": 1 - (error / spread).item(),
        "mcc": mcc(trained.W_dec_LD, truth.features_FD),
        "uniqueness": uniqueness(trained.W_dec_LD, truth.features_FD),
        **detection.compute(),
        "seconds": trained.seconds,
    }


def match_l0(train: Train, request: Request, truth: Truth, tries: int) -> tuple[Request, dict[str, float]]:
    """The run whose L0 is nearest to ``k``: coefficients 8-fold apart until two enclose it, then their logs' bisection.

    Every try is a whole run, since L0 goes on falling as training goes on.
    """
    coefficient = request.coefficient
    if coefficient is None:
        return request, judge(train(request), truth)
    too_weak, too_strong = 0.0, math.inf
    tried: list[tuple[float, Request, dict[str, float]]] = []
    for _ in range(tries):
        figures = judge(train(request), truth)
        distance = abs(math.log(max(figures["l0"], 1e-3) / request.k))
        tried.append((distance, request, figures))
        if distance <= CLOSE:
            break
        too_weak, too_strong = (coefficient, too_strong) if figures["l0"] > request.k else (too_weak, coefficient)
        if too_weak == 0.0:
            coefficient = too_strong / 8
        elif too_strong == math.inf:
            coefficient = too_weak * 8
        else:
            coefficient = math.sqrt(too_weak * too_strong)
        request = replace(request, coefficient=coefficient)
    _, nearest, figures = min(tried, key=lambda attempt: attempt[0])
    return nearest, figures


def _request(told: argparse.Namespace, architecture: str, lr: float) -> Request:
    return Request(
        architecture=architecture,
        n_latents=told.latents,
        k=told.k or max(1, round(told.features * told.probability)),
        steps=told.steps,
        batch=told.batch,
        lr=lr,
        warm_up=told.warm_up,
        decay=told.decay,
        dead_steps=told.dead_steps or max(1, told.steps // 10),
        coefficient=1.0 if architecture in ("relu", "gated", "jumprelu") else None,
        coefficient_warm_up=told.coefficient_warm_up,
        seed=told.seed,
    )


def _with_error(values: list[float]) -> str:
    """Mean over seeds and its standard error."""
    error = f"±{statistics.stdev(values) / math.sqrt(len(values)):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{error}"


def _codes(dense_NL: Tensor) -> Codes:
    rows, latents = dense_NL.nonzero(as_tuple=True)
    offsets = torch.bincount(rows, minlength=len(dense_NL)).cumsum(0)
    return Codes(dense_NL[rows, latents], latents, torch.cat([offsets.new_zeros(1), offsets]), dense_NL.shape[1])


def _line(*cells: Any) -> str:
    return f"{cells[0]:14}{cells[1]:10}" + "".join(f" {cell:>12.12}" for cell in map(str, cells[2:]))


def _short(coefficient: float | None) -> str:
    return "" if coefficient is None else f"{coefficient:.3g}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peers", type=Path, help="Python of the environment that holds the peers")
    add("--architectures", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    add("--d-model", type=int, default=32)
    add("--features", type=int, default=64)
    add("--probability", type=float, default=0.05, help="chance of each feature to be active in a row")
    add("--latents", type=int, default=64)
    add("--k", type=int, default=0, help="wanted L0; 0: the mean number of active features")
    add("--steps", type=int, default=1000)
    add("--batch", type=int, default=256)
    add("--lr", type=float, nargs="+", default=[1e-3], help="each is tried, and reported on a line of its own")
    add("--warm-up", type=float, default=0.02)
    add("--decay", type=float, default=0.2)
    add("--coefficient-warm-up", type=float, default=0.05)
    add("--dead-steps", type=int, default=0, help="0: a tenth of the steps")
    add("--tries", type=int, default=10, help="runs per search for a coefficient")
    add("--heldout", type=int, default=8192)
    add("--seed", type=int, default=0, help="of the data, and of the first coder")
    add("--seeds", type=int, default=1, help="coders of each kind; the coefficient is searched with the first")
    add("--json", type=Path, help="where to write all figures")
    add("--without-unweave", action="store_true", help="only the peers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
