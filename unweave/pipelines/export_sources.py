"""What is exported: the latents of a run that has an index, or of a folder of SAEDashboard's files."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unweave.errors import UserError
from unweave.formats.saedashboard import Prompts, read_batches, record_of
from unweave.latent_record import LatentRecord
from unweave.storage.notes import Notes
from unweave.storage.run_folder import Run

Told = Callable[[int, int], None]
"""Called with the latents that are done, and how many there are in all."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What is written, and under which names."""

    latents: str = ""
    """Such as 0-99,120; all where empty."""
    reach: int | None = None
    """Tokens to each side of an example's peak; where it is None, as many as is usual in the format."""
    model_id: str = ""
    """The model's name there; where empty, made from its name here."""
    name: str = ""
    """Name of the coder there; where empty, that of the run's folder."""

    def __post_init__(self) -> None:
        if self.reach is not None and not 0 <= self.reach <= 511:
            raise UserError(f"reach is 0 to 511 tokens, since 1,024 are the most that is taken; got {self.reach}")


@dataclass(frozen=True, kw_only=True)
class LatentSource:
    """Latents that are read one at a time."""

    path: Path
    name: str
    model: str
    site: str
    prompts: Prompts
    n_tokens: int
    """Tokens on which the latents were measured."""
    n_latents: int
    """Of the coder; some of them are exported."""
    chosen: Sequence[int]
    """Those that are exported, in order."""
    vocabulary: Sequence[str]
    """Text of each token id; of dashboards, of those that were read so far."""
    records: Callable[[], Iterator[LatentRecord]]
    """Reads the chosen latents, in order."""
    notes: Notes | None = None
    """What people wrote of them."""

    @property
    def layer(self) -> int:
        """Number of the layer, as the site says it; raises ``UserError`` where it says none."""
        if found := re.search(r"(?:^|\.)(\d+)(?:\.|:|$)", self.site):
            return int(found[1])
        raise UserError(f"the site {self.site!r} of {self.name!r} names no layer, by which this format files latents")


def open_source(path: Path, latents: str, reach: int) -> LatentSource:
    """The latents ``latents`` (as ``0-99,120``; all where empty) of a run or of a folder of dashboards.

    ``reach``: tokens to each side of an example's peak. Raises ``UserError`` where the path is neither of the two.
    """
    path = path.expanduser()
    if path.is_dir() and not (path / "config.toml").is_file() and any(path.glob("batch-*.json")):
        return _of_dashboards(path, latents)
    return _of_run(Run(path), latents, reach)


def watched(sources: Sequence[LatentSource], told: Told) -> Iterator[LatentRecord]:
    """The records of all sources, one after another."""
    done, total = 0, sum(len(source.chosen) for source in sources)
    for source in sources:
        for record in source.records():
            yield record
            done += 1
            told(done, total)


def chosen_latents(text: str, n_latents: int) -> list[int]:
    """Numbers of latents from ``0-99,120``, each once and in order; all of them where the text is empty."""
    if not text.strip():
        return list(range(n_latents))
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not match:
            raise UserError(f"latents are given as 0-99,120, got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < n_latents:
            raise UserError(f"there are latents 0 to {n_latents - 1}, got {part.strip()!r}")
        chosen.update(range(first, last + 1))
    return sorted(chosen)


def _of_run(run: Run, latents: str, reach: int) -> LatentSource:
    index = run.latents
    index.verify()  # what is published is what was measured
    facts = index.manifest
    chosen = chosen_latents(latents, len(index))
    return LatentSource(
        path=run.path,
        name=run.path.resolve().name,
        model=facts["model"],
        site=facts["sites"][0],
        prompts=Prompts(dataset=facts["text"], n_prompts=facts["n_sequences"], n_tokens=facts["context"]),
        n_tokens=facts["n_rows"],
        n_latents=len(index),
        chosen=chosen,
        vocabulary=index.vocabulary(),
        records=lambda: (index.record(latent, reach=reach) for latent in chosen),
        notes=Notes(run.path / "notes.sqlite"),
    )


def _of_dashboards(folder: Path, latents: str) -> LatentSource:
    first, numbers = None, []
    for batch in read_batches(folder):
        first = first or batch
        numbers += [feature.feature_index for feature in batch.features]
    if first is None or not first.features:
        raise UserError(f"{str(folder)!r} holds no dashboards; give a folder with SAEDashboard's batch-0.json")
    wanted = set(chosen_latents(latents, 1 + max(numbers)))
    token_ids: dict[str, int] = {}
    vocabulary: list[str] = []

    def records() -> Iterator[LatentRecord]:
        for batch in read_batches(folder):
            for feature in batch.features:
                if feature.feature_index in wanted:
                    record = record_of(feature, token_ids)
                    vocabulary.extend(list(token_ids)[len(vocabulary) :])
                    yield record

    told = first.features[0]
    prompts = Prompts(dataset=told.dataset, n_prompts=told.n_prompts_total, n_tokens=told.n_tokens_in_prompt)
    return LatentSource(
        path=folder,
        name="-".join(part for part in (str(first.layer), first.sae_set, first.sae_id_suffix) if part),
        model=first.model_id,
        site=f"layers.{first.layer}",
        prompts=prompts,
        n_tokens=prompts.n_prompts * prompts.n_tokens,
        n_latents=1 + max(numbers),
        chosen=sorted(wanted.intersection(numbers)),
        vocabulary=vocabulary,
        records=records,
    )
