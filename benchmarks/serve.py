"""How fast the web app answers: the table of 100,000 latents, and the page of a latent.

``python benchmarks/serve.py RUN`` takes a run with an index. The large table has its sheets again and again, each time
with other numbers, and is served as a run of its own from a temporary folder; the pages of latents are the run's own.
"""

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from unweave.storage.index_folder import FOLDER, MANIFEST, TABLE, LatentIndex
from unweave.storage.latent_table import write_table

LIMITS = {"table": 100.0, "latent": 50.0}
"""Milliseconds that a page's JSON may take."""
TABLES = {
    "first page": "",
    "by density": "?sort=density&descending=true",
    "by F1, the last page": "?sort=f1&offset=99900",
    "densities of a decade": "?range=density:0.001:0.01&sort=max&descending=true",
    "three ranges": "?range=density:0.0001:0.1&range=max:1:&range=similar:0.2:&sort=jaccard",
    "a word": "?search=self",
    "a rare word, by mean": "?search=unittest&sort=mean",
    "a sign": "?search=%28",
    "a page of 500": "?limit=500",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--latents", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(given.run, root / "own")
        started = time.monotonic()
        make_large(root / "own", root / "large", given.latents)
        size = (root / "large" / FOLDER / TABLE).stat().st_size
        print(f"a table of {given.latents:,} latents, {size / 2**20:,.0f} MB, took {time.monotonic() - started:.0f} s")
        command = [sys.executable, "-m", "unweave", "serve", str(root), "--port", "0", "--no-browser"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                address = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
                measure(address.rstrip("/"), len(LatentIndex(root / "own" / FOLDER)), given.times)
            finally:
                server.terminate()


def make_large(run: Path, large: Path, n_latents: int) -> None:
    """The run again, with an index whose table has so many latents."""
    shutil.copytree(run, large)
    index = LatentIndex(run / FOLDER)
    sheets = list(index.table.sheets())
    path = large / FOLDER / TABLE
    write_table(path, many(sheets, n_latents), index.vocabulary(), index.table.documents())
    manifest = json.loads((large / FOLDER / MANIFEST).read_text())
    manifest["n_latents"] = n_latents
    manifest["files"][TABLE]["bytes"] = path.stat().st_size
    (large / FOLDER / MANIFEST).write_text(json.dumps(manifest))


def many(sheets: list[dict[str, Any]], n_latents: int) -> Iterator[Mapping[str, Any]]:
    """Sheets in turn, with other densities and strengths each time."""
    chance = random.Random(0)
    for latent in range(n_latents):
        sheet, by = sheets[latent % len(sheets)], chance.lognormvariate(0, 1)
        yield sheet | {
            "n_fires": round(sheet["n_fires"] * by),
            "density": min(1.0, sheet["density"] * by),
            "max": sheet["max"] * chance.uniform(0.5, 2),
            "mean": sheet["mean"] * chance.uniform(0.5, 2),
        }


def measure(address: str, n_own: int, times: int) -> None:
    """Print what each kind of page takes, and end with 1 where the median is over its limit."""
    chance = random.Random(0)
    slow = []
    with httpx.Client(timeout=60) as client:
        for name, query in TABLES.items():
            slow += timed(client, "table", name, [f"{address}/runs/large.json{query}"] * times)
        for context in ("12", "40", "whole"):
            chosen = [chance.randrange(n_own) for _ in range(times)]
            addresses = [f"{address}/runs/own/latents/{latent}.json?context={context}" for latent in chosen]
            slow += timed(client, "latent", f"a latent, context {context}", addresses)
    if slow:
        sys.exit(f"over the limit: {', '.join(slow)}")


def timed(client: httpx.Client, kind: str, name: str, addresses: list[str]) -> list[str]:
    """Print the spread of the times; gives the name where the median is over the limit."""
    first = once(client, addresses[0])
    taken = sorted(once(client, address) for address in addresses)
    median, high = statistics.median(taken), taken[int(0.9 * len(taken))]
    print(f"{name:26} median {median:6.1f} ms, 90 % {high:6.1f}, most {taken[-1]:6.1f}, first {first:6.1f}")
    return [name] if median > LIMITS[kind] else []


def once(client: httpx.Client, address: str) -> float:
    """Milliseconds until the whole answer is there."""
    started = time.perf_counter()
    client.get(address).raise_for_status()
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    main()
