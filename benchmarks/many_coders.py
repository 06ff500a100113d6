"""What a coder more costs in one pass of the model: no more than its own steps.

python -m benchmarks.many_coders --json rows.json

Times the rows alone (model, text, shuffle buffer), one coder and several coders in one pass, in turns, on the embedded
model. If the pass is shared, several coders take as long as the rows and that many times one coder's own share.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from unweave.pipelines.recipe import Plan, read_plan
from unweave.pipelines.row_source import open_source
from unweave.pipelines.training_run import new_training_run
from unweave.training import loop


def main() -> None:
    told = _arguments()
    settings = [f"training.rows={told.rows}", "training.buffer=16_384"]
    one = read_plan("demo", settings)
    several = read_plan("demo", [*settings, f"seed={list(range(told.coders))}"])
    found: dict[str, list[float]] = {"rows": [], "one": [], "several": []}
    for _ in range(told.rounds):
        found["rows"].append(_seconds(one, train=False))
        found["one"].append(_seconds(one))
        found["several"].append(_seconds(several))
    rows, alone, together = (statistics.median(found[name]) for name in ("rows", "one", "several"))
    expected = rows + told.coders * (alone - rows)
    for name, seconds in found.items():
        print(f"{name:8} {statistics.median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
    print(f"{told.coders} coders in one pass: {together / expected:.3f} of one pass and {told.coders} coders' steps")
    if told.json:
        ratio = together / expected
        told.json.write_text(json.dumps({"coders": told.coders, "seconds": found, "of_expected": ratio}, indent=1))


def _seconds(plan: Plan, *, train: bool = True) -> float:
    """From the first harvested row to the last step, or to the last batch that a step would read."""
    run = new_training_run(plan, open_source(plan))
    config = plan.recipe.training
    started = time.perf_counter()
    if train:
        for _ in loop.train(run.trainees, run.shuffle, config):
            pass
    else:
        for _ in range(config.n_steps):
            next(run.shuffle)
    return time.perf_counter() - started


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coders", type=int, default=8)
    parser.add_argument("--rows", type=int, default=65_536, help="tokens to train on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
