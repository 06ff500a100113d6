"""Which formats and architectures the golden cases prove, for the table in the documentation."""

from collections.abc import Iterator

from . import golden_cases, published_cases


def verified() -> Iterator[tuple[str, str, bool, bool]]:
    """Each format with an architecture of ours: whether reading it and writing it agree with the library's own."""
    yield from golden_cases.verified()
    for format in published_cases.FORMATS:
        names = [case for known, case in published_cases.cases() if known == format]
        coders = [coder for case in names for coder in published_cases.read(format, case).values()]
        kinds = {type(coder).__module__.rpartition(".")[2] for coder in coders}
        yield from ((format, kind, True, False) for kind in sorted(kinds))


def wirings() -> dict[str, list[str]]:
    """The wirings that each format was read with: what its coders read and write."""
    found: dict[str, set[str]] = {}
    for format, case in golden_cases.cases("theirs"):
        found.setdefault(format, set()).add(golden_cases.read(format, "theirs", case).wiring.kind)
    for format, case in published_cases.cases():
        found.setdefault(format, set()).update(c.wiring.kind for c in published_cases.read(format, case).values())
    return {format: sorted(kinds) for format, kinds in found.items()}
