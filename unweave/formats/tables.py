"""Documents of tables on this machine: .parquet and .arrow files, and folders written by datasets.save_to_disk.

Tables may be larger than memory, so they are read as streams, in their own order, a batch of rows at a time.
"""

import bisect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unweave.errors import UserError, nearest
from unweave.formats.documents import Stream
from unweave.formats.records import check_column, document_of, field_name
from unweave.types import Document

ENDINGS = (".parquet", ".arrow")
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class _Table:
    """One file or one saved split."""

    name: str
    where: str
    """What errors call it."""
    n_rows: int
    values: Callable[[int], Iterator[Any]]
    """What the column holds from a row on."""


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by ``datasets.save_to_disk``."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def table_files(source: str, files: list[Path], root: Path, field: str, *, chat: bool) -> Stream:
    """The rows of .parquet and .arrow files, one file after the other; ``root``: what their names are relative to."""
    field = field_name(field, chat=chat)
    open_one = {".parquet": _parquet, ".arrow": _arrow}
    tables = [open_one[file.suffix](file, file.relative_to(root).as_posix(), field) for file in files]
    sizes = (f"{table.name}\0{table.n_rows}\0{file.stat().st_size}" for table, file in zip(tables, files, strict=True))
    identity = "\0".join(sizes)
    return _stream(source, tables, field, identity, chat=chat)


def saved_data_set(source: str, folder: Path, split: str, field: str, *, chat: bool) -> Stream:
    """The rows of one split of a folder written by ``datasets.save_to_disk``."""
    import datasets

    field = field_name(field, chat=chat)
    where = repr(str(folder))
    with _named(where):
        saved = datasets.load_from_disk(str(folder))
    if isinstance(saved, datasets.DatasetDict):
        splits = [str(name) for name in saved]
        if split not in splits:
            raise UserError(
                f"{where} has no split {split!r}{nearest(split, splits)} (it has {', '.join(splits)}); set text.split"
            )
        saved = saved[split]
    elif split != "train":
        raise UserError(f"{where} has no splits, so text.split={split!r} has no effect; remove it")
    check_column(field, saved.column_names, where)
    rows = saved.select_columns([field])

    def values(start: int) -> Iterator[Any]:
        for at in range(start, len(rows), _ROWS_AT_ONCE):
            with _named(where):
                batch = rows[at : at + _ROWS_AT_ONCE][field]
            yield from batch

    table = _Table(folder.name, where, len(rows), values)
    return _stream(source, [table], field, f"{folder.name}\0{split}\0{rows._fingerprint}", chat=chat)


def _stream(source: str, tables: list[_Table], field: str, identity: str, *, chat: bool) -> Stream:
    """Tables one after the other; raises ``UserError`` where they have no rows."""
    ends = list(itertools.accumulate(table.n_rows for table in tables))
    if not ends[-1]:
        raise UserError(f"text {source!r} is empty; give a table with rows in it")

    def read(start: int) -> Iterator[Document]:
        for table, end in zip(tables, ends, strict=True):
            first = max(0, start - end + table.n_rows)
            if first < table.n_rows:
                for row, value in enumerate(table.values(first), first):
                    where = f"{table.where} row {row}"
                    yield document_of(f"{table.name}#{row}", {field: value}, field, where, chat=chat)

    def name_of(number: int) -> str:
        i = bisect.bisect_right(ends, number)
        return f"{tables[i].name}#{number - ends[i] + tables[i].n_rows}"

    return Stream(source, read, name_of, ends[-1], f"{identity}\0{field}")


def _parquet(file: Path, name: str, field: str) -> _Table:
    import pyarrow.parquet as pq

    where = repr(str(file))
    with _named(where):
        opened = pq.ParquetFile(file)
    with opened:
        check_column(field, opened.schema_arrow.names, where)
        counts = [opened.metadata.row_group(i).num_rows for i in range(opened.metadata.num_row_groups)]

    def batches(start: int) -> Iterator[tuple[int, Any]]:
        skipped = 0
        while skipped < len(counts) and sum(counts[: skipped + 1]) <= start:
            skipped += 1
        row = sum(counts[:skipped])
        with pq.ParquetFile(file) as opened:
            groups = range(skipped, len(counts))
            for batch in opened.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=[field]):
                yield row, batch.column(0)
                row += batch.num_rows

    return _Table(name, where, sum(counts), lambda start: _values(batches(start), start, where))


def _arrow(file: Path, name: str, field: str) -> _Table:
    """A file of Arrow's stream format, which ``datasets`` writes, or of its file format; both are memory-mapped."""
    import pyarrow as pa

    where = repr(str(file))

    def batches(start: int) -> Iterator[tuple[int, Any]]:
        row = 0
        with pa.memory_map(str(file)) as mapped:
            for batch in _arrow_batches(mapped):
                for at in range(0, batch.num_rows, _ROWS_AT_ONCE):
                    part = batch.slice(at, _ROWS_AT_ONCE)
                    if row + part.num_rows > start:
                        yield row, part.column(field)
                    row += part.num_rows

    with _named(where), pa.memory_map(str(file)) as mapped:
        n_rows, columns = 0, list(_arrow_schema(mapped).names)
        mapped.seek(0)
        n_rows = sum(batch.num_rows for batch in _arrow_batches(mapped))
    check_column(field, columns, where)
    return _Table(name, where, n_rows, lambda start: _values(batches(start), start, where))


def _arrow_schema(mapped: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_file(mapped).schema
    except pa.ArrowInvalid:
        mapped.seek(0)
        return pa.ipc.open_stream(mapped).schema


def _arrow_batches(mapped: Any) -> Iterator[Any]:
    import pyarrow as pa

    try:
        opened = pa.ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        yield from pa.ipc.open_stream(mapped)
    else:
        yield from (opened.get_batch(i) for i in range(opened.num_record_batches))


def _values(batches: Iterator[tuple[int, Any]], start: int, where: str) -> Iterator[Any]:
    """What batches of a column hold, each with the number of its first row, from row ``start`` on."""
    while True:
        with _named(where):
            row, column = next(batches, (0, None))
            values = None if column is None else column.slice(max(0, start - row)).to_pylist()
        if values is None:
            return
        yield from values


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Errors of the libraries as one line that names the file."""
    import pyarrow as pa

    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{where} is damaged or no table ({line}); make or copy it again") from error
