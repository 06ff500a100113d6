"""Write latents as the files of other dashboards: SAEDashboard's batches, and Neuronpedia's tree and uploads."""

import gzip
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from unweave.errors import UserError
from unweave.formats.neuronpedia import (
    PER_UPLOAD,
    Address,
    UploadBatch,
    UploadFeature,
    about_rows,
    activation_rows,
    feature_row,
    row_json,
    safe_texts,
    slug,
    upload_feature,
)
from unweave.formats.saedashboard import SKIPPED, Batch, batch_json, feature_of, skipped_json
from unweave.latent_record import LatentRecord
from unweave.pipelines.export_sources import ExportConfig, LatentSource, Told, watched

PER_BATCH = 128
"""Latents of one file, as many as theirs have."""


def write_saedashboard(sources: Sequence[LatentSource], folder: Path, config: ExportConfig, told: Told) -> None:
    """``batch-N.json``, and ``skipped_indexes.json`` for latents that never fire; takes one coder."""
    if len(sources) != 1:
        raise UserError(f"a folder of SAEDashboard's is of one coder, got {len(sources)} runs; export one at a time")
    (source,) = sources
    place = Batch(
        model_id=config.model_id or source.model,
        layer=source.layer,
        sae_set=config.name or source.name,
        features=[],
    )
    dead: list[int] = []
    for number, records in enumerate(_batches(watched(sources, told), PER_BATCH)):
        living = [record for record in records if not record.is_dead]
        dead += [record.latent for record in records if record.is_dead]
        features = [feature_of(record, source.vocabulary, source.prompts) for record in living]
        batch = Batch(model_id=place.model_id, layer=place.layer, sae_set=place.sae_set, features=features)
        (folder / f"batch-{number}.json").write_bytes(batch_json(batch))
    (folder / SKIPPED).write_bytes(skipped_json(place, dead, source.n_tokens))


def write_neuronpedia(sources: Sequence[LatentSource], folder: Path, config: ExportConfig, told: Told) -> None:
    """A folder for each coder: what its importer reads, and ``upload/`` with bodies of requests."""
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    addresses = [
        Address(
            model=config.model_id or slug(source.model.rsplit("/", 1)[-1]),
            layer=source.layer,
            source_set=config.name or slug(source.name),
            created=created,
        )
        for source in sources
    ]
    if len({(at.model, at.source) for at in addresses}) < len(addresses):
        raise UserError("two of these runs would have one address on Neuronpedia; export them one at a time")
    records = watched(sources, told)
    for source, at in zip(sources, addresses, strict=True):
        own = islice(records, len(source.chosen))
        _write_source(source, at, own, folder / at.model / at.source)


def _write_source(source: LatentSource, at: Address, records: Iterable[LatentRecord], folder: Path) -> None:
    for name in ("features", "activations", "upload"):
        (folder / name).mkdir(parents=True)
    description = f"{source.n_latents:,} latents at {source.site}, by unweave"
    for name, row in about_rows(at, source.prompts, description).items():
        (folder / f"{name}.jsonl").write_bytes(row_json(row) + b"\n")
    labels = source.notes.labels() if source.notes else {}
    for number, batch in enumerate(_batches(records, PER_BATCH)):
        texts = safe_texts(source.vocabulary)
        both = [(record, feature_of(record, texts, source.prompts)) for record in batch]
        name = f"batch-{number}.jsonl.gz"
        _write_rows(folder / "features" / name, (feature_row(*pair, at) for pair in both))
        _write_rows(folder / "activations" / name, (row for pair in both for row in activation_rows(*pair, at)))
        uploads = (upload_feature(dashboard, [labels.get(record.latent, "")]) for record, dashboard in both)
        _write_upload(folder / "upload" / f"batch-{number}.json", at, [upload for upload in uploads if upload])


def _write_upload(path: Path, at: Address, features: list[UploadFeature]) -> None:
    assert len(features) <= PER_UPLOAD
    if features:
        path.write_bytes(row_json(UploadBatch(modelId=at.model, source=at.source, features=features)))


def _write_rows(path: Path, rows: Iterable[object]) -> None:
    """Gzipped without a time, so that the same rows are the same bytes."""
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=5, mtime=0) as packed,
    ):
        for row in rows:
            packed.write(row_json(row) + b"\n")


def _batches(records: Iterable[LatentRecord], size: int) -> Iterator[list[LatentRecord]]:
    rest = iter(records)
    while batch := list(islice(rest, size)):
        yield batch
