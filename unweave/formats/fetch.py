"""Fetch the files of a published dictionary, once: from the hub into its cache, or from a web address beside it.

What is in the cache is used without asking the hub. Where files have to be fetched and cannot be, the error says which,
and how to do without.
"""

import os
import urllib.request
from pathlib import Path

from unweave.errors import UserError
from unweave.formats.files import atomic_file
from unweave.formats.releases import Found

_SECONDS_TO_ANSWER = 5.0
_PIECE = 2**20


def fetch(found: Found, cache: Path | None = None) -> Path:
    """The folder or file to read, on this machine; ``cache`` is that of ``huggingface_hub`` by default.

    Raises ``UserError``, within seconds where nothing answers.
    """
    folder = (_web if found.repository.startswith("https://") else _hub)(found, cache or _default_cache())
    if lacking := [file for file in (*found.files, found.path) if not (folder / file).exists()]:
        raise UserError(f"{_address(found)} has no {lacking[0]!r}, which is needed for {found.name!r}")
    return folder / found.path


def _hub(found: Found, cache: Path) -> Path:
    """The folder of a snapshot that has the files."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    cached = _cached(found, cache)
    if cached is not None and found.files:
        return cached
    was_shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        revision = HfApi().model_info(found.repository, timeout=_SECONDS_TO_ANSWER).sha
        wanted = [*found.files, *found.optional]
        return Path(snapshot_download(found.repository, revision=revision, allow_patterns=wanted, cache_dir=cache))
    except Exception as error:  # no network, no such repository, offline mode: each has its own classes
        if cached is not None:
            return cached
        raise _not_fetched(found, error) from error
    finally:
        if was_shown:
            enable_progress_bars()


def _cached(found: Found, cache: Path) -> Path | None:
    """The newest snapshot in the hub's cache that has all the files."""
    snapshots = cache / f"models--{found.repository.replace('/', '--')}" / "snapshots"
    folders = sorted(snapshots.glob("*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    needed = (*found.files, found.path)
    return next((folder for folder in folders if all((folder / file).exists() for file in needed)), None)


def _web(found: Found, cache: Path) -> Path:
    """A folder in the cache that has the same files as a folder on the web."""
    folder = cache / "web" / found.repository.removeprefix("https://")
    for file in found.files:
        if (folder / file).is_file():
            continue
        try:
            address = f"{found.repository}/{file}"
            with (
                urllib.request.urlopen(address, timeout=_SECONDS_TO_ANSWER) as answer,
                atomic_file(folder / file) as kept,
            ):
                while piece := answer.read(_PIECE):
                    kept.write(piece)
        except (OSError, ValueError) as error:
            raise _not_fetched(found, error) from error
    return folder


def _default_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(os.environ.get("HF_HUB_CACHE", HF_HUB_CACHE))


def _address(found: Found) -> str:
    return found.repository if found.repository.startswith("https://") else f"https://huggingface.co/{found.repository}"


def _not_fetched(found: Found, error: Exception) -> UserError:
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    named = found.files or (found.path or "all",)
    files = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
    return UserError(
        f"cannot fetch {found.name!r} ({reason[:200]}); it is {files} of {_address(found)}: fetch that where there is "
        "a network, keep the names of its folders, and give the folder here instead"
    )
