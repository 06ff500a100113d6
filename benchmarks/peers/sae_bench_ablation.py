# pyright: reportMissingImports=false
"""Latents taken out of the rows of texts by SAEBench, unchanged: what SCR and TPP do for each class and each number.

Reads one JSON file: ``coder`` (folder written for SAELens), ``rows`` (.npy, all tokens of the first text, then of the
next), ``lengths`` (.npy, tokens of each text), ``taken`` (.npy, bool, one row of latents for each class and number),
``probes`` (.npy, one a row) and ``out``, where the logits [taken, texts, probes] are written before the first step. A
step does all of it. Texts of one length are handed over together, so that nothing is padded.
"""

import contextlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sae_bench.evals.scr_and_tpp.main import ablated_precomputed_activations
from sae_lens import SAE
from turns import Driver, Finished, Turns, leave_at_once

TOKENS_AT_ONCE = 4096


@torch.no_grad()
def logits(
    coder: SAE, texts: dict[int, tuple[list[int], torch.Tensor]], taken_SL: torch.Tensor, probes_CD: torch.Tensor
) -> np.ndarray:
    """Of each text without the latents of each set."""
    n_texts = sum(len(places) for places, _ in texts.values())
    found = torch.empty(len(taken_SL), n_texts, len(probes_CD))
    for number, taken_L in enumerate(taken_SL):
        for length, (places, rows_NTD) in texts.items():
            at_once = max(1, TOKENS_AT_ONCE // length)
            found[number, places] = ablated_precomputed_activations(rows_NTD, coder, taken_L, at_once) @ probes_CD.T
    return found.numpy()


def main() -> None:
    driver = Driver()
    turns = Turns(driver)
    told = json.loads(Path(sys.argv[1]).read_text())
    coder = SAE.load_from_disk(told["coder"])
    rows, lengths = torch.from_numpy(np.load(told["rows"])), np.load(told["lengths"])
    taken, probes = torch.from_numpy(np.load(told["taken"])), torch.from_numpy(np.load(told["probes"])).float()
    each = rows.split(lengths.tolist())
    places = {int(length): np.flatnonzero(lengths == length).tolist() for length in np.unique(lengths)}
    texts = {length: (own, torch.stack([each[place] for place in own])) for length, own in places.items()}
    np.save(told["out"], logits(coder, texts, taken, probes))
    driver.introduce(library="sae-bench", version=version("sae-bench"))
    with contextlib.suppress(Finished):
        while True:
            turns.await_step()
            logits(coder, texts, taken, probes)
    turns.take_leave()
    leave_at_once()


if __name__ == "__main__":
    main()
