"""Modules joined into one script do what they do as modules."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CHROMIUM
from unweave.pages.bundle import bundle

SOURCES = {
    "entry.js": """// Says a number.
import { twice as doubled, START } from "./numbers.js";
import "./effect.js";
import {
  word,
} from "./words.js";

const private_ = "entry's own";
document.title = `${word()} ${doubled(START)} ${private_} ${globalThis.effects}`;
""",
    "numbers.js": 'import { word } from "./words.js";\n\nexport const START = 21;\nexport function twice(n) {\n'
    "  return word() && 2 * n;\n}\n",
    "words.js": 'const private_ = "of words";\nexport async function later() {}\nexport function word() {\n'
    "  return private_;\n}\n",
    "effect.js": "globalThis.effects = (globalThis.effects ?? 0) + 1;\n",
    "other_words.js": 'export async function later() {}\nexport const word = () => "other";\n',
}


def test_each_module_comes_once_behind_what_it_imports() -> None:
    text = bundle("entry.js", SOURCES)
    places = [text.index(f'modules["{name}"] = ') for name in ("words.js", "numbers.js", "entry.js")]
    assert places == sorted(places)
    assert text.count('modules["words.js"] = ') == 1 and "other" not in text


@pytest.mark.parametrize(
    "line", ['import x from "./words.js";', "export { a };", "const m = await import('./words.js');"]
)
def test_what_cannot_be_joined_is_refused(line: str) -> None:
    with pytest.raises(AssertionError, match="not joined"):
        bundle("a.js", {"a.js": line + "\n", "words.js": ""})


def test_modules_that_import_each_other_are_refused() -> None:
    with pytest.raises(AssertionError, match=r"a\.js -> b\.js -> a\.js"):
        bundle("a.js", {"a.js": 'import "./b.js";\n', "b.js": 'import "./a.js";\n'})


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH; apt-get install chromium")
@pytest.mark.parametrize(("instead", "said"), [({}, "of words 42"), ({"words.js": "other_words.js"}, "other 42")])
def test_a_browser_runs_what_was_joined(tmp_path: Path, instead: dict[str, str], said: str) -> None:
    page = tmp_path / "page.html"
    script = bundle("entry.js", SOURCES, instead)
    assert "</script" not in script
    page.write_text(f"<!doctype html><title></title><script>{script}</script>")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True, text=True)
    assert f"<title>{said} entry's own 1</title>" in done.stdout, json.dumps(done.stdout)
