"""Compare the figures of two runs that were measured on the same tokens."""

from pathlib import Path

from unweave.analysis.paired import Difference, differences
from unweave.errors import UserError
from unweave.storage.measured import read_sums
from unweave.storage.run_folder import Run


def compare(first: str | Path, second: str | Path) -> list[Difference]:
    """Every figure of two runs with the interval of its difference, on the same documents.

    Raises ``UserError`` where they were measured on other tokens.
    """
    runs = Run(first), Run(second)
    texts = [run.results.get("measured_with", {}).get("text") for run in runs]
    if texts[0] != texts[1]:
        raise UserError(f"the runs were measured on the texts {texts[0]!r} and {texts[1]!r}; evaluate both on one")
    return differences(read_sums(runs[0].path), read_sums(runs[1].path))
