"""Matching of latents and features, and detection, against brute force and numbers worked by hand."""

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from unweave.activations.synthetic import SyntheticConfig, SyntheticData
from unweave.errors import UserError
from unweave.metrics import DetectedFeatures, FeatureDetection
from unweave.metrics.ground_truth import best_matches, mcc, uniqueness
from unweave.types import Codes


def _codes(*rows: list[int], n_latents: int, values: list[float] | None = None) -> Codes:
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row))
    latents = torch.tensor([latent for row in rows for latent in row], dtype=torch.int64)
    numbers = torch.ones(len(latents)) if values is None else torch.tensor(values)
    return Codes(numbers, latents, torch.tensor(offsets), n_latents)


def _cosines(W: Tensor, features: Tensor) -> list[list[float]]:
    """Absolute cosines, one by one."""
    return [[abs(float(w @ f) / float(w.norm() * f.norm())) for f in features] for w in W]


@pytest.mark.parametrize(("n_latents", "n_features"), [(5, 5), (3, 6), (6, 3), (1, 7), (7, 1)])
def test_mcc_is_the_best_mean_over_all_one_to_one_matchings(n_latents: int, n_features: int) -> None:
    W, features = torch.randn(n_latents, 4), torch.randn(n_features, 4)
    cosines = _cosines(W, features)
    n_pairs = min(n_latents, n_features)
    if n_latents <= n_features:
        sums = (sum(cosines[i][f] for i, f in enumerate(chosen)) for chosen in permutations(range(n_features), n_pairs))
    else:
        sums = (sum(cosines[i][f] for f, i in enumerate(chosen)) for chosen in permutations(range(n_latents), n_pairs))
    assert mcc(W, features) == pytest.approx(max(sums) / n_pairs, rel=1e-5)


def test_mcc_is_one_for_the_features_themselves_in_any_order_sign_and_length() -> None:
    features = torch.randn(63, 7)
    W = features[torch.randperm(63)] * torch.randn(63, 1)
    assert mcc(W, features) == pytest.approx(1.0)


def test_mcc_gives_every_feature_to_one_latent_only() -> None:
    """Both latents are the first feature; one of them is matched with the second, at an angle of 60 degrees."""
    features = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
    assert mcc(features[[0, 0]], features) == pytest.approx((1 + 0.5) / 2)


def test_mcc_can_leave_out_features_that_never_fire() -> None:
    features = torch.eye(4)
    W = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]])
    assert mcc(W, features) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    can_fire = torch.tensor([False, True, False, True])
    assert mcc(W, features, can_fire) == pytest.approx(math.sqrt(0.5) / 2)


def test_weights_that_are_still_in_training_are_read_too() -> None:
    W = torch.eye(3).requires_grad_()
    assert mcc(W, torch.eye(3)) == uniqueness(W, torch.eye(3)) == 1.0


def test_a_latent_is_matched_with_the_feature_of_the_largest_absolute_cosine() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 0.1], [1.0, 1.0]])
    W = torch.tensor([[3.0, 0.1], [0.0, -5.0], [0.1, -9.0], [-1.0, -1.1]])
    assert best_matches(W, features).tolist() == [0, 1, 1, 2]
    assert uniqueness(W, features) == 3 / 4


def test_many_latents_are_matched_in_blocks_as_they_are_one_by_one() -> None:
    """A hundred thousand features leave room for 167 latents at once."""
    generator = torch.Generator().manual_seed(7)
    features, W = torch.randn(100_000, 3, generator=generator), torch.randn(200, 3, generator=generator)
    matches = best_matches(W, features)
    directions = features.double() / features.double().norm(dim=1, keepdim=True)
    for i in (0, 100, 166, 167, 199):
        assert matches[i] == (directions @ W[i].double()).abs().argmax()


@pytest.mark.parametrize(("W", "features"), [((3, 4), (5, 7)), ((0, 4), (5, 4)), ((3, 4), (0, 4))])
def test_matrices_that_cannot_be_compared_are_refused(W: tuple[int, int], features: tuple[int, int]) -> None:
    for figure in (mcc, best_matches, uniqueness):
        with pytest.raises(UserError, match=r"the same width and at least one each, got decoder rows \[\d, 4\]"):
            figure(torch.ones(W), torch.ones(features))


def test_mcc_among_no_features_is_refused() -> None:
    with pytest.raises(UserError, match="at least one each"):
        mcc(torch.eye(3), torch.eye(3), torch.zeros(3, dtype=torch.bool))


def test_detection_is_worked_by_hand() -> None:
    """Four rows, three latents that are judged by features 2, 0 and 0, and a fourth that is dead.

    Latent 0 fires on rows 0, 1, 3 and its feature on 0, 1, 2: precision 2/3, recall 2/3, F1 2/3.
    Latent 1 fires on row 0, its feature on rows 0 and 3: precision 1, recall 1/2, F1 2/3.
    Latent 2 fires on rows 1 and 2 without its feature: all 0. Latent 3 never fires; its feature does not either.
    """
    metric = FeatureDetection(torch.tensor([2, 0, 0, 1]), 3)
    codes = _codes([0, 1], [0, 2], [2], [0], n_latents=4)
    metric.update(DetectedFeatures(codes, _codes([0, 2], [2], [2], [0], n_latents=3)))
    assert metric.precision_L.tolist() == pytest.approx([2 / 3, 1.0, 0.0, 0.0])
    assert metric.recall_L.tolist() == pytest.approx([2 / 3, 0.5, 0.0, 0.0])
    assert metric.f1_L.tolist() == pytest.approx([2 / 3, 2 / 3, 0.0, 0.0])
    figures = {"precision": 5 / 12, "recall": 7 / 24, "f1": 1 / 3, "dead_share": 1 / 4}
    assert metric.compute() == pytest.approx(figures)


