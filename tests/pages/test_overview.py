"""What the charts draw, compared with counts made by hand."""

import math

from unweave.latent_record import Example, LatentRecord
from unweave.pages.data_script import compact, data_script
from unweave.pages.featured import Best
from unweave.pages.fragments import census, figure, loss_ladder
from unweave.pages.overview import density_histogram, training_curves


def record(latent: int, density: float, peaks: tuple[int, ...] = (), strength: float = 1.0) -> LatentRecord:
    examples = [Example([token], [strength], 0, "a") for token in peaks]
    return LatentRecord(latent, density, round(density * 100_000), strength, 0.5, examples, [], [])


def test_the_histogram_counts_each_live_latent_once() -> None:
    densities = [0.0, 0.0, 0.001, 0.001, 0.0011, 0.02, 0.11, 0.5, 1.0]
    histogram = density_histogram(densities)
    assert histogram["n_dead"] == 2
    assert histogram["n_dense"] == 3
    assert sum(histogram["counts"]) == 7
    at = dict(zip(histogram["starts"], histogram["counts"], strict=True))
    assert at[-3.0] == 3, "0.001 belongs to the bin that starts there"
    assert at[-0.125] == 1, "a density of one belongs to the last bin"


def test_the_histogram_of_dead_latents_is_empty() -> None:
    histogram = density_histogram([0.0, 0.0])
    assert histogram["counts"] == [] and histogram["n_dead"] == 2


def test_a_loss_that_some_steps_do_not_log_leaves_gaps() -> None:
    curve = [{"step": 0, "rows": 7, "mse": 2.0, "l0": 3.0}, {"step": 1, "rows": 14, "mse": 1.0, "l0": 3.0, "aux": 0.5}]
    curves = training_curves(curve)
    assert curves["rows"] == [7, 14]
    panels = {panel["name"]: panel for panel in curves["panels"]}
    assert panels["aux"]["values"] == [None, 0.5]
    assert panels["aux"]["kind"] == "loss" and panels["l0"]["kind"] == "number"
    assert "explained_variance" not in panels


def test_a_long_curve_is_thinned_and_keeps_its_last_step() -> None:
    curve = [{"step": i, "rows": 63 * i, "mse": 1.0} for i in range(10_007)]
    curves = training_curves(curve)
    assert curves["rows"][-1] == 63 * 10_006
    assert len(curves["rows"]) <= 1200
    assert {b - a for a, b in zip(curves["rows"], curves["rows"][1:], strict=False)} == {63 * curves["stride"]}


def test_featured_latents_agree_and_speak_of_different_words() -> None:
    vocabulary = [" the", "The", " cat", "7", " dog"]
    records = [
        record(0, 0.001, (0, 0, 0, 0), strength=1.0),
        record(1, 0.001, (1, 1, 1, 1), strength=9.0),
        record(2, 0.001, (2, 2, 2, 4), strength=99.0),
        record(3, 0.001, (3, 3, 3, 3), strength=99.0),
        record(4, 0.2, (4, 4, 4, 4), strength=99.0),
        record(5, 0.001, (4,), strength=99.0),
        record(6, 0.0),
    ]
    assert featured(records, vocabulary) == [(1, 4), (2, 3)]


def test_featured_latents_are_the_best_in_whatever_order_they_come() -> None:
    vocabulary = [f" word{chr(97 + i % 26)}" for i in range(100)]
    records = [record(i, 0.001, (i, i, i, i + i % 2), strength=float(i * 37 % 100)) for i in range(90)]
    whole = featured(records, vocabulary, count=100)
    assert len(whole) == 26, "one for each word"
    assert featured(records, vocabulary, count=7) == featured(records[::-1], vocabulary, count=7) == whole[:7]


def featured(records: list[LatentRecord], vocabulary: list[str], count: int = 6) -> list[tuple[int, int]]:
    best = Best(vocabulary, count)
    for one in records:
        best.show(one)
    return [(choice.record.latent, choice.n_agreeing) for choice in best.chosen()]


def test_a_script_says_what_its_payload_was() -> None:
    assert data_script("a", {"b": ["</script>", "é\u2028"]}) == (
        'unweave.receive("a",{"b":["\\u003c/script\\u003e","\\u00e9\\u2028"]});\n'
    )


def test_numbers_are_kept_to_four_digits() -> None:
    assert [compact(x) for x in (0.0, 1.0, 0.123456, 123456.0, -1e-9)] == [0, 1, 0.1235, 123500, -1e-9]
    assert compact(math.nan) is None and compact(-math.inf) is None


def test_figures_are_written_as_people_read_them() -> None:
    assert figure("dead_share", 0.0625) == "6.25 %"
    assert figure("l0", 35.9123) == "35.91"
    assert figure("mse", 12345.6) == "12,346"


def test_the_ladder_needs_the_clean_and_the_spliced_loss() -> None:
    assert loss_ladder({"ce_clean": 2.0}) == ""
    ladder = loss_ladder({"ce_clean": 2.0, "ce_spliced": 2.5, "ce_zero_ablated": 10.0, "ce_mean_ablated": math.nan})
    assert "width:20.00%" in ladder and "width:100.00%" in ladder and "mean row" not in ladder


def test_the_caption_counts_dead_and_dense_latents_apart() -> None:
    assert "63 of 1,000 latents never fired" in census(1000, 63, 7) and "7 dense" in census(1000, 63, 7)
    assert "Each of the 1,000 latents fired" in census(1000, 0, 0) and "none is dense" in census(1000, 0, 0)
