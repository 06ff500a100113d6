"""Write the tables of the pages that are found by running the code, each between its two markers.

python tools/make_tables.py
"""

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.formats.dictionaries.verified import verified, wirings
from tests.models.families import FAMILIES, verified_sites

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    for name in {page for page, _ in TABLES}:
        (ROOT / "docs" / name).write_text(page_with_tables(name), encoding="utf-8")


def models_page() -> str:
    """The page on models."""
    return page_with_tables("models.md")


def dictionaries_page() -> str:
    """The page on dictionaries."""
    return page_with_tables("dictionaries.md")


def page_with_tables(name: str) -> str:
    """The page as it is, with its tables as they are found now."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    for (page, marker), table in TABLES.items():
        if page == name:
            pattern = rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
            text, n_found = re.subn(pattern, lambda m, table=table: f"{m[1]}{table()}{m[2]}", text, flags=re.DOTALL)
            assert n_found == 1, f"{name} needs <!-- {marker} --> and <!-- /{marker} --> once"
    return text


def families_table() -> str:
    """One row for each family, with the points that some block of it has."""
    found = {family: verified_sites(family) for family in FAMILIES}
    points = list(next(iter(found.values())))
    lines = [
        f"| family | {' | '.join(f'`{point}`' for point in points)} |",
        f"| --- |{' :-: |' * len(points)}",
        *(f"| {family} | {' | '.join('✓' if sites[p] else '' for p in points)} |" for family, sites in found.items()),
    ]
    return "\n".join(lines) + "\n"


def formats_table() -> str:
    """One row for each format: what its coders read and write, and the architectures that they are here."""
    cells: dict[str, dict[str, str]] = {}
    for format, kind, reads, writes in verified():
        cells.setdefault(format, {})[kind] = "r" * reads + "w" * writes
    used = Counter(kind for row in cells.values() for kind in row)
    kinds = [kind for kind, _ in used.most_common()]
    wired = wirings()
    lines = [
        f"| format | wirings | {' | '.join(f'`{kind}`' for kind in kinds)} |",
        f"| --- | --- |{' :-: |' * len(kinds)}",
        *(
            f"| {format} | {', '.join(kind.replace('_', ' ') for kind in wired[format])} | "
            f"{' | '.join(row.get(kind, '') for kind in kinds)} |"
            for format, row in cells.items()
        ),
    ]
    return "\n".join(lines) + "\n"


TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("models.md", "families"): families_table,
    ("dictionaries.md", "formats"): formats_table,
}
"""By the page and the name of the markers."""


if __name__ == "__main__":
    main()
