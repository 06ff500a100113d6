"""Run a worker of tools/peers in the environment of the libraries that it needs."""

import os
import subprocess
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"
WORKERS = {
    "saelens": "saelens.py",
    "sparsify": "sparsify_coders.py",
    "dictionary_learning": "dictionary_learning_dictionaries.py",
}
"""The worker of each format."""


def run_peer(python: Path, format: str, action: str, folder: Path, *options: str) -> None:
    """Let a library make, train or answer the cases of a folder; raises ``RuntimeError`` with what it said."""
    command = [str(python), str(PEERS / WORKERS[format]), action, str(folder), *options]
    quiet = {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