def test_detection_agrees_with_counting_cell_by_cell(make_codes: Callable[..., Codes]) -> None:
    codes, magnitudes = make_codes(63, 100, 0.1), make_codes(63, 7, 0.4)
    matches = torch.randint(7, (100,))
    metric = FeatureDetection(matches, 7)
    metric.update(DetectedFeatures(codes, magnitudes))
    says, true = codes.dense() != 0, magnitudes.dense() != 0
    for latent in range(100):
        pairs = [(bool(says[b, latent]), bool(true[b, matches[latent]])) for b in range(63)]
        tp, fp, fn = pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))
        assert metric.precision_L[latent].item() == pytest.approx(tp / max(1, tp + fp))
        assert metric.recall_L[latent].item() == pytest.approx(tp / max(1, tp + fn))
        precision, recall = tp / max(1, tp + fp), tp / max(1, tp + fn)
        harmonic = 2 * precision * recall / (precision + recall) if tp else 0.0
        assert metric.f1_L[latent].item() == pytest.approx(harmonic)


def test_an_explicit_zero_is_no_activation() -> None:
    metric = FeatureDetection(torch.tensor([0, 1]), 2)
    codes = _codes([0, 1], [0], n_latents=2, values=[1.0, 0.0, 0.0])
    metric.update(DetectedFeatures(codes, _codes([0, 1], [0], n_latents=2, values=[0.0, 1.0, 1.0])))
    assert metric.total()["latents"][0].tolist() == [1, 0]
    assert metric.total()["features"][0].tolist() == [1, 1]
    assert metric.compute() == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "dead_share": 0.5}


def test_merging_parts_is_one_pass_over_all(make_codes: Callable[..., Codes]) -> None:
    matches = torch.randint(13, (100,))
    whole, left, right = (FeatureDetection(matches, 13) for _ in range(3))
    for i, n_rows in enumerate((7, 63, 1, 100, 30)):
        batch = DetectedFeatures(make_codes(n_rows, 100, 0.05), make_codes(n_rows, 13, 0.3))
        whole.update(batch)
        (left if i < 2 else right).update(batch)
    before = right.compute()
    left.merge(right)
    assert left.compute() == whole.compute()
    assert right.compute() == before


def test_codes_and_features_of_other_shapes_are_refused() -> None:
    metric = FeatureDetection(torch.tensor([0, 1]), 3)
    with pytest.raises(UserError, match=r"\(1, 2, 3\), expected \(2, 2, 3\); encode the rows that came with"):
        metric.update(DetectedFeatures(_codes([0], n_latents=2), _codes([0], [1], n_latents=3)))
    with pytest.raises(UserError, match=r"\(1, 7, 3\), expected \(1, 2, 3\)"):
        metric.update(DetectedFeatures(_codes([0], n_latents=7), _codes([0], n_latents=3)))
    with pytest.raises(UserError, match=r"\(1, 2, 7\), expected \(1, 2, 3\)"):
        metric.update(DetectedFeatures(_codes([0], n_latents=2), _codes([0], n_latents=7)))


def test_figures_are_exactly_those_that_are_defined() -> None:
    metric = FeatureDetection(torch.tensor([0]), 1)
    metric.update(DetectedFeatures(_codes([0], n_latents=1), _codes([0], n_latents=1)))
    assert list(metric.compute()) == [definition.name for definition in metric.definitions]


def test_latents_that_are_the_features_in_another_order_detect_them_perfectly() -> None:
    data = SyntheticData(SyntheticConfig(n_features=100, d_model=17, min_probability=0.05))
    order = torch.randperm(100)
    latent_of = order.argsort()
    W_dec = -2.0 * data.features_FD[order]
    metric = FeatureDetection(best_matches(W_dec, data.features_FD), 100)
    generator = torch.Generator().manual_seed(7)
    for n in (63, 200):
        magnitudes = data.sample(n, generator).magnitudes_BF
        rows = [latent_of[magnitudes.latent_ids[magnitudes.row_ids == b]].sort().values.tolist() for b in range(n)]
        metric.update(DetectedFeatures(_codes(*rows, n_latents=100), magnitudes))
    assert metric.compute() == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "dead_share": 0.0}
    assert mcc(W_dec, data.features_FD) == pytest.approx(1.0, abs=1e-6)
    assert uniqueness(W_dec, data.features_FD) == 1.0


def test_the_matching_library_is_only_loaded_when_it_is_used() -> None:
    code = "import sys, unweave.metrics.ground_truth, unweave.activations.synthetic; print('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
