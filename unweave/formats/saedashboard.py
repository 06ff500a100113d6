"""SAEDashboard's folders of ``batch-N.json``, out and in: the dashboards that Neuronpedia is filled from.

What they hold that a record lacks stays empty, as in files of theirs that were made without it: correlations with
neurons and latents, direct feature attribution. What a record holds that they lack is left out: quantiles, partners,
rules, neurons on which the direction is negative. Where the two differ, the files follow SAEDashboard:

- ``frac_nonzero`` and ``bin_contains`` are shares of all tokens, where a group's share here is one of the fires.
- The lowest of their intervals counts tokens on which the latent is silent, and may show some: no example here does.
- Their numbers are rounded to three decimals, so what is read from them is as coarse.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from unweave.errors import UserError
from unweave.latent_record import (
    Example,
    ExampleGroup,
    Histogram,
    LatentRecord,
    NeuronWeight,
    TokenWeight,
)

SKIPPED = "skipped_indexes.json"
"""Names the latents that have no dashboard."""
_TOP = -1.0
"""As ``bin_min`` and ``bin_contains`` it marks the strongest activations, which are no interval."""


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A stretch of a prompt, and what a latent does on it."""

    tokens: list[str]
    values: list[float]
    bin_min: float = 0
    bin_max: float = 0
    bin_contains: float = 0
    """Share of all tokens on which the activation lies in the interval."""
    qualifying_token_index: int = 0
    """The token for which the stretch was chosen."""
    dfa_values: list[float] = field(default_factory=list)
    dfa_maxValue: float = 0
    dfa_targetIndex: int = -1


@dataclass(frozen=True, kw_only=True)
class Feature:
    """The dashboard of one latent."""

    feature_index: int
    neuron_alignment_indices: list[int] = field(default_factory=list)
    """Coordinates of the decoder row with the largest values, sign and all."""
    neuron_alignment_values: list[float] = field(default_factory=list)
    neuron_alignment_l1: list[float] = field(default_factory=list)
    correlated_neurons_indices: list[int] = field(default_factory=list)
    correlated_neurons_l1: list[float] = field(default_factory=list)
    correlated_neurons_pearson: list[float] = field(default_factory=list)
    correlated_features_indices: list[int] = field(default_factory=list)
    correlated_features_l1: list[float] = field(default_factory=list)
    correlated_features_pearson: list[float] = field(default_factory=list)
    neg_str: list[str] = field(default_factory=list)
    neg_values: list[float] = field(default_factory=list)
    pos_str: list[str] = field(default_factory=list)
    pos_values: list[float] = field(default_factory=list)
    frac_nonzero: float = 0
    freq_hist_data_bar_values: list[float] = field(default_factory=list)
    """Middles of the bars."""
    freq_hist_data_bar_heights: list[float] = field(default_factory=list)
    logits_hist_data_bar_heights: list[float] = field(default_factory=list)
    logits_hist_data_bar_values: list[float] = field(default_factory=list)
    n_prompts_total: int = 0
    n_tokens_in_prompt: int = 0
    dataset: str = ""
    decoder_weights_dist: list[float] = field(default_factory=list)
    activations: list[Activation] = field(default_factory=list)
    vector: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One file."""

    model_id: str
    layer: int
    sae_set: str
    sae_id_suffix: str | None = None
    features: list[Feature]


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The text of which dashboards were made."""

    dataset: str
    n_prompts: int
    n_tokens: int
    """Of each prompt."""


def feature_of(record: LatentRecord, vocabulary: Sequence[str], prompts: Prompts) -> Feature:
    """The dashboard of a latent; ``vocabulary`` is the text of each token id."""
    aligned = sorted((n for n in record.neurons if n.value > 0), key=lambda n: -n.value)
    return Feature(
        feature_index=record.latent,
        neuron_alignment_indices=[n.neuron for n in aligned],
        neuron_alignment_values=[n.value for n in aligned],
        neuron_alignment_l1=[n.share for n in aligned],
        neg_str=[vocabulary[w.token_id] for w in record.suppressed],
        neg_values=[w.weight for w in record.suppressed],
        pos_str=[vocabulary[w.token_id] for w in record.promoted],
        pos_values=[w.weight for w in record.promoted],
        frac_nonzero=record.density,
        freq_hist_data_bar_values=_middles(record.histogram),
        freq_hist_data_bar_heights=_counts(record.histogram),
        logits_hist_data_bar_heights=_counts(record.logits),
        logits_hist_data_bar_values=_middles(record.logits),
        n_prompts_total=prompts.n_prompts,
        n_tokens_in_prompt=prompts.n_tokens,
        dataset=prompts.dataset,
        activations=list(_activations(record, vocabulary)),
    )


def record_of(feature: Feature, token_ids: dict[str, int]) -> LatentRecord:
    """What a dashboard says of its latent; ``token_ids`` numbers the texts of tokens, and grows by those it lacks."""
    histogram = _histogram(feature.freq_hist_data_bar_values, feature.freq_hist_data_bar_heights)
    n_tokens = feature.n_prompts_total * feature.n_tokens_in_prompt
    n_fires = sum(histogram.counts) if histogram else round(feature.frac_nonzero * n_tokens)
    top = [a for a in feature.activations if a.bin_min == _TOP and _fires(a)]
    drawn = [a for a in feature.activations if a.bin_min != _TOP]
    aligned = (feature.neuron_alignment_indices, feature.neuron_alignment_values, feature.neuron_alignment_l1)
    return LatentRecord(
        latent=feature.feature_index,
        density=feature.frac_nonzero,
        n_fires=n_fires,
        max_activation=max((value for a in feature.activations for value in a.values), default=0.0),
        mean_activation=_mean(feature.freq_hist_data_bar_values, feature.freq_hist_data_bar_heights),
        examples=[_example(a, token_ids) for a in top],
        promoted=_weights(feature.pos_str, feature.pos_values, token_ids),
        suppressed=_weights(feature.neg_str, feature.neg_values, token_ids),
        groups=_groups(drawn, feature.frac_nonzero, token_ids),
        histogram=histogram,
        logits=_histogram(feature.logits_hist_data_bar_values, feature.logits_hist_data_bar_heights),
        neurons=[NeuronWeight(*neuron) for neuron in zip(*aligned, strict=False)],
    )


