"""The pages are current, complete, and build into a site without a broken link or a call to another host."""

import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import unweave
from unweave.cli.main import app
from unweave.coders import trainable_architectures
from unweave.metrics import definitions
from unweave.models.language_model import LanguageModel

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("tool", "function", "name"),
    [
        ("make_map.py", "code_map", "map.md"),
        ("make_reference.py", "settings_page", "settings.md"),
        ("make_tables.py", "models_page", "models.md"),
        ("make_tables.py", "dictionaries_page", "dictionaries.md"),
        ("make_schemas.py", "results_schema", "results.schema.json"),
        ("make_schemas.py", "suites_schema", "suites.schema.json"),
    ],
)
def test_a_generated_page_is_current(tool: str, function: str, name: str) -> None:
    text = runpy.run_path(str(ROOT / "tools" / tool))[function]()
    assert page(name) == text, f"run python tools/{tool}"


def test_every_figure_is_explained_under_its_key_and_its_title() -> None:
    text = page("figures-explained.md")
    missing = [key for key, figure in definitions().items() if f"`{key}`" not in text or figure.title not in text]
    assert not missing


def test_every_architecture_is_mentioned_with_its_settings() -> None:
    text = page("settings.md")
    assert all(f'### `type = "{name}"`' in text for name in trainable_architectures())


def test_every_command_is_mentioned() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))
    names = [command.callback.__name__ for command in app.registered_commands if command.callback]
    assert {"train", "evaluate", "show"} <= set(names)
    assert not [name for name in names if f"unweave {name}" not in text]


def test_every_public_name_is_mentioned() -> None:
    assert not [name for name in unweave.__all__ if f"`{name}`" not in page("python.md")]


def test_the_table_of_sites_agrees_with_the_model() -> None:
    model = LanguageModel.load()
    rows = re.findall(r"^\| `(layers\.2\.\S+)` \| (.*?) \|", page("concepts.md"), re.MULTILINE)
    assert [name for name, _ in rows] == [name for name in model.sites.names() if name.startswith("layers.2.")]
    aliases = [(alias, name) for name, cell in rows for alias in re.findall(r"`(\S+?)`", cell)]
    assert len(aliases) > 7
    for alias, name in aliases:
        assert model.sites.resolve(alias).name == name


def test_the_site_builds_without_a_broken_link_or_a_call_to_another_host(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None or find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed; make docs installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [*(tmp_path / "site").rglob("*.html")]
    assert len(pages) > 10
    for built in pages:
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", built.read_text(encoding="utf-8"))
        assert not [tag for tag in tags if re.search(r'(?:src|href)="(?:https?:)?//', tag)], built.name
