"""SAEBench's result files (Karvonen et al. 2025, arXiv 2503.09532), one JSON for an evaluation of an SAE: write, read.

A field has the figure of ours that its name means, and is null where we have none. What is not the same:

- ``explained_variance`` is ours, over all tokens at once. SAEBench's own, since its version 0.4, has
  E|x|^2 - (E|x|^2 / D)^2 in the place of the variance and is never read. What it had under this name before, and as
  ``explained_variance_legacy`` since, is ``explained_variance_of_rows``, about the mean of a batch and not of all rows.
- ``mse`` is null, and not read: SAEBench divides by the tokens of a batch, so it depends on the batch size.
- Losses and divergences are against zero ablation, with special tokens untouched, and KL is of all predicted tokens.
- ``scr_metric`` and ``scr_dir1`` are both ours, which takes out what tells the spurious label. SAEBench also does it
  the other way round (``scr_dir2``, null); its ``scr_metric``, which is read, is the way whose probe was worse.
- ``absorption_first_letter`` has the classes of our task, which need not be letters, in the place of letters.
- Probes are ours everywhere, and the texts are those of our tasks: compare with runs of unweave on the same texts.

SAEBench's own classes hold numbers only, and -1 where it found none. Standard errors are in
``eval_result_unstructured``, for which SAEBench has no rule.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unweave.errors import UserError

Fields = Mapping[str, str | None]
"""Their fields, and our figures; None where we have none."""
_COUNTS = (2, 5, 10, 20, 50, 100, 500)
_KS = (1, 2, 5, 10, 20, 50, 100)
_PROBING: dict[str, Fields] = {
    "llm": {"llm_test_accuracy": "probe_row"} | {f"llm_top_{k}_test_accuracy": f"probe_row_k{k}" for k in _KS},
    "sae": {"sae_test_accuracy": "probe_codes"} | {f"sae_top_{k}_test_accuracy": f"probe_k{k}" for k in _KS},
}
_TPP: Fields = {
    f"tpp_threshold_{n}_{theirs}": f"tpp{ours}_{n}"
    for n in _COUNTS
    for theirs, ours in (
        ("total_metric", ""),
        ("intended_diff_only", "_intended"),
        ("unintended_diff_only", "_unintended"),
    )
}
_SCR: Fields = {
    f"scr_{theirs}_threshold_{n}": ours
    for n in _COUNTS
    for theirs, ours in (("dir1", f"scr_{n}"), ("metric", f"scr_{n}"), ("dir2", None))
}
_METRICS: dict[str, dict[str, Fields]] = {
    "core": {
        "model_behavior_preservation": {
            "kl_div_score": "kl_recovered_zero",
            "kl_div_with_ablation": "kl_zero_ablated",
            "kl_div_with_sae": "kl",
        },
        "model_performance_preservation": {
            "ce_loss_score": "loss_recovered_zero",
            "ce_loss_with_ablation": "ce_zero_ablated",
            "ce_loss_with_sae": "ce_spliced",
            "ce_loss_without_sae": "ce_clean",
        },
        "reconstruction_quality": {
            "explained_variance": "explained_variance",
            "explained_variance_legacy": "explained_variance_of_rows",
            "mse": None,
            "cossim": "cosine",
        },
        "shrinkage": {
            "l2_norm_in": None,
            "l2_norm_out": None,
            "l2_ratio": "shrinkage",
            "relative_reconstruction_bias": "scale",
        },
        "sparsity": {"l0": "l0", "l1": None},
        "token_stats": {"total_tokens_eval_reconstruction": None, "total_tokens_eval_sparsity_variance": None},
        "misc_metrics": {
            "freq_over_1_percent": "often_share",
            "freq_over_10_percent": "dense_share",
            "normalized_freq_over_1_percent": None,
            "normalized_freq_over_10_percent": None,
            "average_max_encoder_cosine_sim": None,
            "average_max_decoder_cosine_sim": None,
            "frac_alive": None,
        },
    },
    "sparse_probing": _PROBING,
    "tpp": {"tpp_metrics": _TPP},
    "scr": {"scr_metrics": _SCR},
    "absorption_first_letter": {
        "mean": {
            "mean_absorption_fraction_score": "absorption_fraction",
            "mean_full_absorption_score": "absorption_full",
            "mean_num_split_features": "absorption_split",
            "std_dev_absorption_fraction_score": None,
            "std_dev_full_absorption_score": None,
            "std_dev_num_split_features": None,
        }
    },
}
EVALUATIONS = {
    "core": "core",
    "probing": "sparse_probing",
    "tpp": "tpp",
    "scr": "scr",
    "absorption": "absorption_first_letter",
}
"""Our suites, and what SAEBench calls them."""
_OURS = "unweave "
"""Stands before our version where SAEBench has its commit."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was measured of an SAE, in our terms."""

    figures: Mapping[str, float | None]
    standard_errors: Mapping[str, float | None]
    more: Mapping[str, float | int | None] = field(default_factory=dict)
    """Numbers that are no figures of ours, by their own names for them."""
    parts: Sequence[Mapping[str, Any]] = ()
    """What they list one by one: latents, tasks or letters, in their terms."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings in their terms."""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Whose result it is, and when it was written."""

    name: str
    """Name of the SAE."""
    version: str
    """Version of unweave."""
    eval_id: str
    """A UUID."""
    milliseconds: int
    """Since 1970."""
    config: Mapping[str, Any]
    """What the SAE is, as SAELens says it."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a result file of SAEBench says in our terms."""

    evaluation: str
    """The suite of ours: core, probing, tpp, scr or absorption."""
    sae: str
    """Release and id of the SAE."""
    model: str
    figures: dict[str, float]
    standard_errors: dict[str, float]
    """None in files that SAEBench itself wrote."""


