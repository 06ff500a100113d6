"""What is said of a run wherever it is named: its coder, its figures, and the state of its index."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from unweave.config import read_toml
from unweave.errors import UserError
from unweave.storage.index_folder import FOLDER, MANIFEST
from unweave.storage.run_folder import Run

IndexState = Literal["ready", "partial", "none"]


@dataclass(frozen=True)
class RunFacts:
    """Facts of one run."""

    name: str
    """In addresses."""
    path: str
    """Below the folder that is served."""
    model: str = ""
    reads: tuple[str, ...] = ()
    """Sites."""
    writes: tuple[str, ...] = ()
    """Sites, where they are others."""
    architecture: str = ""
    n_latents: int = 0
    explained_variance: float | None = None
    l0: float | None = None
    loss_recovered: float | None = None
    """Against the mean of the site in its place."""
    n_rows: float | None = None
    """Rows that the coder was trained on."""
    date: str | None = None
    """When it was measured, as ISO 8601 in the time zone of this machine."""
    index: IndexState = "none"
    problem: str = ""
    """Why the run cannot be shown, in one line."""


def run_facts(run: Run, *, name: str, path: str) -> RunFacts:
    """Facts of a run that is called ``name`` in addresses and ``path`` elsewhere; a problem with its files is one."""
    about: dict[str, Any] = {"name": name, "path": path, "index": index_state(run.path)}
    for read in (_of_coder, _of_results):
        try:
            about |= read(run)
        except (UserError, OSError) as error:
            about["problem"] = " ".join(str(error).split())
        except (KeyError, TypeError, AttributeError):
            about["problem"] = f"the coder of {str(run.path)!r} is damaged; train the run again"
    return RunFacts(**about)


def index_state(run: Path) -> IndexState:
    """Whether there is a whole index; ``partial`` where one was begun only."""
    if (run / FOLDER / MANIFEST).is_file():
        return "ready"
    return "partial" if (run / f"{FOLDER}.partial").is_dir() else "none"


def _of_coder(run: Run) -> dict[str, Any]:
    coder = read_toml(run.path / "coder" / "config.toml")
    reads, writes = (tuple(port["site"] for port in coder[kind]) for kind in ("reads", "writes"))
    return {
        "model": coder["model"],
        "reads": reads,
        "writes": () if writes == reads else writes,
        "architecture": coder["type"],
        "n_latents": coder["coder"]["n_latents"],
    }


def _of_results(run: Run) -> dict[str, Any]:
    if not (run.path / "results.json").is_file():
        return {"date": _date(run.path / "config.toml")}
    results = run.results
    return {
        "explained_variance": _figure(results, "explained_variance"),
        "l0": _figure(results, "l0"),
        "loss_recovered": _figure(results, "loss_recovered_mean"),
        "n_rows": _figure(run.manifest, "rows_trained"),
        "date": _date(run.path / "results.json"),
    }


def _figure(results: Mapping[str, Any], name: str) -> float | None:
    value = results.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _date(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(timespec="seconds")
