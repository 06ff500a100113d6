"""SAEDashboard's files: what leaves comes back, their own files are read, and their library reads ours."""

import json
from pathlib import Path

import pytest

from tests.formats.records import VOCABULARY, dead_record, full_record
from unweave.errors import UserError
from unweave.formats.saedashboard import (
    Batch,
    Prompts,
    batch_files,
    batch_json,
    feature_of,
    parse_batch,
    read_batches,
    record_of,
    skipped_json,
)
from unweave.latent_record import Histogram, LatentRecord

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "neuronpedia-dashboards"
PROMPTS = Prompts(dataset="a text", n_prompts=50, n_tokens=10)
with_real_files = pytest.mark.skipif(not REAL.is_dir(), reason="no real dashboards on this machine")


def batch_of(*records: LatentRecord) -> Batch:
    features = [feature_of(record, VOCABULARY, PROMPTS) for record in records]
    return Batch(model_id="model", layer=2, sae_set="set", features=features)


def back(record: LatentRecord) -> tuple[LatentRecord, list[str]]:
    """A record after a way through a file, and its vocabulary."""
    token_ids: dict[str, int] = {}
    batch = parse_batch(batch_json(batch_of(record)), "batch-0.json")
    return record_of(batch.features[0], token_ids), list(token_ids)


def test_a_dashboard_has_the_numbers_of_the_record() -> None:
    feature = feature_of(full_record(), VOCABULARY, PROMPTS)
    assert feature.neuron_alignment_indices == [4, 6], "the largest coordinates; negative ones are not aligned"
    assert (feature.pos_str, feature.pos_values) == ([" cat", "\0"], [2.5, 1.25])
    assert (feature.neg_str, feature.neg_values) == (["</script><b>"], [-2.0])
    assert feature.freq_hist_data_bar_values == [1.5, 2.5, 3.5, 4.5, 5.5]
    assert feature.freq_hist_data_bar_heights == [10, 5, 0, 2, 3]
    bins = [(a.bin_min, a.bin_max, a.bin_contains) for a in feature.activations]
    assert bins == [(-1, 6.0, -1), (3.0, 6.0, 0.02), (1.0, 3.0, 0.02), (1.0, 3.0, 0.02)]
    assert feature.activations[0].tokens[feature.activations[0].qualifying_token_index] == " cat"


def test_what_leaves_comes_back() -> None:
    came, (read, texts) = full_record(), back(full_record())
    for name in ("latent", "density", "n_fires", "max_activation", "histogram", "logits"):
        assert getattr(read, name) == getattr(came, name)
    assert [(g.low, g.high, g.share) for g in read.groups] == [(g.low, g.high, g.share) for g in came.groups]
    theirs = [example for group in [*read.groups, read] for example in group.examples]
    ours = [example for group in [*came.groups, came] for example in group.examples]
    for here, there in zip(ours, theirs, strict=True):
        assert [texts[i] for i in there.token_ids] == [VOCABULARY[i] for i in here.token_ids]
        assert (there.activations, there.peak) == (here.activations, here.peak)
    assert [(texts[w.token_id], w.weight) for w in read.promoted] == [(" cat", 2.5), ("\0", 1.25)]
    assert read.mean_activation == pytest.approx((10 * 1.5 + 5 * 2.5 + 2 * 4.5 + 3 * 5.5) / 20)
    assert [neuron.neuron for neuron in read.neurons] == [4, 6]


def test_a_dead_latent_comes_back_dead() -> None:
    read, _ = back(dead_record())
    assert read == dead_record() and read.is_dead


def test_the_skipped_are_those_rarer_than_one_in_all_tokens() -> None:
    skipped = json.loads(skipped_json(batch_of(), [3, 9], 1000))
    assert skipped == {
        "model_id": "model",
        "layer": "2",
        "sae_set": "set",
        "log_sparsity": pytest.approx(-3.0),
        "skipped_indexes": [3, 9],
    }


def test_silent_tokens_of_their_lowest_interval_are_no_examples() -> None:
    silent = {"tokens": ["a", "b"], "values": [0.0, 0.0], "bin_min": 0.0, "bin_max": 1.0, "bin_contains": 0.97}
    fires = {**silent, "values": [0.0, 0.5], "qualifying_token_index": 1}
    feature = {"feature_index": 1, "frac_nonzero": 0.05, "activations": [silent, fires]}
    text = json.dumps({"model_id": "m", "layer": 0, "sae_set": "s", "features": [feature]})
    (group,) = record_of(parse_batch(text, "a file").features[0], {}).groups
    assert [example.activations for example in group.examples] == [[0.0, 0.5]]
    assert group.share == pytest.approx((0.97 - 0.95) / 0.05), "of the fires, where the file counts all tokens"


def test_batches_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2):
        (tmp_path / f"batch-{number}.json").write_bytes(batch_json(batch_of(full_record())))
    (tmp_path / "batch-old.json").write_text("no batch")
    assert [path.name for path in batch_files(tmp_path)] == ["batch-2.json", "batch-10.json"]
    assert len(list(read_batches(tmp_path))) == 2


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"model_id": 1}', '{"features": [{"pos_str": 3}]}'])
def test_what_is_no_batch_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match="'a file' is no batch") as refused:
        parse_batch(text, "a file")
    assert "\n" not in str(refused.value)


def test_a_folder_without_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no dashboards"):
        batch_files(tmp_path)


@with_real_files
def test_every_field_of_their_files_is_one_of_ours() -> None:
    for path in batch_files(REAL):
        theirs = json.loads(path.read_text())
        ours = json.loads(batch_json(parse_batch(path.read_text(), str(path))))
        for feature, copy in zip(theirs["features"], ours["features"], strict=True):
            assert copy == feature | {"vector": []}


@with_real_files
def test_their_files_are_opened_as_far_as_they_go() -> None:
    token_ids: dict[str, int] = {}
    features = [feature for batch in read_batches(REAL) for feature in batch.features]
    records = [record_of(feature, token_ids) for feature in features]
    assert [record.latent for record in records] == [feature.feature_index for feature in features]
    for record, feature in zip(records, features, strict=True):
        if record.is_dead:
            continue
        n_tokens = feature.n_prompts_total * feature.n_tokens_in_prompt
        assert record.n_fires == pytest.approx(feature.frac_nonzero * n_tokens, abs=0.00001 * n_tokens)
        assert record.logits is not None and sum(record.logits.counts) == 50257
        peaks = [example.activations[example.peak] for example in record.examples]
        assert peaks == sorted(peaks, reverse=True) and peaks[0] == record.max_activation
        assert all(example.activations[example.peak] > 0 for group in record.groups for example in group.examples)
    assert sum(not record.is_dead for record in records) == 3


def test_their_library_reads_what_we_write() -> None:
    theirs = pytest.importorskip("sae_dashboard.neuronpedia.neuronpedia_dashboard", reason="no sae-dashboard here")
    written = json.loads(batch_json(batch_of(full_record(), dead_record())))
    assert theirs.NeuronpediaDashboardBatch(**written).to_dict() == written


def test_the_histogram_of_one_value_has_one_place() -> None:
    record = LatentRecord(1, 0.5, 4, 2.0, 2.0, [], [], [], histogram=Histogram(2.0, 2.0, [4]))
    read, _ = back(record)
    assert read.histogram == Histogram(2.0, 2.0, [4]) and read.mean_activation == 2.0
