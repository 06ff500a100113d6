"""Documents of a Hugging Face data set, streamed from the hub or from a local folder that ``datasets`` can read."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unweave.errors import UserError, nearest
from unweave.formats.documents import Stream
from unweave.formats.records import check_column, document_of, field_name
from unweave.types import Document

_SECONDS_TO_ANSWER = 5.0


def hub_stream(source: str, split: str, subset: str, field: str, *, chat: bool) -> Stream:
    """The rows of one split; ``source`` is ``hf:`` and an id or a local folder. Nothing is downloaded as a whole.

    Raises ``UserError`` within seconds where the hub does not answer.
    """
    name = source.removeprefix("hf:")
    rows = open_split(source, split, subset)
    field = field_name(field, chat=chat)
    if rows.column_names is not None:
        check_column(field, list(rows.column_names), f"data set {name!r}")
        rows = rows.select_columns([field])
    known = rows.info.splits.get(split) if rows.info.splits else None
    n_rows = known.num_examples if known is not None and known.num_examples else None

    def read(start: int) -> Iterator[Document]:
        numbered = enumerate(rows.skip(start) if start else rows, start)
        while True:
            number, record = _next(numbered, name)
            if record is None:
                return
            yield document_of(f"{name}#{number}", record, field, f"data set {name!r} row {number}", chat=chat)

    return Stream(source, read, lambda number: f"{name}#{number}", n_rows, "\0".join((source, split, subset, field)))


def open_split(source: str, split: str, subset: str, section: str = "text") -> Any:
    """The rows of one split as a stream; ``section``: what the settings that errors name begin with.

    Raises ``UserError`` within seconds where the hub does not answer.
    """
    name = source.removeprefix("hf:")
    path = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not path.is_dir():
        raise UserError(f"there is no folder {name!r} for {section} {source!r}; give a folder or the id of a data set")
    if not path.is_dir():
        _check_hub_answers(name, section)
    return _open(source, str(path) if path.is_dir() else name, split, subset, section)


def _open(source: str, name: str, split: str, subset: str, section: str) -> Any:
    import datasets

    was_shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        every: Any = datasets.load_dataset(name, subset or None, streaming=True)
    except Exception as error:  # scripts, missing files, private sets, formats: every kind of exception comes
        raise UserError(
            f"cannot read {section} {source!r}: {_first_line(error)}; check the id and {section}.subset"
        ) from error
    finally:
        if was_shown:
            datasets.enable_progress_bars()
    if split not in every:
        raise UserError(
            f"data set {name!r} has no split {split!r}{nearest(split, every)} (it has {', '.join(every)}); "
            f"set {section}.split"
        )
    return every[split]


def _next(numbered: Iterator[tuple[int, Any]], name: str) -> tuple[int, Any]:
    try:
        return next(numbered, (0, None))
    except Exception as error:  # the network, a damaged file, a column that changes its type
        raise UserError(
            f"reading data set {name!r} failed: {_first_line(error)}; try again, or copy it here"
        ) from error


def _check_hub_answers(name: str, section: str) -> None:
    """One request without repetition; ``datasets`` itself tries six times, for half a minute."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS_TO_ANSWER)
    except Exception as error:  # no network, no name, a proxy, offline mode: each client has its own classes
        raise UserError(
            f"the hub does not answer ({_first_line(error)}), so data set {name!r} cannot be read; with no network, "
            f"set {section}.source to a local file or to a folder written by datasets.save_to_disk"
        ) from error


def _first_line(error: Exception) -> str:
    return next(itertools.chain(str(error).strip().splitlines(), [type(error).__name__])).rstrip(".")
