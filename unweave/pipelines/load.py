"""Load a coder: of a run, from a folder or file that another library wrote, from the hub, or by its short name."""

from dataclasses import replace
from pathlib import Path

from unweave.coders import Origin, Port, SparseCoder
from unweave.errors import UserError, nearest
from unweave.formats.dictionaries import Place, read_dictionaries
from unweave.formats.fetch import fetch
from unweave.formats.native import CONFIG, read_coder
from unweave.formats.releases import find
from unweave.models.transformer_lens import canonical


def load(
    source: str | Path, which: str = "", *, model: str = "", site: str = "", target: str = "", format: str = ""
) -> SparseCoder:
    """A coder on the CPU and ready for use; ``coder.origin`` and ``coder.wiring`` say where it belongs.

    ``source`` is a run, a folder or file of a dictionary that another library wrote, ``hf:owner/name/folder`` on the
    hub, or the short name of a published one (``unweave releases`` lists them). ``which`` chooses one where there are
    several. ``model``, ``site`` and ``target`` say where it belongs if its files do not, ``format`` how to read them.
    Raises ``UserError`` where there is no coder, or it is damaged.
    """
    found = load_all(source, model=model, site=site, target=target, format=format)
    if len(found) == 1 and not which:
        return next(iter(found.values()))
    if which not in found:
        names = ", ".join(list(found)[:8]) + (" ..." if len(found) > 8 else "")
        asked = f"no coder {which!r}{nearest(which, found)}; it has" if which else f"{len(found)} coders; choose one of"
        raise UserError(f"{str(source)!r} holds {asked} {names}")
    return found[which]


def load_all(
    source: str | Path, *, model: str = "", site: str = "", target: str = "", format: str = ""
) -> dict[str, SparseCoder]:
    """All coders of a source by name: the layers of a set of transcoders, or the sites of one training."""
    path, place = Path(source).expanduser(), Place(model, site, target)
    own = path / "coder" if (path / "coder").is_dir() else path
    if (own / CONFIG).is_file() or own.name == "coder":
        return {path.name: _placed(read_coder(own), place)}
    if path.exists() or _is_meant_as_path(str(source)):
        found = read_dictionaries(path, place, format)
    else:
        release = find(str(source))
        known = Place(*(ours or theirs for ours, theirs in zip(place, release.place, strict=True)))
        found = read_dictionaries(fetch(release), known, format or release.format, release.config)
    for coder in found.values():
        _placed(coder, Place())
    return found


def _is_meant_as_path(source: str) -> bool:
    return source.startswith((".", "/", "~"))


def _placed(coder: SparseCoder, place: Place) -> SparseCoder:
    """Our names for its sites, so that one site has one name; and what the caller knows better."""
    wiring = coder.wiring
    target = place.target or (place.site if wiring.writes_what_it_reads else "")
    reads, writes = _named(wiring.reads, place.site), _named(wiring.writes, target)
    coder.wiring = replace(wiring, reads=reads, writes=writes)
    if place.model:
        coder.origin = Origin("") if coder.origin is None else coder.origin
        coder.origin = coder.origin._replace(model=place.model)
    return coder


def _named(ports: tuple[Port, ...], name: str) -> tuple[Port, ...]:
    return tuple(port._replace(site=canonical(name if name and len(ports) == 1 else port.site)) for port in ports)
