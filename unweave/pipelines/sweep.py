"""A sweep: many coders in one pass of the model, and what sparsity costs each of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unweave.analysis.pareto import SweptCoder, pareto_lines
from unweave.analysis.swept import Chains
from unweave.coders import architecture
from unweave.errors import UserError
from unweave.formats.files import write_atomically
from unweave.metrics import definitions
from unweave.pages.sweep import sweep_files, sweep_png
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import Job, Plan, read_plan
from unweave.pipelines.report import figures, replace_folder
from unweave.pipelines.run_plan import coder_folders, default_folder, run_plan
from unweave.pipelines.sweep_chains import Member, chains
from unweave.storage.run_folder import Run


def sweep(
    recipe: str | Path, *overrides: str, out: str | Path | None = None, overwrite: bool = False, quiet: bool = False
) -> list[Run]:
    """Train every coder of a recipe's grid in one pass of the model; returns their runs.

    Overrides may hold lists, such as ``"coder.k=[16, 32, 64]"`` and ``"seed=[0, 1, 2]"``. The folder ``out``, by
    default ``runs/`` and the recipe's name, gets the coders' runs and a page that compares them.
    """
    plan = read_plan(str(recipe), list(overrides))
    folder = default_folder(recipe, out)
    run_sweep(plan, folder, Watch(quiet=quiet), overwrite=overwrite)
    return [Run(path) for path in coder_folders(folder, plan).values()]


def run_sweep(plan: Plan, out: Path, watch: Watch, *, overwrite: bool = False) -> Path:
    """The sweep of a plan; returns the path of the page that compares its coders."""
    if not plan.is_grid:
        raise UserError(
            "a sweep needs several coders: give a list of values, such as 'coder.k=[16, 32, 64]' or 'seed=[0, 1]'"
        )
    run_plan(plan, out, watch, overwrite=overwrite)
    return write_sweep(out)


def write_sweep(folder: Path) -> Path:
    """Write ``report/`` of a sweep whose coders are measured; returns the path of its page."""
    plan = read_plan(str(folder / "config.toml"), [])
    coders = swept_coders(folder, plan)
    first = Run(next(iter(coder_folders(folder, plan).values())))
    facts = {
        "Model": plan.recipe.model.name,
        "Coders": f"{len(coders)}, trained in one pass of the model",
        "Trained on": f"{first.manifest['rows_trained']:,} tokens each",
        "Measured on": f"{first.results['n_tokens']:,} tokens of held-out documents",
    }
    files = sweep_files(folder.name, facts, coders, swept_chains(folder, plan), definitions())
    replace_folder(folder / "report", files.items())
    png = sweep_png(folder.name, pareto_lines(coders), definitions())
    write_atomically(folder / "report" / "sweep.png", png)
    return folder / "report" / "index.html"


def read_sweep(folder: Path) -> dict[str, Any]:
    """What the page of a sweep says, as it is in ``sweep.json``."""
    return json.loads((folder / "report" / "sweep.json").read_text(encoding="utf-8"))


def swept_chains(folder: Path, plan: Plan) -> Chains:
    """What the coders of a sweep say together: laws over widths, families and tracks of latents."""
    folders = coder_folders(folder, plan)
    return chains([Member(name, folders[name], dict(_flat(job))) for name, job in plan.jobs.items()])


def swept_coders(folder: Path, plan: Plan) -> list[SweptCoder]:
    """The coders of a sweep with their figures, and what sets them apart."""
    flat = {name: dict(_flat(job)) for name, job in plan.jobs.items()}
    found = []
    for name, path in coder_folders(folder, plan).items():
        job = plan.jobs[name]
        sparsity = f"coder.{architecture(job.coder_type).sparsity}"
        of_type = [flat[other] for other, its in plan.jobs.items() if its.coder_type == job.coder_type]
        varying = [key for key in flat[name] if len({repr(values.get(key)) for values in of_type}) > 1]
        rest = [key for key in varying if key not in ("seed", sparsity)]
        line = ", ".join([job.coder_type, *(_shown(key, flat[name][key]) for key in rest)])
        setting = _shown(sparsity, flat[name].get(sparsity))
        found.append(SweptCoder(name, line, setting, figures(Run(path).results)))
    return found


def _flat(job: Job) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each setting that was given or has a default."""
    values = {**asdict(job.recipe), "coder": {"type": job.coder_type, **asdict(job.coder)}}
    for key, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items() if inner is not None)
        else:
            yield key, value


def _shown(key: str, value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " + ".join(map(str, value))
    return str(value) if isinstance(value, str) else f"{key.rpartition('.')[2]}={value:g}"
