"""Steps of unweave, and the bare encoder product that every step is compared with.

The worker understands one line more than the peers' do: "product" times ``x @ W_enc.T`` in float32, the median of
three, since it is short and everything is divided by it. Under the variant "product" it takes no steps at all.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import unweave
from benchmarks.peers.prepared import Prepared, Shape, matryoshka_widths, outcome, worker_arguments
from benchmarks.peers.turns import Driver, Finished, Turns, leave_at_once

if TYPE_CHECKING:
    from unweave.training.trainee import Trainee


def make_trainee(architecture_name: str, shape: Shape, prepared: Prepared) -> Trainee:
    """A coder with the prepared weights, and all that its training needs."""
    from unweave.coders import Wiring, architecture
    from unweave.training.config import TrainingConfig
    from unweave.training.loop import new_trainee

    # in units of the rows as they are, like the peers
    settings: dict[str, Any] = {"n_latents": shape.L, "input_scale": "none"}
    cut = prepared.cut.item()
    match architecture_name:
        case "topk" | "batch_topk":
            settings |= {"k": shape.K}
        case "matryoshka":
            widths = matryoshka_widths(shape.L)
            settings |= {"k": shape.K, "prefixes": tuple(width / shape.L for width in widths)}
        case "jumprelu":
            settings |= {"threshold_start": cut, "start_l0": 0, "bandwidth": 0.05}
    kind = architecture(architecture_name)
    coder = kind(kind.Config(**settings), Wiring.sae(shape.D, "rows"))
    # a rate so low that the number of active latents stays what it was prepared to be
    config = TrainingConfig(rows=10**6 * shape.B, batch=shape.B, lr=1e-6, buffer=2 * shape.B)
    trainee = new_trainee("step", coder, {"rows": prepared.rows_ND}, config)
    with torch.no_grad():
        coder.W_enc.copy_(prepared.W_enc_LD)
        coder.W_dec.copy_(prepared.W_dec_LD)
        coder.b_dec.copy_(prepared.b_dec_D)
        coder.b_enc.fill_(-cut if architecture_name in ("relu", "gated") else 0.0)
        if coder.centre is None:
            coder.shift_input(prepared.b_dec_D)
    return trainee


def make_step(trainee: Trainee, shape: Shape, prepared: Prepared) -> Callable[[], None]:
    """One whole training step on the next batch, as the training loop takes it."""
    from unweave.training.step import take_step

    batches = prepared.batches(shape)
    middle = itertools.count(trainee.config.n_steps // 2)  # the middle of a run, where no schedule is at 0

    def take() -> None:
        take_step(trainee, {"rows": next(batches)}, next(middle), is_logged=False)

    return take


def main() -> None:
    from unweave.training.memory import freed_memory_kept

    told = worker_arguments()
    prepared = Prepared.load(told.data)
    x_BD = prepared.rows_ND[: told.shape.B]

    def product() -> dict[str, object]:
        return {"seconds": statistics.median(_seconds(lambda: x_BD @ prepared.W_enc_LD.T) for _ in range(3))}

    driver = Driver()
    turns = Turns(driver, {"product": product})
    trainee = step = None
    if told.variant != "product":
        _load_compiled_code(told.architecture, told.shape, prepared)
        trainee = make_trainee(told.architecture, told.shape, prepared)
        step = make_step(trainee, told.shape, prepared)
    driver.introduce(library="unweave", version=unweave.__version__)
    try:
        with freed_memory_kept():  # as the training loop does
            while True:
                turns.await_step()
                assert step is not None, "a worker for the product alone was asked for a step"
                step()
    except Finished:
        turns.take_leave(None if trainee is None else lambda: _outcome(trainee, x_BD))
    leave_at_once()


def _load_compiled_code(architecture_name: str, shape: Shape, prepared: Prepared) -> None:
    """A step on a part of everything, so that compiling and loading kernels is not counted as memory of a step."""
    small = Shape(shape.D, min(1024, shape.L), min(256, shape.B), min(8, shape.K))
    W_enc, W_dec = prepared.W_enc_LD[: small.L], prepared.W_dec_LD[: small.L]
    part = prepared._replace(rows_ND=prepared.rows_ND[: 2 * small.B], W_enc_LD=W_enc, W_dec_LD=W_dec)
    make_step(make_trainee(architecture_name, small, part), small, part)()


@torch.no_grad()
def _outcome(trainee: Trainee, x_BD: Tensor) -> dict[str, float]:
    """By the forward pass of a training step."""
    from unweave.coders import Moment

    read_BD, target_BD = trainee.rows({"rows": x_BD})
    step = trainee.coder.loss(read_BD, target_BD, Moment(progress=0.5, dead=trainee.dead.ids))
    return outcome(target_BD, step.reconstruction, step.codes.values)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
