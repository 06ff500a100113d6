"""Index a run: one pass over a text for all latents at once, and then all that follows from when they fire.

Fires go to disk block by block while the text is read (stage one) and are merged latent by latent (stage two), so
memory does not grow with the text. A reading that was cut short goes on where it stopped.
"""

import itertools
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from unweave.activations.coded import encoded
from unweave.activations.harvest import rows_of
from unweave.analysis.fires import IndexedText
from unweave.analysis.latent_facts import FireFacts, IndexConfig, Sheet, direction_facts
from unweave.coders import SparseCoder
from unweave.formats.files import write_atomically
from unweave.formats.native import coder_checksum
from unweave.models.logit_lens import logit_effects
from unweave.models.tokens import token_texts
from unweave.pipelines.processes import joined_ranks, leave
from unweave.pipelines.progress import Bar, Watch
from unweave.pipelines.workbench import SEQUENCES, Workbench, bench_of, up_to
from unweave.storage.fire_blocks import FireBlocks, batches_per_block
from unweave.storage.fire_columns import ColumnsWriter
from unweave.storage.index_folder import FOLDER, PARTIAL, TABLE, LatentIndex, write_manifest, write_text
from unweave.storage.latent_table import write_table
from unweave.storage.run_folder import Run
from unweave.training.ranks import Ranks
from unweave.types import Document, Part

_CHANGES = ("index.", "text.", "model.device", "model.spread")
"""Beginnings of the settings that may differ from those of the training."""
_READING = "reading.json"


def index_run(path: str | Path, watch: Watch, *, text: str = "", overrides: Sequence[str] = ()) -> LatentIndex:
    """Make ``index/`` in a run's folder, of held-out text, or of all of another ``text``, as in ``text.source``.

    Under torchrun the processes read the text in parts; the first finishes the index alone, and the others end.
    """
    run = Run(path)
    given = [f"text.source={text}", *overrides] if text else list(overrides)
    with joined_ranks(1) as ranks:
        with watch.waiting("loading the model and the text"):
            bench = bench_of(run, given, _CHANGES, "index")
            coder = run.coder.to(bench.model.device)
        try:
            index_into({run.path: coder}, bench, watch, whole_text=bool(text), ranks=ranks)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("what was read is kept; the same command goes on from there") from stop
    return LatentIndex(run.path / FOLDER)


def index_into(
    coders: Mapping[Path, SparseCoder],
    bench: Workbench,
    watch: Watch,
    *,
    whole_text: bool = False,
    ranks: Ranks | None = None,
) -> None:
    """Make ``index/`` in the folders of some runs, in one pass of the model over the text.

    With ``ranks``, the blocks of the text are read by all of them, and only the first comes back.
    """
    corpus = bench.corpus
    documents = [corpus.train, corpus.held_out] if whole_text else [corpus.held_out]
    facts = {folder: _facts(folder, coder, bench, whole_text) for folder, coder in coders.items()}
    if ranks is None or ranks.rank == 0:
        for folder in coders:
            _begin(folder / PARTIAL, facts[folder])
    if ranks is not None:
        ranks.wait()
    started = time.monotonic()
    per_block = batches_per_block(bench.recipe.packing.context, SEQUENCES)
    blocks = {folder: FireBlocks(folder / PARTIAL, coder.n_latents, per_block) for folder, coder in coders.items()}
    part = Part() if ranks is None else Part(ranks.rank, ranks.count)
    _read(coders, blocks, bench, itertools.chain.from_iterable(documents), watch, part)
    if ranks is not None:
        leave(ranks)
    told = {"seconds_reading": round(time.monotonic() - started, 1)}
    for folder, coder in coders.items():
        names = itertools.chain.from_iterable(part.names() for part in documents)
        _finish(folder / PARTIAL, blocks[folder], coder, bench, names, watch, facts[folder] | told)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        (folder / PARTIAL).replace(folder / FOLDER)


