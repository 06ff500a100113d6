"""When checkpoints of a training are written, and which of them stay."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from unweave.pipelines.processes import process_number
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import Plan
from unweave.storage.checkpoints import checkpoints, write_checkpoint
from unweave.storage.run_folder import CHECKPOINTS

if TYPE_CHECKING:
    from unweave.pipelines.training_run import TrainingRun

_ROLLING = 2
"""Checkpoints that stay beside the new one's, in case it is damaged, the new one included."""


class Keeper:
    """Writes checkpoints when they are due and removes those that newer ones replace."""

    def __init__(self, folder: Path, run: "TrainingRun", watch: Watch) -> None:
        self.folder = folder
        self.run = run
        self.watch = watch
        self.planned = _planned(run.plan)
        self.last = time.monotonic()
        self.failed = False

    def look(self) -> None:
        minutes = self.run.plan.recipe.checkpoints.every_minutes
        is_due = minutes > 0 and time.monotonic() - self.last >= 60 * minutes
        is_due = is_due and self.run.n_done < self.run.plan.recipe.training.n_steps
        if self.run.any_wish(self.run.n_done in self.planned or is_due):
            self.keep()

    def keep(self) -> None:
        """Write a checkpoint; a disk that is full costs the checkpoint and not the training."""
        self.last = time.monotonic()
        try:
            write_checkpoint(self.folder, self.run.checkpoint(), self.run.ranks)
        except OSError as error:
            if not self.failed:
                reason = error.strerror or error
                self.watch.say(f"no checkpoint after step {self.run.n_done}: {reason}; free some space on its disk")
            self.failed = True
            return
        self.failed = False
        rolling = [path for path in checkpoints(self.folder) if _step(path) not in self.planned]
        if process_number() == 0:
            for path in rolling[:-_ROLLING]:
                shutil.rmtree(path)


def forget_checkpoints(folder: Path, plan: Plan) -> None:
    """Remove the checkpoints that were only there in case the training was cut short."""
    planned = _planned(plan)
    for path in checkpoints(folder / CHECKPOINTS):
        if _step(path) not in planned:
            shutil.rmtree(path)
    if (folder / CHECKPOINTS).is_dir() and not any((folder / CHECKPOINTS).iterdir()):
        (folder / CHECKPOINTS).rmdir()


def _planned(plan: Plan) -> set[int]:
    """Steps after which a checkpoint stays: at equal distances, each the next step that is logged."""
    config, count = plan.recipe.training, plan.recipe.checkpoints.kept
    ideal = (config.n_steps * (i + 1) / count for i in range(count))
    return {min(config.n_steps, 1 + config.log_every * round(step / config.log_every)) for step in ideal}


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