def batch_json(batch: Batch) -> bytes:
    """The content of a batch file."""
    return _adapter().dump_json(batch)


def skipped_json(batch: Batch, skipped: Sequence[int], n_tokens: int) -> bytes:
    """The content of ``skipped_indexes.json`` beside a batch, for latents that never fired on so many tokens."""
    content: Mapping[str, Any] = {
        "model_id": batch.model_id,
        "layer": str(batch.layer),
        "sae_set": batch.sae_set,
        "log_sparsity": -math.log10(max(1, n_tokens)),  # what fires once is not rarer than this
        "skipped_indexes": list(skipped),
    }
    return json.dumps(content).encode()


def parse_batch(text: str | bytes, name: str) -> Batch:
    """A batch from a file's content; ``name`` tells the file in the error."""
    try:
        return _adapter().validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{name!r} is no batch of SAEDashboard: {where or 'it'}: {first['msg']}") from error


def batch_files(folder: Path) -> list[Path]:
    """The batches of a folder, in order; raises ``UserError`` where there are none."""
    found = {int(m[1]): path for path in folder.glob("batch-*.json") if (m := re.fullmatch(r"batch-(\d+)", path.stem))}
    if not found:
        raise UserError(f"{str(folder)!r} holds no dashboards; give a folder with SAEDashboard's batch-0.json")
    return [found[number] for number in sorted(found)]


def read_batches(folder: Path) -> Iterator[Batch]:
    """The batches of a folder one after another; raises ``UserError`` for a file that is not one."""
    return (parse_batch(path.read_bytes(), str(path)) for path in batch_files(folder))


def _activations(record: LatentRecord, vocabulary: Sequence[str]) -> Iterator[Activation]:
    for example in record.examples:
        yield _activation(example, vocabulary, (_TOP, record.max_activation, _TOP))
    for group in record.groups:
        for example in group.examples:
            yield _activation(example, vocabulary, (group.low, group.high, group.share * record.density))


def _activation(example: Example, vocabulary: Sequence[str], bounds: tuple[float, float, float]) -> Activation:
    return Activation(
        tokens=[vocabulary[token] for token in example.token_ids],
        values=example.activations,
        bin_min=bounds[0],
        bin_max=bounds[1],
        bin_contains=bounds[2],
        qualifying_token_index=example.peak,
    )


def _example(activation: Activation, token_ids: dict[str, int]) -> Example:
    numbers = [token_ids.setdefault(token, len(token_ids)) for token in activation.tokens]
    return Example(numbers, activation.values, activation.qualifying_token_index, document="")


def _fires(activation: Activation) -> bool:
    """Whether the latent fires on the token for which the stretch was chosen."""
    place = activation.qualifying_token_index
    return 0 <= place < len(activation.values) == len(activation.tokens) and activation.values[place] > 0


def _groups(drawn: Sequence[Activation], density: float, token_ids: dict[str, int]) -> list[ExampleGroup]:
    groups = []
    for (low, high, contains), members in groupby(drawn, key=lambda a: (a.bin_min, a.bin_max, a.bin_contains)):
        examples = [_example(a, token_ids) for a in members if _fires(a)]
        silent = 1 - density if low <= 0 and contains > density else 0.0
        share = (contains - silent) / density if density else 0.0
        if examples:
            groups.append(ExampleGroup(low, high, min(1.0, max(0.0, share)), examples))
    return groups


def _weights(texts: Sequence[str], values: Sequence[float], token_ids: dict[str, int]) -> list[TokenWeight]:
    pairs = zip(texts, values, strict=False)
    return [TokenWeight(token_ids.setdefault(text, len(token_ids)), value) for text, value in pairs]


def _middles(histogram: Histogram | None) -> list[float]:
    if histogram is None:
        return []
    n = len(histogram.counts)
    width = (histogram.high - histogram.low) / n
    return [float(f"{histogram.low + (i + 0.5) * width:.7g}") for i in range(n)]


def _counts(histogram: Histogram | None) -> list[float]:
    return [float(count) for count in histogram.counts] if histogram else []


def _histogram(middles: Sequence[float], heights: Sequence[float]) -> Histogram | None:
    if not middles or len(middles) != len(heights):
        return None
    half = (middles[-1] - middles[0]) / max(1, len(middles) - 1) / 2
    return Histogram(middles[0] - half, middles[-1] + half, [round(height) for height in heights])


def _mean(middles: Sequence[float], heights: Sequence[float]) -> float:
    """As far as the bars tell."""
    pairs = zip(middles, heights, strict=False)
    return sum(middle * height for middle, height in pairs) / sum(heights) if sum(heights) else 0.0


@cache
def _adapter() -> Any:
    return TypeAdapter(Batch)
