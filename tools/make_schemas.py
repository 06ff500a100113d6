"""Write docs/results.schema.json and docs/suites.schema.json from the types that results are written and read by.

python tools/make_schemas.py
"""

import json
from pathlib import Path

from unweave.storage.results import Results, Suites, schema

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    (DOCS / "results.schema.json").write_text(results_schema(), encoding="utf-8")
    (DOCS / "suites.schema.json").write_text(suites_schema(), encoding="utf-8")


def results_schema() -> str:
    """The schema of a run's results.json."""
    return _text(schema(Results, "results.json of a run of unweave"))


def suites_schema() -> str:
    """The schema of a run's suites.json."""
    return _text(schema(Suites, "suites.json of a run of unweave: by suite, then by coder"))


def _text(values: dict) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
