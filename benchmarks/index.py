"""What it takes to index all latents of a run, beside sae-dashboard on the same coder, model and tokens.

python -m benchmarks.index --run runs/demo --tokens 1000000 --peers /tmp/dashboard/.venv/bin/python --json index.json

Each library runs in a process of its own. sae-dashboard makes its data for ``--peer-latents`` latents, spread evenly;
its time for a latent is compared with ours, all latents over their number. Its strongest tokens of each latent are
looked up in the index: they must be the strongest there too, with the same activations.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import unweave
from benchmarks.worker import PEERS, ROOT
from unweave.pipelines.convert import convert
from unweave.storage.index_folder import LatentIndex
from unweave.storage.run_folder import Run

_EDGE = (6, 5)
"""Tokens at both ends of a sequence among which sae-dashboard looks for no top activation."""
_KEPT_EQUAL = 1e-3
"""Relative difference up to which two activations are the same; both libraries compute in single precision."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--text", default="builtin:stdlib", help="read whole, as the held-out part may be too short")
    parser.add_argument("--peers", help="Python of an environment with sae-dashboard")
    parser.add_argument("--peer-latents", type=int, default=128)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = _measure(told, Path(folder))
    for row in rows:
        print(json.dumps(row))
    if told.json:
        told.json.write_text(json.dumps(rows, indent=1) + "\n")


def _measure(told: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    copy = folder / "run"
    shutil.copytree(told.run, copy, ignore=shutil.ignore_patterns("index*", "report"))
    command = [sys.executable, "-m", "unweave", "index", str(copy), "--tokens", str(told.tokens), "--text", told.text]
    seconds, peak = _timed(command)
    index = LatentIndex(copy / "index")
    size = sum(path.stat().st_size for path in index.folder.iterdir())
    ours = {
        "library": "unweave",
        "latents": len(index),
        "tokens": index.manifest["n_rows"],
        "seconds": seconds,
        "seconds_per_latent": seconds / len(index),
        "peak_mb": peak,
        "kb_per_latent": size / len(index) / 1000,
        "stages": {name: value for name, value in index.manifest.items() if name.startswith("seconds")},
    }
    if not told.peers:
        return [ours]
    theirs, top = _peer(told, copy, index, folder)
    theirs["times_slower_per_latent"] = theirs["seconds_per_latent"] / ours["seconds_per_latent"]
    return [ours, theirs | _verified(index, top)]


def _peer(
    told: argparse.Namespace, copy: Path, index: LatentIndex, folder: Path
) -> tuple[dict[str, Any], dict[str, list]]:
    run = Run(copy)
    convert({"": run.coder}, folder / "saelens", "saelens")
    np.save(folder / "tokens.npy", index.text.token_ids)
    chosen = np.linspace(0, len(index) - 1, told.peer_latents).astype(int).tolist()
    layer = int(run.coder.site.split(".")[1])
    ignored = np.unique(np.asarray(index.text.token_ids)[~np.asarray(index.text.is_row)]).tolist()
    task = {
        "model": str(Path(unweave.__file__).parent / "models" / "embedded"),
        "coder": str(folder / "saelens"),
        "tokens": str(folder / "tokens.npy"),
        "hook": f"blocks.{layer}.hook_resid_post",
        "latents": chosen,
        "ignored": ignored,
        "out": str(folder / "out.json"),
    }
    (folder / "task.json").write_text(json.dumps(task))
    _timed([told.peers, str(PEERS / "sae_dashboard_index.py"), str(folder / "task.json")])
    found = json.loads((folder / "out.json").read_text())
    row = {
        "library": "sae-dashboard",
        "latents": len(chosen),
        "tokens": index.manifest["n_rows"],
        "seconds": found["seconds"],
        "seconds_per_latent": found["seconds"] / len(chosen),
        "peak_mb": found["peak_mb"],
    }
    return row, found["top"]


def _verified(index: LatentIndex, top: dict[str, list]) -> dict[str, int]:
    """Latents whose strongest tokens are the same in both, and those for which they differ."""
    context, same, other = index.text.context, 0, 0
    for latent, examples in top.items():
        places, values = index.fires(int(latent))
        inside = (places % context >= _EDGE[0]) & (places % context < context - _EDGE[1])
        strongest = np.sort(values[inside])[::-1][: len(examples)]
        told = np.array([value for _, _, value in examples if value > 0])
        own = dict(zip(places.tolist(), values.tolist(), strict=True))
        found = np.array([own.get(s * context + t, 0.0) for s, t, value in examples if value > 0])
        scale = max(1.0, float(values.max(initial=0.0)))
        is_same = (
            len(strongest) == len(told)
            and np.allclose(found, told, rtol=0, atol=_KEPT_EQUAL * scale)
            and np.allclose(strongest, told, rtol=0, atol=_KEPT_EQUAL * scale)
        )
        same, other = same + is_same, other + (not is_same)
    return {"latents_with_the_same_top": int(same), "latents_with_another_top": int(other)}


def _timed(command: list[str]) -> tuple[float, float]:
    """Seconds of a process, and the most memory that it held, in megabytes."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
