"""The 200 steps whose loss curves are committed: the same data and settings for every architecture."""

import platform
from dataclasses import fields
from pathlib import Path
from typing import Any

import numba
import torch

from unweave.activations.synthetic import SyntheticConfig, SyntheticData
from unweave.coders import Wiring, architecture
from unweave.training.config import TrainingConfig
from unweave.training.loop import new_trainee, train

FOLDER = Path(__file__).parent / "golden"
STEPS, BATCH, WIDTH, N_FEATURES, N_LATENTS = 200, 256, 32, 63, 80
SITE = "synthetic"


def curve(name: str) -> dict[str, list[float]]:
    """Loss terms, L0 and explained variance at every tenth step, the last included, computed by one thread."""
    threads = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    try:
        return _curve(name)
    finally:
        torch.set_num_threads(threads[0])
        numba.set_num_threads(threads[1])


def _curve(name: str) -> dict[str, list[float]]:
    torch.manual_seed(7)
    generator = torch.Generator().manual_seed(7)
    data = SyntheticData(SyntheticConfig(n_features=N_FEATURES, d_model=WIDTH, max_probability=0.2, noise=0.02))
    cls = architecture(name)
    known = {field.name for field in fields(cls.Config)}
    settings: dict[str, Any] = {"n_latents": N_LATENTS} | {k: v for k, v in (("k", 4), ("k_aux", 8)) if k in known}
    config = TrainingConfig(rows=STEPS * BATCH, batch=BATCH, lr=3e-3, dead_window=30 * BATCH, buffer=2 * BATCH)
    sample = {SITE: data.sample(2048, generator).x_BD}
    trainee = new_trainee(name, cls(cls.Config(**settings), Wiring.sae(WIDTH, SITE)), sample, config)
    points = [report.metrics[name] for report in train([trainee], data.batches(BATCH, generator), config)]
    keys = list(dict.fromkeys(key for point in points for key in point if key != "lr"))
    return {key: [point.get(key, 0.0) for point in points] for key in keys}


def machine() -> str:
    """What decides the last bits: the processor, its vector instructions, and torch."""
    capabilities = torch.cpu.get_capabilities()
    features = ",".join(name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(name))
    name = str(capabilities.get("cpu_name") or platform.processor())
    return f"{name} ({features}), torch {torch.__version__}"
