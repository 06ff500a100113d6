"""Rows for Neuronpedia's importer, and uploads within the limits of its server."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.formats.records import VOCABULARY, dead_record, full_record
from unweave.errors import UserError
from unweave.formats.neuronpedia import (
    Address,
    UploadActivation,
    UploadBatch,
    UploadFeature,
    about_rows,
    activation_rows,
    feature_row,
    parse_row,
    row_json,
    safe_texts,
    slug,
    upload_feature,
)
from unweave.formats.neuronpedia_rows import Activation, Feature
from unweave.formats.saedashboard import Feature as Dashboard
from unweave.formats.saedashboard import Prompts, feature_of
from unweave.latent_record import Example, LatentRecord, TokenWeight

AT = Address(model="gpt2-small", layer=3, source_set="res-1k", created="2026-01-31T12:00:00.000Z")
PROMPTS = Prompts(dataset="a text", n_prompts=50, n_tokens=10)


def dashboard(record: LatentRecord) -> Dashboard:
    return feature_of(record, safe_texts(VOCABULARY), PROMPTS)


def upload(record: LatentRecord, *explanations: str) -> UploadFeature:
    feature = upload_feature(dashboard(record), explanations)
    assert feature is not None
    return feature


def test_a_row_of_a_latent_reads_back() -> None:
    row = feature_row(full_record(), dashboard(full_record()), AT)
    assert parse_row(Feature, row_json(row)) == row
    assert (row.modelId, row.layer, row.index, row.sourceSetName) == ("gpt2-small", "3-res-1k", "7", "res-1k")
    assert (row.maxActApprox, row.frac_nonzero) == (6.0, 0.04)
    assert (row.topkCosSimIndices, row.topkCosSimValues) == ([2, 0], [0.75, 0.5])
    assert row.correlated_features_indices == [], "that two fire together is no correlation of their activations"


def test_rows_of_examples_read_back_and_keep_their_identifiers() -> None:
    rows = list(activation_rows(full_record(), dashboard(full_record()), AT))
    assert [parse_row(Activation, row_json(row)) for row in rows] == rows
    assert rows == list(activation_rows(full_record(), dashboard(full_record()), AT))
    assert len({row.id for row in rows}) == len(rows) == 4
    assert all(len(row.id) == 25 and row.id.isalnum() for row in rows)
    first, weak = rows[0], rows[2]
    assert (first.maxValue, first.maxValueTokenIndex, first.minValue) == (6.0, 1, 0.0)
    assert (first.binMin, first.binContains, first.dataSource, first.dataIndex) == (-1, -1, "a.txt", "33")
    assert (weak.binMin, weak.binMax, weak.binContains) == (1.0, 3.0, 0.02)
    assert weak.tokens == ["∅", "␀", "\u202eevil"], "no NUL for PostgreSQL, and no empty token"


def test_the_lines_about_a_source_name_each_other() -> None:
    rows: dict[str, Any] = {name: json.loads(row_json(row)) for name, row in about_rows(AT, PROMPTS, "words").items()}
    assert list(rows) == ["release", "model", "sourceset", "source"]
    assert rows["source"]["modelId"] == rows["sourceset"]["modelId"] == rows["model"]["id"] == "gpt2-small"
    assert rows["source"]["setName"] == rows["sourceset"]["name"] == "res-1k"
    assert rows["sourceset"]["releaseName"] == rows["release"]["name"]
    assert (rows["source"]["id"], rows["source"]["num_prompts"]) == ("3-res-1k", 50)


@pytest.mark.parametrize("name", ["Res", "res 1", "a__b", "", "../up", "a/b"])
def test_names_that_the_server_would_change_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="Neuronpedia's names"):
        Address(model="gpt2-small", layer=0, source_set=name, created="")
    assert Address(model=slug(name), layer=0, source_set=slug(name), created="")


def test_an_upload_reads_back_and_its_strongest_examples_have_no_interval() -> None:
    batch = UploadBatch(modelId=AT.model, source=AT.source, features=[upload(full_record(), "cats")])
    assert parse_row(UploadBatch, row_json(batch)) == batch
    strongest, *drawn = batch.features[0].activations
    assert strongest.quantileMin is strongest.quantileMax is strongest.quantileFraction is None
    assert (drawn[0].quantileMin, drawn[0].quantileMax, drawn[0].quantileFraction) == (3.0, 6.0, 0.02)
    assert [logit.token for logit in batch.features[0].topLogits] == [" cat", "␀"]


def test_a_latent_without_examples_is_not_uploaded() -> None:
    assert upload_feature(dashboard(dead_record())) is None


def test_what_is_too_much_for_an_upload_is_cut() -> None:
    n = 3000
    peak = Example([9] * n, [float(i == 2000) for i in range(n)], 2000, "long.txt")
    many = [TokenWeight(5, float(-i)) for i in range(33)]
    record = replace(full_record(), examples=[peak], groups=[], promoted=many, suppressed=many)
    feature = upload(record, "x" * 513, "y" * 512)
    assert [len(explanation.text) for explanation in feature.explanations] == [512, 512]
    assert feature.explanations[0].text.endswith("…")
    assert len(feature.topLogits) == len(feature.bottomLogits) == 20
    (activation,) = feature.activations
    assert len(activation.tokens) == len(activation.values) == 1024
    assert max(activation.values) == 1.0, "the peak is in what is left"


def test_an_upload_over_the_limits_is_refused() -> None:
    features = [replace(upload(full_record()), index=i) for i in range(129)]
    assert UploadBatch(modelId="m", source="0-s", features=features[:128])
    for wrong in (features, [], [features[0], features[0]]):
        with pytest.raises(ValueError):
            UploadBatch(modelId="m", source="0-s", features=wrong)
    for tokens, values in ((["a"], [1.0, 2.0]), (["a"] * 1025, [0.0] * 1025), ([""], [1.0]), ([], [])):
        with pytest.raises(ValueError):
            UploadActivation(tokens=tokens, values=values)
