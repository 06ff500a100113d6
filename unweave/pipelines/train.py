"""The main job: train a coder on a model's activations, measure it, look at its latents, write the run."""

from pathlib import Path

from unweave.errors import UserError
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import Job, Plan, read_plan
from unweave.pipelines.run_plan import default_folder, run_plan
from unweave.storage.run_folder import Run


def train(
    recipe: str | Path, *overrides: str, out: str | Path | None = None, overwrite: bool = False, quiet: bool = False
) -> Run:
    """Do the main job of a recipe (``"demo"`` or a TOML file) with overrides such as ``"coder.k=24"``.

    The run is written to ``out``, by default ``runs/`` and the recipe's name. Raises ``UserError`` for what is wrong
    in the recipe, the model or the text, before anything is written.
    """
    plan = read_plan(str(recipe), list(overrides))
    if plan.is_grid:
        raise UserError(f"the recipe asks for {len(plan.jobs)} coders; `unweave sweep` trains them in one pass")
    return Run(run_plan(plan, default_folder(recipe, out), Watch(quiet=quiet), overwrite=overwrite))


def run_job(job: Job, out: Path, watch: Watch, *, overwrite: bool = False) -> Run:
    """Train, measure and report one coder into ``out``."""
    return Run(run_plan(Plan({}, {job.coder_type: job}), out, watch, overwrite=overwrite))
