"""How long is a training step, in bare encoder products and against other libraries, and how much memory does it take?

python -m benchmarks.step --peers /path/to/peers/bin/python --shape 768,12288,2048,32 --json times.json

All libraries start from the same weights and read the same rows, each in a process of its own, and take turns within
one run, so that all meet the same disturbances: figures are ratios within a round. That they do equal work shows in the
active latents per row (L0) and the squared error per row, which each library computes of the first batch when its steps
are done. ``benchmarks/peers/README.md`` says how to make the peers' environment.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.peers.prepared import ARCHITECTURES, Prepared, Shape
from benchmarks.rows import random_features, sparse_sums
from benchmarks.worker import PEERS, Worker

N_BATCHES = 4
PAUSE = 0.02
"""Seconds between turns, in which the threads of the last worker stop spinning."""


def main() -> None:
    told = _arguments()
    records, rows = [], []
    for architecture in told.architectures:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "prepared.safetensors"
            prepare(told.shape, told.l0, told.seed).save(data)
            load = os.getloadavg()[0]
            record = measure(_commands(told, architecture, data), told.rounds, told.warm_up)
        records.append({"architecture": architecture, "load_before": load, **record})
        rows += _rows(architecture, told.shape, record["workers"])
        print(f"\n{architecture}, D,L,B,K = {told.shape}, {told.rounds} rounds, load average {load:.1f} before")
        print(_table(record["workers"]), flush=True)
    if told.json:
        machine = {"machine": platform.processor() or platform.machine(), "python": sys.version.split()[0]}
        head = {**machine, "shape": told.shape._asdict(), "l0": told.l0, "rounds": told.rounds, "time": time.time()}
        told.json.write_text(json.dumps({**head, "rows": rows, "records": records}, indent=1))


def prepare(shape: Shape, l0: float, seed: int) -> Prepared:
    """Rows, random unit weights, and the cut above which ``l0`` pre-activations per row lie."""
    torch.manual_seed(seed)
    rows_ND, _ = sparse_sums(N_BATCHES * shape.B, random_features(2 * shape.D, shape.D), probability=0.02)
    W_LD = F.normalize(torch.randn(shape.L, shape.D), dim=1)
    b_dec_D = rows_ND.mean(0)
    pre_BL = (rows_ND[: shape.B] - b_dec_D) @ W_LD.T
    n_active = round(l0 * shape.B)
    cut = pre_BL.flatten().kthvalue(pre_BL.numel() - n_active).values
    assert cut > 0, f"an L0 of {l0} needs more latents than fire at a positive pre-activation"
    return Prepared(rows_ND, W_LD, W_LD.clone(), b_dec_D, cut)


def measure(commands: dict[str, list[str | Path]], rounds: int, warm_up: int) -> dict[str, Any]:
    """Let the workers take turns; the first command's worker also gives the bare product."""
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(command)) for name, command in commands.items()}
        first = next(iter(workers.values()))
        turns = {"product": (first, "product")}
        turns |= {name: (worker, "step") for name, worker in workers.items() if name != "product"}
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(warm_up + rounds):
            for name, (worker, line) in turns.items():
                seconds[name].append(worker.ask(line)["seconds"])
                time.sleep(PAUSE)
        leave = {name: worker.about | worker.ask("done") for name, worker in workers.items()}
    return {"workers": {name: leave.get(name, {}) | {"seconds": seconds[name][warm_up:]} for name in turns}}


def _commands(told: argparse.Namespace, architecture: str, data: Path) -> dict[str, list[str | Path]]:
    words = ["--data", data, "--shape", str(told.shape), "--architecture", architecture]

    def peer(script: str, variant: str = "") -> list[str | Path]:
        return [told.peers, PEERS / script, *words, f"--variant={variant}"]

    ours = [sys.executable, "-m", "benchmarks.unweave_step", *words]
    commands = {"product": [*ours, "--variant=product"]} if told.without_unweave else {"unweave": ours}
    if told.peers:
        commands["sae-lens"] = peer("saelens_step.py")
        commands["dictionary-learning"] = peer("dictionary_learning_step.py")
        if architecture == "topk":
            commands["sae-lens, sparse"] = peer("saelens_step.py", "sparse")
            commands["sparsify, adam"] = peer("sparsify_step.py", "adam")
            commands["sparsify, signum"] = peer("sparsify_step.py", "signum")
    return commands


def _rows(architecture: str, shape: Shape, workers: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The figures of each library without their spread; ``peak_mb`` is in MiB."""
    product = workers["product"]["seconds"]
    for name, worker in workers.items():
        peak = worker.get("peak_bytes")
        yield {
            "library": name,
            "architecture": architecture,
            **shape._asdict(),
            "median_ms": 1e3 * statistics.median(worker["seconds"]),
            "over_encoder": statistics.median(_ratios(worker["seconds"], product)),
            "peak_mb": peak / 2**20 if peak else None,
            "loss": worker.get("loss"),
        }


def _table(workers: dict[str, dict[str, Any]]) -> str:
    """One line per library: time, steps in products, times in unweave's steps, memory; medians with their range."""
    heads = ("median ms", "(range)", "/ product", "(range)", "/ unweave", "(range)", "peak MiB", "L0", "error")
    lines = [f"{'':19}" + "".join(f"{head:>20}" for head in heads)]
    product, unweave = workers["product"]["seconds"], workers.get("unweave", {}).get("seconds")
    for name, worker in workers.items():
        cells = _spread([1e3 * t for t in worker["seconds"]], ".1f") + _spread(_ratios(worker["seconds"], product))
        cells += _spread(_ratios(worker["seconds"], unweave)) if unweave else ("", "")
        peak, l0, loss = worker.get("peak_bytes"), worker.get("l0"), worker.get("loss")
        cells += (f"{peak / 2**20:.0f}" if peak else "", f"{l0:.1f}" if l0 else "", f"{loss:.4g}" if loss else "")
        lines.append(f"{name:19}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def _ratios(times: list[float], others: list[float]) -> list[float]:
    """Ratios within each round."""
    return [a / b for a, b in zip(times, others, strict=True)]


def _spread(values: list[float], form: str = ".2f") -> tuple[str, str]:
    return format(statistics.median(values), form), f"({min(values):{form}} to {max(values):{form}})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python of the environment that holds the peers")
    parser.add_argument("--shape", type=Shape.parse, default=Shape(512, 8192, 1024, 32), help="D,L,B,K")
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    parser.add_argument("--l0", type=float, default=50.0, help="active latents per row of relu, gated and jumprelu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=2, help="rounds that are not counted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write all times")
    parser.add_argument("--without-unweave", action="store_true", help="only the product and the peers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