def to_saebench(suite: str, found: Found, stamp: Stamp) -> dict[str, Any]:
    """The file of a suite, ready for JSON."""
    kind = EVALUATIONS[suite]
    return {
        "eval_type_id": kind,
        "eval_config": dict(found.settings),
        "eval_id": stamp.eval_id,
        "datetime_epoch_millis": stamp.milliseconds,
        "eval_result_metrics": {
            category: {theirs: _value(theirs, ours, found) for theirs, ours in fields.items()}
            for category, fields in _METRICS[kind].items()
        },
        "eval_result_details": [dict(part) for part in found.parts],
        "sae_bench_commit_hash": _OURS + stamp.version,
        "sae_lens_id": stamp.name,
        "sae_lens_release_id": "unweave",
        "sae_lens_version": None,
        "sae_cfg_dict": dict(stamp.config),
        "eval_result_unstructured": {"standard_errors": dict(found.standard_errors)},
    }


def read_saebench(path: Path) -> Published:
    """Our figures of a result file; raises ``UserError`` for one that is none, or of an evaluation that we have not."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind, metrics = values["eval_type_id"], values["eval_result_metrics"]
    except FileNotFoundError as error:
        raise UserError(f"there is no file {str(path)!r}; give a result file of SAEBench") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{str(path)!r} is no result file of SAEBench: it needs eval_type_id and metrics") from error
    suites = {theirs: ours for ours, theirs in EVALUATIONS.items()}
    if kind not in suites:
        raise UserError(f"{str(path)!r} is of SAEBench's evaluation {kind!r}; known here: {', '.join(suites)}")
    is_ours = str(values.get("sae_bench_commit_hash")).startswith(_OURS)
    figures = dict(_figures(kind, metrics, is_ours))
    errors = (values.get("eval_result_unstructured") or {}).get("standard_errors", {}) if is_ours else {}
    return Published(
        evaluation=suites[kind],
        sae=f"{values.get('sae_lens_release_id')}_{values.get('sae_lens_id')}",
        model=str((values.get("eval_config") or {}).get("model_name", "")),
        figures=figures,
        standard_errors={name: errors[name] for name in figures if errors.get(name) is not None},
    )


def tasks_apart(suite: str, details: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """The details of a suite as they list them: a task each, mean over its classes; of absorption a class each."""
    if suite == "absorption":
        return _classes(details)
    fields = {theirs: ours for of in _METRICS[EVALUATIONS[suite]].values() for theirs, ours in of.items()}
    values: dict[str, dict[str, list[float]]] = {}
    for name, value in details.items():
        task, _, figure = name.rpartition("/")
        if figure in fields.values() and value is not None:
            task = task.rpartition("/")[0] if suite == "probing" else task
            values.setdefault(task, {}).setdefault(figure, []).append(value)
    suffix = "" if suite == "probing" else f"_{suite}"
    return [
        {"dataset_name": f"{task}{suffix}_results"}
        | {theirs: statistics.fmean(of[ours]) if ours in of else None for theirs, ours in fields.items()}
        for task, of in values.items()
    ]


def spreads(classes: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Standard deviations over the classes of absorption, which they have beside the means."""
    columns = {
        "std_dev_absorption_fraction_score": "mean_absorption_fraction",
        "std_dev_full_absorption_score": "full_absorption_rate",
        "std_dev_num_split_features": "num_split_features",
    }
    found: dict[str, float | None] = {}
    for name, column in columns.items():
        values = [part[column] for part in classes if part[column] is not None]
        found[name] = statistics.stdev(values) if len(values) > 1 else None
    return found


def _classes(details: Mapping[str, float | None]) -> list[dict[str, Any]]:
    classes: dict[str, dict[str, float | None]] = {}
    for name, value in details.items():
        place, _, figure = name.rpartition("/")
        classes.setdefault(place.rpartition("/")[2], {})[figure] = value
    return [
        {
            "first_letter": name,
            "mean_absorption_fraction": of.get("absorption_fraction"),
            "full_absorption_rate": of.get("absorption_full"),
            "num_full_absorption": None,
            "num_probe_true_positives": None,
            "num_split_features": None if of.get("absorption_split") is None else int(of["absorption_split"] or 0),
        }
        for name, of in classes.items()
    ]


def _value(theirs: str, ours: str | None, found: Found) -> float | int | None:
    if theirs == "frac_alive":
        dead = found.figures.get("dead_share")
        return None if dead is None else 1.0 - dead
    return found.more.get(theirs) if ours is None else found.figures.get(ours)


def _figures(kind: str, metrics: Mapping[str, Any], is_ours: bool) -> Iterator[tuple[str, float]]:
    for category, fields in _METRICS[kind].items():
        values = dict(metrics.get(category) or {})
        if not is_ours and category == "reconstruction_quality":
            explained = values.pop("explained_variance", None)
            values.setdefault("explained_variance_legacy", explained)
        if values.get("kl_div_with_sae") == -1:
            continue
        for theirs, ours in fields.items():
            if ours is not None and values.get(theirs) is not None:
                yield ours, float(values[theirs])
        if values.get("frac_alive") is not None:
            yield "dead_share", 1.0 - values["frac_alive"]
