"""What the pages tell a reader to run does run: Python, commands and recipes, page by page, from top to bottom.

A block with a title is a file of that name. A block under ``<!-- not run: reason -->`` is left out.
"""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import unweave.coders
from unweave.config import parse_toml
from unweave.pipelines.recipe import build_plan
from unweave.registry import classes_in

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODERS = "unweave/coders/"
COMMANDS = {"bash", "sh", "console"}
CHECKED = {"python", "toml", *COMMANDS}
PROSE = {"text"}
_BLOCK = re.compile(
    r"(?P<marker><!-- not run:(?P<reason>[^>]*?)-->\s*\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)(?P<options>.*)\n(?P<text>(?:.*\n)*?)(?P=indent)``` *$",
    re.MULTILINE,
)
EXAMPLE_PAGE = r"""Words.

```python
x = 1
```

<!-- not run: needs a network -->
```bash
unweave sites org/model
```

- An item

    ```toml title="my.toml"
    seed = 1

    [coder]
    ```

```console
$ unweave train \
    my.toml
report: runs/my
$ make test
$ .venv/bin/unweave doctor runs/my # look
```
"""


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    title: str | None
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks that a reader may run; ``line`` is that of the first line of code."""
    content, blocks = page.read_text(encoding="utf-8"), []
    matches = list(_BLOCK.finditer(content))
    assert len(re.findall(r"^ *```", content, re.MULTILINE)) == 2 * len(matches), f"{page.name} has an open block"
    for match in matches:
        if match["marker"]:
            assert len(match["reason"]) > 10, f"{page.name} leaves a block out without a reason"
            continue
        text = "".join(line.removeprefix(match["indent"]) for line in match["text"].splitlines(keepends=True))
        title = re.search(r'title="([^"]+)"', match["options"])
        line = content.count("\n", 0, match.start("text")) + 1
        blocks.append(Block(page, line, match["language"], title[1] if title else None, text))
    return blocks


def commands_of(block: Block) -> list[str]:
    """The command lines of a block that call unweave, with or without a prompt; what else there is, is left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    lines = [line.strip().removeprefix("$ ").removeprefix(".venv/bin/") for line in lines]
    return [line for line in lines if line.split(" ")[0] == "unweave"]


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def example_coders(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a part of ``unweave/coders`` for the time of a test."""
    examples = tmp_path / "coders"
    examples.mkdir()
    unweave.coders.__path__.append(str(examples))
    yield examples
    unweave.coders.__path__.remove(str(examples))
    for file in examples.glob("*.py"):
        sys.modules.pop(f"unweave.coders.{file.stem}", None)
        unweave.coders.__dict__.pop(file.stem, None)
    _look_again()


def _look_again() -> None:
    importlib.invalidate_caches()
    classes_in.cache_clear()


def _write(block: Block, folder: Path, example_coders: Path) -> None:
    assert block.title is not None
    if block.title.startswith(CODERS):
        (example_coders / block.title.removeprefix(CODERS)).write_text(block.text, encoding="utf-8")
        _look_again()
    else:
        (folder / block.title).write_text(block.text, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_what_a_page_says_to_run_runs_from_top_to_bottom(
    page: Path, folder: Path, example_coders: Path, run_command: Callable[[str, Path], int], first_command: str
) -> None:
    namespace = {"__name__": "page"}
    for block in blocks_of(page):
        if block.title:
            _write(block, folder, example_coders)
        elif block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), namespace)
        elif block.language in COMMANDS:
            for command in commands_of(block):
                if command != first_command:  # that one has made the folder
                    assert run_command(command, folder) == 0, f"{block.place}: {command}"


def test_blocks_are_found_with_their_titles_and_commands_and_only_left_out_for_a_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(EXAMPLE_PAGE)
    python, toml, console = blocks_of(page)
    assert (python.text, python.title, python.place) == ("x = 1\n", None, "page.md:4")
    assert (toml.text, toml.title) == ("seed = 1\n\n[coder]\n", "my.toml")
    assert [command.split() for command in commands_of(console)] == [
        ["unweave", "train", "my.toml"],
        ["unweave", "doctor", "runs/my", "#", "look"],
    ]
    page.write_text("<!-- not run: -->\n```bash\nunweave sites\n```\n")
    with pytest.raises(AssertionError, match="without a reason"):
        blocks_of(page)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_recipe_of_a_page_is_valid(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "toml":
            build_plan(parse_toml(block.text, block.place))


def test_no_block_is_of_a_kind_that_is_not_checked() -> None:
    unknown = [f"{b.place}: {b.language!r}" for p in PAGES for b in blocks_of(p) if b.language not in CHECKED | PROSE]
    assert not unknown


def test_the_example_architecture_keeps_the_contract_of_every_architecture(tmp_path: Path) -> None:
    """The contract's tests run on it in a process of their own, which finds the file beside the package's."""
    block = next(b for b in blocks_of(ROOT / "docs" / "new-architecture.md") if b.title and b.title.startswith(CODERS))
    file = tmp_path / "coders" / block.title.removeprefix(CODERS)
    file.parent.mkdir()
    file.write_text(block.text, encoding="utf-8")
    (tmp_path / "example_plugin.py").write_text(
        f"import unweave.coders\nunweave.coders.__path__.append({str(file.parent)!r})\n"
    )
    options = ["-p", "example_plugin", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    contract = ["tests/coders/test_every_architecture.py", "-k", file.stem]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, *contract],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
