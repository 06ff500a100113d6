"""Write what was measured of a run as SAEBench's result files."""

import time
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.analysis.cosines import nearest, paired
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.formats.dictionaries.saelens_config import hook_of
from unweave.formats.files import write_json
from unweave.formats.saebench import EVALUATIONS, Found, Stamp, spreads, tasks_apart, to_saebench
from unweave.pipelines.recipe import Recipe, read_job
from unweave.pipelines.workbench import SEQUENCES
from unweave.storage.measured import read_sums
from unweave.storage.results import Results, SuiteFigures, read_results, read_suites
from unweave.storage.run_folder import Run

_NEIGHBOURS = ("max_encoder_cosine_sim", "max_decoder_cosine_sim")
_COMPUTED = (
    "compute_kl",
    "compute_ce_loss",
    "compute_l2_norms",
    "compute_sparsity_metrics",
    "compute_variance_metrics",
    "compute_featurewise_density_statistics",
    "compute_featurewise_weight_based_metrics",
)
_DIGITS = 5
"""Decimals of the numbers of single latents, as in their files."""


def write_saebench(run: Run, folder: Path) -> list[Path]:
    """Write ``FOLDER/<evaluation>/unweave_<run>_eval_results.json`` for the core figures and each suite they have too.

    Raises ``UserError`` for a coder that is no SAE.
    """
    coder, name = run.coder, run.path.resolve().name
    if coder.wiring.kind != "sae":
        raise UserError(f"SAEBench is for SAEs; {str(run.path)!r} holds a {coder.wiring.kind.replace('_', ' ')}")
    recipe = read_job(str(run.path / "config.toml"), []).recipe
    stamp = Stamp(
        name=name,
        version=version("unweave"),
        eval_id=str(uuid.uuid4()),
        milliseconds=int(time.time() * 1000),
        config=_config(coder, recipe),
    )
    found = {"core": _core(read_results(run.path), read_sums(run.path)["density"], coder, recipe)}
    for suite, coders in read_suites(run.path).items():
        if suite in EVALUATIONS:
            own = next(its for other, its in coders.items() if other not in ("random", "pca", "identity"))
            found[suite] = _of_suite(suite, own, recipe)
    paths = []
    for suite, its in found.items():
        paths.append(folder / EVALUATIONS[suite] / f"unweave_{name}_eval_results.json".replace("/", "_"))
        write_json(paths[-1], to_saebench(suite, its, stamp))
    return paths


def _core(results: Results, density: Mapping[str, Tensor], coder: SparseCoder, recipe: Recipe) -> Found:
    n_rows = density["rows"].sum()
    density_L = density["fires"].sum(0) / n_rows
    latents = _latents(coder, density_L)
    return Found(
        figures=results.figures,
        standard_errors=results.standard_errors,
        more={
            "l1": float(density["activation"].sum() / n_rows),
            "total_tokens_eval_reconstruction": results.basis["ce_spliced"].n_tokens,
            "total_tokens_eval_sparsity_variance": results.n_tokens,
            "normalized_freq_over_1_percent": _share_over(density_L, 0.01),
            "normalized_freq_over_10_percent": _share_over(density_L, 0.1),
            **{f"average_{name}": float(latents[name].mean()) for name in _NEIGHBOURS},
        },
        parts=_listed(latents),
        settings={
            "model_name": recipe.model.name,
            "llm_dtype": recipe.model.dtype,
            "batch_size_prompts": SEQUENCES,
            "dataset": str(results.measured_with["text"]),
            "context_size": recipe.packing.context,
            **dict.fromkeys(_COMPUTED, True),
            "exclude_special_tokens_from_reconstruction": True,
            "verbose": False,
        },
    )


def _of_suite(suite: str, own: SuiteFigures, recipe: Recipe) -> Found:
    parts = tasks_apart(suite, own.details)
    settings: dict[str, Any] = {"random_seed": own.seeds.get("suite"), "model_name": recipe.model.name}
    settings["llm_dtype"] = recipe.model.dtype
    if suite != "absorption":
        settings["dataset_names"] = [part["dataset_name"] for part in parts]
        counts = {int(name.rpartition("_")[2].lstrip("k")) for name in own.figures if name[-1].isdigit()}
        settings["k_values" if suite == "probing" else "n_values"] = sorted(counts)
    return Found(
        figures=own.figures,
        standard_errors=own.standard_errors,
        more=spreads(parts) if suite == "absorption" else {},
        parts=parts,
        settings=settings,
    )


def _latents(coder: SparseCoder, density_L: Tensor) -> dict[str, Tensor]:
    """What they list of each latent, by their names; NaN where a coder has no encoder rows, or a single latent."""
    unknown_L = torch.full((coder.n_latents,), torch.nan)
    W_dec = coder.W_dec.detach()
    W_enc = coder.W_enc.detach() if "W_enc" in coder.readers else None
    found = {
        "feature_density": density_L,
        "encoder_bias": unknown_L if W_enc is None else coder.b_enc.detach(),
        "encoder_norm": unknown_L if W_enc is None else W_enc.norm(dim=1),
        "encoder_decoder_cosine_sim": unknown_L if W_enc is None else paired(W_enc, W_dec),
    }
    for name, rows in zip(_NEIGHBOURS, (W_enc, W_dec), strict=True):
        found[name] = unknown_L if rows is None or len(rows) < 2 else nearest(rows).cosines[:, 0]
    return found


def _listed(latents: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    columns = {name: values.double().tolist() for name, values in latents.items()}
    rows = zip(*columns.values(), strict=True)
    return [
        {"index": i, "consistent_activation_heuristic": None}
        | {name: round(value, _DIGITS) for name, value in zip(columns, row, strict=True)}
        for i, row in enumerate(rows)
    ]


def _share_over(density_L: Tensor, threshold: float) -> float:
    """Share of all fires that are of latents which fire on more than this share of tokens."""
    total = density_L.sum()
    return float(density_L[density_L > threshold].sum() / total) if total > 0 else 0.0


def _config(coder: SparseCoder, recipe: Recipe) -> dict[str, Any]:
    return {
        "architecture": type(coder).__module__.rpartition(".")[2],
        "d_in": coder.wiring.d_read,
        "d_sae": coder.n_latents,
        "dtype": str(coder.W_dec.dtype).removeprefix("torch."),
        "apply_b_dec_to_input": coder.config.centre,
        "model_name": recipe.model.name,
        "hook_name": hook_of(coder.site).name,
        "context_size": recipe.packing.context,
        "prepend_bos": recipe.packing.prepend_bos,
        "dataset_path": recipe.text.source,
    }
