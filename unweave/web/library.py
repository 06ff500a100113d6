"""The runs below a folder, with their indices, their notes, and the models and coders that were loaded for them."""

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from weakref import WeakKeyDictionary

from fastapi import Depends, HTTPException, Request

from unweave.coders import SparseCoder
from unweave.errors import UserError, nearest
from unweave.formats.files import file_sha256
from unweave.formats.native import WEIGHTS
from unweave.storage.index_folder import FOLDER, MANIFEST, LatentIndex
from unweave.storage.notes import Notes
from unweave.storage.run_facts import index_state
from unweave.storage.run_folder import Run
from unweave.web.jobs import Jobs

if TYPE_CHECKING:
    from unweave.models.language_model import LanguageModel
    from unweave.pipelines.recipe import Recipe

T = TypeVar("T")

_DEEPEST = 4
"""Folders below the root in which runs are looked for."""
_KEPT = 2
"""Coders that stay loaded, each with its model: two for a comparison."""


@dataclass(frozen=True)
class Loaded:
    """A run's coder, and the model that it was trained on, on their device."""

    recipe: "Recipe"
    model: "LanguageModel"
    coder: SparseCoder

    @property
    def sites(self) -> list[str]:
        """Where the coder reads."""
        return list(dict.fromkeys(port.site for port in self.coder.wiring.reads))

    def texts(self, token_ids: Sequence[int]) -> list[str]:
        """Each token as text."""
        from unweave.models.tokens import token_texts

        return token_texts(self.model, token_ids)


class Library:
    """What the pages look things up in; any number of threads may share one.

    ``busy`` is held by whoever runs a model: hooks belong to the model, so one thread uses it at a time. ``jobs`` make
    what takes long.
    """

    def __init__(self, root: Path) -> None:
        self.given = str(root)
        self.root = root.resolve()
        if not self.root.is_dir():
            raise UserError(f"there is no folder {str(root)!r}; give a run or a folder of runs")
        self.busy = threading.Lock()
        self.jobs = Jobs()
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._places: dict[str, Path] = {}
        self._indices: dict[str, tuple[Any, LatentIndex]] = {}
        self._loaded: OrderedDict[str, tuple[Any, Loaded]] = OrderedDict()
        self._made: WeakKeyDictionary[LatentIndex, dict[Any, Any]] = WeakKeyDictionary()
        self._kept: dict[tuple[str, str], tuple[Any, Any]] = {}

    def places(self) -> dict[str, Path]:
        """The folder of each run there is now, by its name in addresses."""
        self._places = {_name(folder, self.root): folder for folder in _runs(self.root, _DEEPEST)}
        return self._places

    def run(self, name: str) -> Run:
        """A run by its name in addresses; raises ``HTTPException`` 404 where there is none."""
        known = self._places
        if name not in known or not (known[name] / "config.toml").is_file():
            known = self.places()
        if name not in known:
            hint = nearest(name, known) or f" below {str(self.root)!r}"
            raise HTTPException(404, f"there is no run {name!r}{hint}")
        return Run(known[name])

    def index(self, name: str) -> LatentIndex:
        """The run's latent index; raises ``UserError`` where there is none, or one of another coder."""
        run = self.run(name)
        folder = run.path / FOLDER
        _check_whole(folder)
        stamp = _stamp(folder / MANIFEST)
        with self._lock:
            known = self._indices.get(name)
            if known is None or known[0] != stamp:
                known = stamp, LatentIndex(folder)
                self._indices[name] = known
        weights = run.path / "coder" / WEIGHTS
        if known[1].manifest["coder"] != self.kept((name, "weights"), [weights], lambda: file_sha256(weights)):
            raise UserError(
                f"the index of {name!r} is of another coder; `unweave index {quote(str(run.path))}` makes it anew"
            )
        return known[1]

    def kept(self, key: tuple[str, str], paths: Sequence[Path], make: Callable[[], T]) -> T:
        """What ``make`` makes of some files, made again when one of them is another, is gone or has come."""
        stamp = tuple(_stamp(path) if path.is_file() else None for path in paths)
        known = self._kept.get(key)
        if known is None or known[0] != stamp:
            known = stamp, make()
            self._kept[key] = known
        return known[1]

    def once(self, index: LatentIndex, make: Callable[[LatentIndex], T]) -> T:
        """What ``make`` makes of an index, made once while that index is open."""
        known = self._made.setdefault(index, {})
        if make not in known:
            known[make] = make(index)
        return known[make]

    def notes(self, name: str) -> Notes:
        """Labels and lists of a run."""
        return Notes(self.run(name).path / "notes.sqlite")

    def loaded(self, name: str) -> Loaded:
        """The run's model and coder, loaded at the first call; hold ``busy`` while they work.

        Raises ``UserError`` where one of the two cannot be loaded.
        """
        run = self.run(name)
        stamp = _stamp(run.path / "coder" / WEIGHTS)
        with self._loading:  # pages that need no model do not wait for one
            known = self._loaded.get(name)
            if known is None or known[0] != stamp:
                known = stamp, self._load(run)
                self._loaded[name] = known
            self._loaded.move_to_end(name)
            while len(self._loaded) > _KEPT:
                self._loaded.popitem(last=False)
        return known[1]

    def _load(self, run: Run) -> Loaded:
        from unweave.models.language_model import LanguageModel
        from unweave.pipelines.recipe import read_job
        from unweave.pipelines.workbench import device_of

        recipe = read_job(str(run.path / "config.toml"), []).recipe
        others = (loaded for _, loaded in self._loaded.values())
        model = next((other.model for other in others if other.recipe.model == recipe.model), None)
        if model is None:
            spread = None if recipe.model.spread == "no" else "devices"
            device, dtype = device_of(recipe), recipe.model.dtype
            model = LanguageModel.load(recipe.model.name, device=device, dtype=dtype, spread=spread)
        return Loaded(recipe, model, run.coder.to(model.device))


def _library(request: Request) -> Library:
    return request.app.state.library


Shelves = Annotated[Library, Depends(_library)]
"""The app's library, as the argument of a route."""


def _check_whole(folder: Path) -> None:
    run, state = folder.parent, index_state(folder.parent)
    if state == "partial":
        raise UserError(f"the index of this run is not finished; `unweave index {quote(str(run))}` goes on with it")
    if state == "none":
        raise UserError(f"this run has no latent index; `unweave index {quote(str(run))}` makes it")


def _runs(folder: Path, deepest: int) -> Iterator[Path]:
    if (folder / "config.toml").is_file() and (folder / "coder").is_dir():
        yield folder
    elif deepest:
        inner = []
        with contextlib.suppress(PermissionError), os.scandir(folder) as entries:
            inner = sorted(entry.path for entry in entries if _may_hold_runs(entry))
        for path in inner:
            yield from _runs(Path(path), deepest - 1)


def _may_hold_runs(entry: os.DirEntry) -> bool:
    return entry.is_dir() and not entry.name.startswith(".") and not entry.name.endswith(".partial")


def _name(folder: Path, root: Path) -> str:
    return "~".join(folder.relative_to(root).parts) or root.name


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        facts = path.stat()
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}; train the run again") from error
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
