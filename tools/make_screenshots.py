"""Make docs/images: the pages of the web app as a browser shows them, of a run with an index and another one.

``python tools/make_screenshots.py runs/demo runs/sparser`` serves copies, so that no label is written into a run.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import uvicorn
from playwright.sync_api import Page, sync_playwright

from unweave.web.app import create_app
from unweave.web.serve import listening

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
MOST_BYTES = 200_000
WIDTH = 1280
TEXT = "import os\nfrom pathlib import Path\n\ndef important(folder):\n    import stat\n    return folder\n"
PROMPT = "def first_line(path):\n    "
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
Work = Callable[[Page], None]


def nothing(page: Page) -> None:
    """Take the page as it is."""


@dataclass(frozen=True)
class Shot:
    """One picture."""

    path: str
    """Of the page's address."""
    height: int = 860
    dark: bool = False
    work: Work = nothing
    """What is done before."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path, help="a run with the same model and site, to compare with")
    given = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        shutil.copytree(given.run, Path(folder) / "runs" / "demo")
        shutil.copytree(given.other, Path(folder) / "runs" / "sparser")
        browser = next(path for name in BROWSERS if (path := shutil.which(name)))
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        os.chdir(folder)
        with served(Path("runs")) as address:
            for name, shot in shots(address).items():
                scheme = "dark" if shot.dark else "light"
                page = chromium.new_page(viewport={"width": WIDTH, "height": shot.height}, color_scheme=scheme)
                shoot(page, address + shot.path, name, shot.work)
        chromium.close()


def shots(address: str) -> dict[str, "Shot"]:
    """What is shown, by the name of the picture."""
    latent = telling_latent(address, "import")
    return {
        "app-runs": Shot("/", height=320),
        "app-latents": Shot("/runs/demo?range=density:0.001:0.01&sort=max&descending=true"),
        "app-latent": Shot(f"/runs/demo/latents/{latent}", work=label_and_test),
        "app-latent-dark": Shot(f"/runs/demo/latents/{latent}?lines=true", dark=True, work=scroll_to_examples),
        "app-lists": Shot("/runs/demo/lists", height=360),
        "app-prompt": Shot(f"/runs/demo/prompt?{urlencode({'text': TEXT})}", work=select_a_token),
        "app-steer": Shot(f"/runs/demo/steer?{urlencode({'prompt': PROMPT, 'steer': latent})}", work=write),
        "app-map": Shot("/runs/demo/map?colour=cluster&clusters=12", height=720, work=wait_for("canvas[data-points]")),
        "app-evals": Shot("/runs/demo/evals"),
        "app-compare": Shot("/compare?a=demo&b=sparser", work=scroll_to_pairs),
    }


def telling_latent(address: str, word: str) -> int:
    """The latent whose firing a rule of tokens tells best, of those that peak on this word, on 0.1 to 1 % of tokens."""
    query = f"search={word}&range=density:0.001:0.01&sort=f1&descending=true&limit=200"
    with urllib.request.urlopen(f"{address}/runs/demo.json?{query}") as answer:
        return next(row["latent"] for row in json.load(answer)["rows"] if row["peaks"][0].strip() == word)


def label_and_test(page: Page) -> None:
    """Label the latent by its rule, put it on a list, and try it on a text."""
    page.locator("#label").fill("imports")
    page.get_by_role("button", name="Save").click()
    page.get_by_label("New list").fill("syntax")
    page.get_by_role("button", name="Add").click()
    page.locator(".test textarea").fill(TEXT)
    page.locator(".test button").click()
    page.wait_for_selector(".tested .strip", timeout=120_000)


def wait_for(selector: str) -> Work:
    """Take the page once it shows something."""
    return lambda page: page.wait_for_selector(selector, timeout=120_000) and page.wait_for_timeout(500)


def select_a_token(page: Page) -> None:
    """Look at a token of the text in the middle."""
    page.locator(".prompt-tokens .token", has_text="import").nth(2).click(timeout=120_000)
    page.wait_for_selector(".selected-token")


def write(page: Page) -> None:
    """Let the model write both texts."""
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_selector(".outcome[data-done]", timeout=120_000)
    page.evaluate("window.scrollTo(0, 0)")


def scroll_to_pairs(page: Page) -> None:
    """Show the matched latents."""
    page.wait_for_selector(".pairs tbody tr", timeout=120_000)
    page.evaluate("window.scrollTo(0, document.querySelector('.pairs').getBoundingClientRect().top - 160)")
    page.wait_for_timeout(500)


def scroll_to_examples(page: Page) -> None:
    """Show the examples and what is beside them."""
    page.locator(".example-controls").scroll_into_view_if_needed()
    page.mouse.wheel(0, 420)
    page.wait_for_timeout(300)


def shoot(page: Page, address: str, name: str, work: Work) -> None:
    """Write one picture; the same page gives the same bytes."""
    page.goto(address)
    page.wait_for_selector("body[data-drawn]")
    work(page)
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    page.close()
    size = path.stat().st_size
    assert size < MOST_BYTES, f"{path.name} has {size:,} bytes, at most {MOST_BYTES:,} are wanted"
    print(f"{path.name}: {size / 1000:.0f} kB")


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The address of a server."""
    with listening(0) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(root), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
