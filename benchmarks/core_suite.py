"""How long the core figures of a coder take, all tokens spliced, and what a second coder adds.

python -m benchmarks.core_suite --run runs/demo --json core.json

Times the suite with its floors, as `unweave evaluate` measures; then, in turns, one coder and two coders without floors
and the passes of the second alone: encoding, counting, and one spliced pass, on activations and clean logits that are
there already. Where all else is shared, a second coder adds as much as its own passes take.
"""

import argparse
import json
import statistics
import time
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from unweave.activations.coded import written
from unweave.activations.harvest import rows_of
from unweave.coders import SparseCoder
from unweave.evals.core import CoderMeasures, CoreMeasures, left_out
from unweave.metrics import NextTokens, blocks_of
from unweave.models.prefix import after_prefix, keeping_prefix
from unweave.pipelines.evaluate import measure_into
from unweave.pipelines.floors import FIRST_TOKENS, first_rows
from unweave.pipelines.progress import Watch
from unweave.pipelines.workbench import Workbench, bench_of
from unweave.storage.run_folder import Run
from unweave.types import TokenBatch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    run = Run(told.run)
    bench = bench_of(run, [f"evaluation.tokens={told.tokens}", f"evaluation.splice_tokens={told.tokens}"])
    coder = run.coder
    batches = list(bench.held_out(told.tokens))
    means = first_rows(bench, {"coder": coder}, bench.held_out(FIRST_TOKENS), with_controls=False).means
    found: dict[str, list[float]] = {name: [] for name in ("suite with floors", "one", "two", "own passes")}
    for _ in range(told.rounds):
        found["suite with floors"].append(_suite(bench, coder))
        found["one"].append(_coders(bench, {"a": coder}, means, batches))
        found["two"].append(_coders(bench, {"a": coder, "b": deepcopy(coder)}, means, batches))
        found["own passes"].append(_own_passes(bench, coder, means, batches))
    for name, seconds in found.items():
        print(f"{name:18} {statistics.median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
    ratios = sorted((b - a) / c for a, b, c in zip(found["one"], found["two"], found["own passes"], strict=True))
    print(
        f"a second coder adds {statistics.median(ratios):.2f} of its own passes ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    if told.json:
        n_tokens = sum(int(batch.is_content.sum()) for batch in batches)
        told.json.write_text(json.dumps({"tokens": n_tokens, "seconds": found, "added": ratios}, indent=1))


def _suite(bench: Workbench, coder: SparseCoder) -> float:
    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        measure_into({Path(folder): coder}, bench, Watch(quiet=True))
    return time.perf_counter() - started


def _coders(
    bench: Workbench, coders: dict[str, SparseCoder], means: dict[str, torch.Tensor], batches: list[TokenBatch]
) -> float:
    measures = CoreMeasures(bench.model, coders, means, max_norm=bench.recipe.packing.max_norm)
    started = time.perf_counter()
    for batch in batches:
        measures.update(batch, splice=True)
    return time.perf_counter() - started


@torch.no_grad()
def _own_passes(
    bench: Workbench, coder: SparseCoder, means: dict[str, torch.Tensor], batches: list[TokenBatch]
) -> float:
    """Passes B and C of one coder."""
    model, seconds = bench.model, 0.0
    reads, writes = (tuple(port.site for port in ports) for ports in (coder.wiring.reads, coder.wiring.writes))
    measures = CoderMeasures(coder, torch.cat([means[site] for site in writes]))
    for batch in batches:
        with keeping_prefix(model, writes) as prefix:
            seen = model.run(batch.token_ids, list(dict.fromkeys(reads + writes)))
        rows = rows_of(batch, seen.activations, max_norm=bench.recipe.packing.max_norm)
        blocks = blocks_of(batch.document_ids)
        tokens, left = NextTokens(batch.token_ids, seen.logits, batch.is_padding), left_out(batch, rows, blocks)
        started = time.perf_counter()
        measures.update(rows, seen.activations, blocks[rows.sequences, rows.positions])
        if len(left.kinds):
            measures.update_left_out(left, seen.activations)
        changes = {site: lambda x, y=y: y.to(x.dtype) for site, y in written(coder, seen.activations).items()}
        with after_prefix(model, prefix), model.patch(changes):
            tokens.losses(model.logits(batch.token_ids))
        seconds += time.perf_counter() - started
    return seconds


if __name__ == "__main__":
    main()
