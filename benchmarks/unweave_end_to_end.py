"""A whole training run of unweave, from text or from a cache, with the answers that the peers' script gives."""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.peers.turns import Driver, memory
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_plan
from unweave.pipelines.row_source import open_source
from unweave.pipelines.training_run import new_training_run, train_into
from unweave.training.loop import finish


def main() -> None:
    driver = Driver()
    parser = argparse.ArgumentParser()
    for name in ("recipe", "heldout"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    told = parser.parse_args()
    plan = build_plan(json.loads(told.recipe.read_text()))
    driver.introduce(library="unweave")
    source = open_source(plan)
    started = time.perf_counter()
    run = new_training_run(plan, source)
    with tempfile.TemporaryDirectory() as folder:
        train_into(Path(folder), dict.fromkeys(plan.jobs, Path(folder)), run, Watch(quiet=True))
    coders = [finish(trainee) for trainee in run.trainees]
    seconds = time.perf_counter() - started
    rows_BD = load_file(told.heldout)["rows"]
    with torch.no_grad():
        error = torch.cat([rows - coders[0](rows) for rows in rows_BD.split(2048)])
    explained = 1 - (error.square().sum() / (rows_BD - rows_BD.mean(0)).square().sum()).item()
    driver.say({"seconds": seconds, "peak_bytes": memory("VmHWM"), "explained_variance": explained})


if __name__ == "__main__":
    main()
