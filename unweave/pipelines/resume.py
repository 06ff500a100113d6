"""Go on with a run that was cut short, unless its recipe is another by now."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from unweave.config import parse_toml
from unweave.errors import UserError
from unweave.formats.files import write_atomically
from unweave.pipelines.processes import joined_ranks, process_number
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import Plan, read_plan
from unweave.pipelines.row_source import open_source
from unweave.pipelines.run_plan import train_and_measure
from unweave.pipelines.sweep import write_sweep
from unweave.pipelines.training_run import new_training_run, resumed_training_run
from unweave.storage.checkpoints import newest_checkpoint
from unweave.storage.run_folder import CHECKPOINTS, partial_folder, reopened_run_folder, unfinished_run


def resume(
    path: Path,
    watch: Watch,
    recipe: str = "",
    overrides: Sequence[str] = (),
    *,
    allow_changes: bool = False,
    allow_previous: bool = False,
) -> Path:
    """Go on with a run that was killed or stopped by Ctrl-C, from its last checkpoint; it ends with the same bits.

    ``recipe`` and ``overrides``: where the recipe should differ from the run's own, which needs ``allow_changes``. A
    damaged checkpoint is named; with ``allow_previous`` the one before it is used.
    """
    found = unfinished_run(path)
    own = str(found / "config.toml")
    plan = read_plan(own, [])
    if recipe or overrides:
        changed = read_plan(recipe or own, list(overrides))
        check_unchanged(plan, changed, allow_changes)
        plan = changed
    is_first = process_number() == 0
    with joined_ranks(plan.recipe.training.latent_parts) as ranks:
        checkpoint = newest_checkpoint(found / CHECKPOINTS, allow_previous=allow_previous, ranks=ranks)
        n_steps = plan.recipe.training.n_steps
        if found == path and checkpoint is not None and checkpoint.step >= n_steps:
            raise UserError(
                f"{str(path)!r} is complete: all {n_steps:,} steps are done; `unweave evaluate` measures it anew"
            )
        with watch.waiting("loading the model and the text"):
            source = open_source(plan, watch.say, ranks)
            if checkpoint is None:
                run = new_training_run(plan, source, ranks)
            else:
                run = resumed_training_run(plan, source, checkpoint, ranks)
        with reopened_run_folder(path) if is_first else nullcontext(partial_folder(path)) as folder:
            if is_first:
                write_atomically(folder / "config.toml", plan.to_toml())
            watch.say(f"going on after step {run.n_done:,} of {plan.recipe.training.n_steps:,}")
            train_and_measure(folder, path.name, run, source, watch)
    if plan.is_grid:
        write_sweep(path)
    return path


def check_unchanged(before: Plan, after: Plan, allow_changes: bool) -> None:
    """Raise ``UserError`` where a recipe differs from that of the run to resume, unless that is asked for."""
    changes = differences(parse_toml(before.to_toml(), "before"), parse_toml(after.to_toml(), "after"))
    if changes and not allow_changes:
        raise UserError(
            f"the recipe differs from that of the run: {'; '.join(changes)}; pass --allow-changes to go on with it"
        )


def differences(before: dict[str, Any], after: dict[str, Any], path: str = "") -> list[str]:
    """Each setting that differs, as ``training.lr: 0.001 -> 0.002``."""
    found = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        name = f"{path}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{name}.")
        elif old != new:
            found.append(f"{name}: {_shown(old)} -> {_shown(new)}")
    return found


def _shown(value: Any) -> str:
    return "default" if value is None else str(value)