@torch.no_grad()
def _read(
    coders: Mapping[Path, SparseCoder],
    blocks: Mapping[Path, FireBlocks],
    bench: Workbench,
    documents: Iterable[Document],
    watch: Watch,
    part: Part,
) -> None:
    """Write the fires of a part of the text to disk; blocks that are there already are not read again."""
    n_tokens, max_norm, number, seen = bench.recipe.index.tokens, bench.recipe.packing.max_norm, -1, 0
    sites = list(dict.fromkeys(port.site for coder in coders.values() for port in coder.wiring.reads))
    per_block = next(iter(blocks.values())).per_block
    with watch.bar("reading the text", n_tokens) as bar:
        for number, batch in enumerate(up_to(bench.token_batches(documents, SEQUENCES), n_tokens)):
            seen += int(batch.is_content.sum())
            bar.at(min(seen, n_tokens))
            missing = [folder for folder in coders if not blocks[folder].has(number)]
            if number // per_block % part.of != part.number or not missing:
                continue
            captured = bench.model.capture(batch.token_ids, sites)
            rows = rows_of(batch, captured, max_norm=max_norm)
            places = rows.sequences * batch.token_ids.shape[1] + rows.positions
            for folder in missing:
                blocks[folder].update(number, batch, places, encoded(coders[folder], captured, places))
    for waiting in blocks.values():
        waiting.end(number + 1)


def _finish(
    folder: Path,
    blocks: FireBlocks,
    coder: SparseCoder,
    bench: Workbench,
    names: Iterator[str],
    watch: Watch,
    facts: Mapping[str, Any],
) -> None:
    """Make all files of an index from blocks of fires, which are removed."""
    started = time.monotonic()
    config = bench.recipe.index
    text, counts = blocks.text(), blocks.counts()
    write_text(folder, text)
    documents = list(itertools.islice(names, 1 + int(text.document_ids.max())))
    with watch.bar("logits", coder.n_latents) as bar:
        last = coder.wiring.writes[-1]  # of several sites, the last is nearest to the logits
        written = coder.W_dec[:, -last.width :]
        effects = logit_effects(bench.model, last.site, written, config.promoted, told=lambda done, _: bar.at(done))
    with watch.bar("latent by latent", coder.n_latents) as bar:
        sheets = _sheets(folder, blocks, counts, text, config, direction_facts(coder, effects, config), bar)
        write_table(folder / TABLE, sheets, token_texts(bench.model, range(bench.model.n_vocabulary)), documents)
    blocks.clear()
    (folder / _READING).unlink(missing_ok=True)
    about = {
        "n_rows": text.n_rows,
        "n_sequences": len(text.token_ids),
        "context": text.context,
        "n_documents": len(documents),
        "n_fires": int(counts.sum()),
        "seconds_finishing": round(time.monotonic() - started, 1),
    }
    write_manifest(folder, {**facts, **about})


def _sheets(
    folder: Path,
    blocks: FireBlocks,
    counts: Int[np.ndarray, " L"],
    text: IndexedText,
    config: IndexConfig,
    directions: Iterator[Sheet],
    bar: Bar,
) -> Iterator[Sheet]:
    """All that is kept of each latent, while its fires are written."""
    columns = ColumnsWriter(folder, counts, text.token_ids.size)
    facts = FireFacts(text, blocks.by_place(), config)
    for fires in blocks.fires(counts):
        columns.write(fires)
        for sheet in facts.sheets(fires):
            yield sheet | next(directions)
        bar.at(fires.first + len(fires))
    columns.close()


def _facts(folder: Path, coder: SparseCoder, bench: Workbench, whole_text: bool) -> dict[str, Any]:
    saved = folder / "coder"
    return {
        "coder": coder_checksum(saved) if saved.is_dir() else "",  # only the first of several processes has it
        "model": bench.recipe.model.name,
        "sites": [port.site for port in coder.wiring.reads],
        "text": bench.recipe.text.source,
        "whole_text": whole_text,
        "text_sha256": bench.corpus.sha256(),
        "n_latents": coder.n_latents,
        "settings": asdict(bench.recipe.index),
        "packing": asdict(bench.recipe.packing),
    }


def _begin(partial: Path, facts: Mapping[str, Any]) -> None:
    """An empty folder to write to, or the one in which the same reading was cut short."""
    told = json.dumps(facts, indent=2)
    if partial.is_dir() and (not (partial / _READING).is_file() or (partial / _READING).read_text() != told):
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_atomically(partial / _READING, told)
