import pytest
import torch

from unweave.activations.harvest import harvest, rows_of
from unweave.errors import UserError
from unweave.models.language_model import LanguageModel
from unweave.types import TextPosition, TokenBatch

SITES = ["layers.0.mlp_out", "layers.1.resid_post"]


def _batch(n_sequences: int = 7, length: int = 9) -> TokenBatch:
    token_ids = torch.randint(1, 250, (n_sequences, length))
    owners = torch.arange(n_sequences * length).view(n_sequences, length) // 5
    is_content = torch.rand(n_sequences, length) > 0.2
    is_content[:, 0] = False
    return TokenBatch(token_ids, owners, is_content)


def test_rows_say_where_each_of_them_comes_from() -> None:
    batch = _batch()
    x = torch.randn(7, 9, 4)
    rows = rows_of(batch, {"here": x, "there": 2 * x})
    assert len(rows) == int(batch.is_content.sum())
    for i in range(len(rows)):
        at = (rows.sequences[i], rows.positions[i])
        assert batch.is_content[at]
        assert rows.token_ids[i] == batch.token_ids[at]
        assert rows.document_ids[i] == batch.document_ids[at]
        assert torch.equal(rows.activations["here"][i], x[at])
        assert torch.equal(rows.activations["there"][i], 2 * x[at])


def test_rows_keep_the_order_of_the_text_and_miss_no_content() -> None:
    batch = _batch()
    rows = rows_of(batch, {"here": torch.randn(7, 9, 4)})
    places = (rows.sequences * 9 + rows.positions).tolist()
    assert places == [i for i, content in enumerate(batch.is_content.flatten().tolist()) if content]


def test_a_batch_of_special_tokens_alone_has_no_rows() -> None:
    batch = _batch()._replace(is_content=torch.zeros(7, 9, dtype=torch.bool))
    rows = rows_of(batch, {"here": torch.randn(7, 9, 4)})
    assert len(rows) == 0
    assert rows.activations["here"].shape == (0, 4)


def test_harvesting_reads_what_the_model_computes_in_one_pass_per_batch(lm: LanguageModel) -> None:
    batches = [_batch(), _batch(2), _batch(1, 3)]
    passes = []
    lm.sites.names()  # which takes a pass to find them
    with lm.model.get_input_embeddings().register_forward_hook(lambda *_: passes.append(1)):
        harvested = list(harvest(lm, batches, SITES))
    assert len(passes) == 3
    for batch, rows in zip(batches, harvested, strict=True):
        captured = lm.capture(batch.token_ids, SITES)
        assert list(rows.activations) == SITES
        for site in SITES:
            assert torch.equal(rows.activations[site], captured[site][batch.is_content])


@pytest.mark.parametrize("point", ["scores", "pattern"])
def test_what_has_no_row_for_each_token_is_not_harvested(gpt2: LanguageModel, point: str) -> None:
    with pytest.raises(
        UserError, match=rf"layers\.0\.attn\.{point} has numbers for pairs of tokens and no row for each"
    ):
        list(harvest(gpt2, [_batch()], [f"layers.0.attn.{point}"]))


def test_the_model_runs_only_as_far_as_rows_are_taken(gpt2: LanguageModel) -> None:
    passes = []
    with gpt2.model.get_input_embeddings().register_forward_hook(lambda *_: passes.append(1)):
        source = harvest(gpt2, (_batch() for _ in range(100)), SITES)
        next(source)
    assert len(passes) == 1


def test_rows_many_times_the_median_norm_are_left_out_of_all_sites() -> None:
    batch = _batch()
    kept = batch.is_content.flatten()
    here, there = torch.ones(63, 4), torch.ones(63, 7)
    massive = kept.nonzero().flatten()[[3, 10]]
    here[massive[0]] *= 6.4
    there[massive[1]] *= 100
    here[~kept] = 1e6  # what is no content does not count for the median either
    captured = {"here": here.view(7, 9, 4), "there": there.view(7, 9, 7)}
    rows = rows_of(batch, captured, max_norm=6.3)
    assert len(rows) == kept.sum() - 2
    assert all((x == 1).all() for x in rows.activations.values())
    assert not set(massive.tolist()) & set((rows.sequences * 9 + rows.positions).tolist())
    assert len(rows_of(batch, captured, max_norm=6.5)) == kept.sum() - 1
    assert len(rows_of(batch, captured)) == kept.sum()


def test_a_limit_on_norms_is_no_matter_where_there_are_no_rows() -> None:
    batch = _batch()._replace(is_content=torch.zeros(7, 9, dtype=torch.bool))
    assert len(rows_of(batch, {"here": torch.randn(7, 9, 4)}, max_norm=7.0)) == 0


def test_rows_say_where_reading_goes_on(gpt2: LanguageModel) -> None:
    batches = [_batch()._replace(after=TextPosition(7, 63)), _batch()._replace(after=TextPosition(100))]
    assert [rows.after for rows in harvest(gpt2, batches, SITES)] == [TextPosition(7, 63), TextPosition(100, 0)]
