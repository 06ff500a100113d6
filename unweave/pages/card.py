"""The coder card: what a coder is, its figures with errors, its known limits and how to load it, as Markdown."""

from collections.abc import Mapping, Sequence

from unweave.analysis.doctor import Finding
from unweave.metrics import Definition


def coder_card(
    name: str,
    facts: Mapping[str, str],
    results: Mapping[str, float],
    standard_errors: Mapping[str, float],
    definitions: Mapping[str, Definition],
    findings: Sequence[Finding],
) -> str:
    """A README for the folder of a coder."""
    head = [f"# {name}: a sparse coder", "", *(f"- **{key}**: {value}" for key, value in facts.items()), ""]
    table = [
        "## Figures",
        "",
        "Measured on held-out documents; standard errors by leaving out blocks of text.",
        "",
        "| figure | value | standard error | usual in a good coder |",
        "| --- | ---: | ---: | --- |",
    ]
    for key, value in results.items():
        error = f"{standard_errors[key]:.2g}" if key in standard_errors else "-"
        table.append(f"| {definitions[key].title} | {value:.4g} | {error} | {definitions[key].good} |")
    off = [f"- {finding.title}. {finding.advice}" for finding in findings if finding.level != "good"]
    limits = ["", "## Known limits", "", *(off or ["- None of the checks found anything off."])]
    limits.append("- The figures hold for text like the held-out documents, at this site of this model only.")
    load = [
        "",
        "## Load it",
        "",
        "```python",
        "import unweave",
        "",
        'coder = unweave.load("path/to/this/folder")',
        "```",
        "",
    ]
    return "\n".join([*head, *table, *limits, *load])
