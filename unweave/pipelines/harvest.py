"""Fill an activation cache: run the model over the training text once, so that many coders can be trained from disk."""

import time
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unweave.activations.ahead import ahead
from unweave.activations.quantize import StoredDtype, check_stored_dtype
from unweave.activations.shard_files import Manifest, ShardFolder, check_sizes, read_manifest
from unweave.activations.shard_writer import ShardWriter
from unweave.activations.shards import Shards
from unweave.errors import UserError
from unweave.pipelines.interrupt import stop_on_interrupt
from unweave.pipelines.progress import Watch
from unweave.pipelines.provenance import NAMES, origin
from unweave.pipelines.recipe import Plan, read_plan
from unweave.pipelines.row_source import ModelRows
from unweave.pipelines.workbench import Places, set_up

SHARD_ROWS = 65_536
"""Rows after which a shard ends: 100 MB of bfloat16 at a width of 768."""
_AHEAD = 2
"""Token batches that the model may be ahead of writing."""


def harvest(
    recipe: str | Path,
    *overrides: str,
    out: str | Path = "",
    rows: int | None = None,
    dtype: str = "bfloat16",
    shard_rows: int = SHARD_ROWS,
    sites: Sequence[str] = (),
    quiet: bool = False,
) -> Shards:
    """Write activations of a recipe's training text to ``out``, a folder or fsspec address, by default its ``cache``.

    ``rows`` is by default the recipe's ``training.rows``, ``sites`` those that its coders read and write. What is there
    already is kept, and harvesting goes on behind it. Raises ``UserError`` for what is wrong in the recipe, for a cache
    that was made from something else, and where a shard cannot be written; and ``KeyboardInterrupt`` after Ctrl-C, when
    the shards that are complete are in place.
    """
    plan = read_plan(str(recipe), list(overrides))
    address = str(out) or plan.recipe.cache
    if not address:
        raise UserError("activations need a place: give --out, a folder or address, or set cache in the recipe")
    n_rows = plan.recipe.training.rows if rows is None else rows
    if n_rows < 1:
        raise UserError(f"a cache has at least 1 row, got rows={n_rows}")
    watch = Watch(quiet=quiet)
    stored_dtype = check_stored_dtype(dtype)
    with watch.waiting("loading the model and the text"):
        source = _source(plan, sites)
        new = _manifest(source, stored_dtype)
        folder = ShardFolder(address)
        there = _what_is_there(folder, new)
    _fill(ShardWriter(folder, there or new, shard_rows), source, n_rows, watch)
    return Shards(address)


def _source(plan: Plan, sites: Sequence[str]) -> ModelRows:
    """The model and the text, for the given sites or those of all the plan's coders."""
    bench = set_up(plan.recipe)
    if not sites:
        return ModelRows(bench, {name: bench.places(job.recipe) for name, job in plan.jobs.items()})
    names = tuple(bench.model.sites.resolve(site).name for site in sites)
    return ModelRows(bench, {"cache": Places(names, names)})


def _manifest(source: ModelRows, dtype: StoredDtype) -> Manifest:
    made_with = {name: version(name) for name in ("unweave", "torch", "transformers", "tokenizers")}
    model = source.bench().model
    return Manifest(
        origin=origin(source.bench()),
        sites={site: model.width(site) for site in source.sites},
        dtype=dtype,
        made_with=made_with | {"device": str(model.device)},
    )


def _what_is_there(folder: ShardFolder, new: Manifest) -> Manifest | None:
    """The manifest of a cache that can be gone on with, or None where the folder is free."""
    there = read_manifest(folder)
    if there is None:
        if folder.sizes():
            raise UserError(f"{folder.address!r} holds other files; choose another --out")
        return None
    was, now = _facts(there), _facts(new)
    for name in {**was, **now}:
        if was.get(name) != now.get(name):
            raise UserError(
                f"{folder.address!r} was harvested with {name} {was.get(name, 'unset')}, now it is "
                f"{now.get(name, 'unset')}; choose another --out, or what it was made with"
            )
    check_sizes(folder, there)
    return there


def _facts(manifest: Manifest) -> dict[str, Any]:
    """What must be the same for new shards to belong to old ones, by name."""
    facts = {
        f"{section}.{name}": value
        for section, values in manifest.origin.items()
        for name, value in values.items()
        if name not in NAMES
    }
    sites = ", ".join(f"{site} ({width} wide)" for site, width in sorted(manifest.sites.items()))
    return {"sites": sites, "dtype": manifest.dtype, **facts}


def _fill(writer: ShardWriter, source: ModelRows, n_rows: int, watch: Watch) -> None:
    """Write shards until there are ``n_rows``."""
    started, n_before = time.time(), writer.n_rows
    if n_before >= n_rows:
        return
    if n_before:
        watch.say(f"going on after {n_before:,} of {n_rows:,} rows")
    with (
        closing(ahead(source.rows(writer.manifest.after), _AHEAD)) as batches,
        watch.bar("harvesting", n_rows) as bar,
        stop_on_interrupt() as interrupt,
    ):
        bar.at(n_before)
        for rows in batches:
            writer.add(rows)
            speed = (writer.n_rows - n_before) / (time.time() - started)
            bar.at(min(writer.n_rows, n_rows), **{"rows/s": f"{speed:,.0f}"})
            if writer.n_rows >= n_rows:
                break
            if interrupt.requested:
                kept = f"{writer.manifest.rows:,} of {n_rows:,} rows are in complete shards"
                raise KeyboardInterrupt(f"stopped: {kept}; the same command goes on behind them")
        writer.finish_shard()
