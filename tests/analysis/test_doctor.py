"""What the doctor says of figures that are good, bad and odd."""

from unweave.analysis.doctor import diagnose

GOOD = {
    "explained_variance": 0.85,
    "l0": 32.0,
    "dead_share": 0.01,
    "dense_share": 0.01,
    "first_position_share": 0.0,
    "loss_recovered_mean": 0.92,
    "ce_clean": 2.5,
    "ce_spliced": 2.6,
    "ce_mean_ablated": 8.0,
    "standard_errors": {"ce_mean_ablated": 0.05},
    "n_tokens": 200_000,
}
CURVE = [{"explained_variance": 0.85, "l0": 32.0, "mse": 0.1}] * 40


def _bad(curve=CURVE, **changed) -> list[tuple[str, str]]:
    return [(f.level, f.title) for f in diagnose(GOOD | changed, curve) if f.level != "good"]


def test_a_good_run_has_nothing_off() -> None:
    assert _bad() == []


def test_each_figure_out_of_its_range_is_told_with_its_value() -> None:
    assert _bad(explained_variance=0.7) == [
        ("warning", "Explained variance is 0.70, under 0.80"),
        ("warning", "Explained variance is 0.15 lower on held-out text than in training"),
    ]
    assert _bad(explained_variance=0.5)[0] == ("problem", "Explained variance is 0.50, under 0.80")
    assert ("warning", "L0 is 300, over 200") in _bad(l0=300)
    assert ("problem", "L0 is 900, over 200") in _bad(l0=900)
    assert ("warning", "L0 is 2.0, under 5") in _bad(l0=2)
    assert _bad(dead_share=0.3) == [("problem", "30.0% of the latents never fired on 200,000 measured tokens")]
    assert _bad(dense_share=0.05) == [("warning", "5.0% of the latents fire on more than 10 % of tokens")]
    assert _bad(loss_recovered_mean=0.7) == [("warning", "Only 70% of the loss is recovered against mean ablation")]
    assert _bad(loss_recovered_mean=float("nan")) == [("warning", "Ablating the site does not change the model's loss")]
    assert _bad(first_position_share=0.4) == [("problem", "40% of the error is at the first position")]
    assert _bad(ce_mean_ablated=2.55, loss_recovered_mean=2.0) == [
        ("warning", "Ablating the site does not change the model's loss")
    ]
    assert _bad(explained_variance=float("nan"))[0] == ("problem", "The measured rows do not vary")
    assert _bad(ce_spliced=2.0) == [("warning", "The loss is lower with the reconstruction than without")]


def test_a_threshold_that_does_not_fit_is_told() -> None:
    assert _bad(l0=15.0) == [("warning", "L0 is 15.0 in use but was 32.0 in training")]


def test_a_run_that_was_still_improving_is_told() -> None:
    rising = [{"explained_variance": 0.4 + 0.01 * i, "l0": 32.0, "mse": 0.1} for i in range(46)]
    assert _bad(rising) == [("warning", "Explained variance rose by 0.040 in the last tenth of the run")]


def test_the_gravest_comes_first() -> None:
    levels = [finding.level for finding in diagnose(GOOD | {"dead_share": 0.5, "dense_share": 0.05}, CURVE)]
    assert levels == sorted(levels, key=["problem", "warning", "good"].index)
