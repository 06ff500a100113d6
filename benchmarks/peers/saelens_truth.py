# pyright: reportMissingImports=false
"""Coders that SAELens' own trainer makes of drawn rows, as its users get them: saved for inference and loaded again.

Reads one request per line (see ``Request`` in ``benchmarks/truth.py``) until "done". The rows come in a file, in the
order in which every library reads them.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import sae_lens
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from saelens_coders import new_sae
from safetensors.torch import load_file, save_file
from torch import Tensor
from turns import Driver, leave_at_once


def main() -> None:
    driver = Driver()
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="file with train_ND and heldout_MD")
    data = load_file(parser.parse_args().data)
    driver.introduce(library="sae-lens", version=sae_lens.__version__)
    while (line := driver.hear()) != "done":
        request = json.loads(line)
        start = time.perf_counter()
        sae = train(request, data["train_ND"])
        seconds = time.perf_counter() - start
        save_file(_as_used(sae, data["heldout_MD"]), request["out"])
        driver.say({"seconds": seconds})
    leave_at_once()


def train(request: dict[str, Any], train_ND: Tensor) -> Any:
    """A training SAE after ``steps`` steps."""
    torch.manual_seed(request["seed"])
    steps, batch, lr = request["steps"], request["batch"], request["lr"]
    sae = new_sae(
        request["architecture"],
        train_ND.shape[1],
        request["n_latents"],
        request["k"],
        request["coefficient"] or 0.0,
        warm_up_steps=round(request["coefficient_warm_up"] * steps),
    )
    config = SAETrainerConfig(
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        lr=lr,
        lr_end=lr,
        lr_warm_up_steps=round(request["warm_up"] * steps),
        lr_decay_steps=round(request["decay"] * steps),
        dead_feature_window=request["dead_steps"],
    )
    return SAETrainer(cfg=config, sae=sae, data_provider=iter(train_ND.split(batch))).fit()


@torch.no_grad()
def _as_used(sae: Any, heldout_MD: Tensor) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        finished = sae_lens.SAE.load_from_disk(folder)
    heldout_ML = torch.cat([finished.encode(rows_BD) for rows_BD in heldout_MD.split(4096)])
    return {"W_dec_LD": finished.W_dec.data, "b_dec_D": finished.b_dec.data, "heldout_ML": heldout_ML}


if __name__ == "__main__":
    main()
