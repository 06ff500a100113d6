"""Records against a plain dense account of the same codes, kept with loops."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from unweave.activations.harvest import rows_of
from unweave.analysis.latent_records import Example, LatentRecord, LatentRecorder
from unweave.kernels.selection import Above, select
from unweave.types import Codes, Rows, TokenBatch

N_LATENTS = 63


class Seen(NamedTuple):
    """One token batch with the activation of every latent at every place, 0 at special tokens."""

    batch: TokenBatch
    rows: Rows
    codes: Codes
    grid: np.ndarray


def _seen(n_sequences: int, length: int, share: float = 0.06, content: float = 0.8, first_document: int = 0) -> Seen:
    token_ids = torch.randint(1, 250, (n_sequences, length))
    owners = first_document + torch.arange(n_sequences * length).view(n_sequences, length) // 5
    is_content = torch.rand(n_sequences, length) < content
    is_content[0, 0] = True
    batch = TokenBatch(token_ids, owners, is_content)
    pre = torch.rand(n_sequences, length, N_LATENTS) + 0.1
    pre[torch.rand(pre.shape) > share] = -1.0
    pre[..., 7] = -1.0  # a latent that never fires
    rows = rows_of(batch, {"here": pre})
    codes = select(rows.activations["here"], Above(0.0))
    grid = np.where(is_content[..., None].numpy(), pre.clamp(min=0).numpy(), 0.0)
    return Seen(batch, rows, codes, grid)


def _several() -> list[Seen]:
    return [
        _seen(9, 20),
        _seen(4, 20, first_document=36),
        _seen(1, 20, first_document=52),
        _seen(9, 11, first_document=56),
    ]


def _names() -> list[str]:
    return [f"document {i}" for i in range(100)]


def _recorded(seen: list[Seen], n_examples: int, reach: int) -> list[LatentRecord]:
    recorder = LatentRecorder(N_LATENTS, n_examples=n_examples, reach=reach)
    for batch, rows, codes, _ in seen:
        recorder.update(batch, rows, codes)
    return recorder.records(_names(), None, None)


def _examples_by_hand(seen: list[Seen], latent: int, n_examples: int, reach: int) -> list[Example]:
    """The strongest place of each sequence, the strongest sequences first, with what lies around it."""
    found = []
    for batch, _, _, grid in seen:
        for sequence in range(grid.shape[0]):
            line = grid[sequence, :, latent]
            peak = int(line.argmax())
            if line[peak] <= 0:
                continue
            start, end = max(0, peak - reach), min(len(line), peak + reach + 1)
            example = Example(
                token_ids=[int(token) for token in batch.token_ids[sequence, start:end]],
                activations=[round(float(value), 4) for value in line[start:end]],
                peak=peak - start,
                document=f"document {int(batch.document_ids[sequence, peak])}",
            )
            found.append((float(line[peak]), example))
    return [example for _, example in sorted(found, key=lambda pair: -pair[0])[:n_examples]]


@pytest.mark.parametrize(("n_examples", "reach"), [(1, 0), (3, 2), (8, 12), (100, 30)])
def test_examples_are_those_of_a_plain_dense_account(n_examples: int, reach: int) -> None:
    seen = _several()
    records = _recorded(seen, n_examples, reach)
    assert [record.latent for record in records] == list(range(N_LATENTS))
    for record in records:
        by_hand = _examples_by_hand(seen, record.latent, n_examples, reach)
        assert len(record.examples) == len(by_hand)
        for ours, plain in zip(record.examples, by_hand, strict=True):
            assert ours.token_ids == plain.token_ids
            assert ours.activations == pytest.approx(plain.activations, abs=1e-4)
            assert (ours.peak, ours.document) == (plain.peak, plain.document)


def test_counts_and_means_are_those_of_a_plain_dense_account() -> None:
    seen = _several()
    active = np.concatenate([grid[batch.is_content.numpy()] for batch, _, _, grid in seen])
    for record in _recorded(seen, 8, 12):
        column = active[:, record.latent]
        n_fires = int((column > 0).sum())
        assert record.n_fires == n_fires
        assert record.density == n_fires / len(active)
        assert record.max_activation == pytest.approx(float(column.max()), rel=1e-6)
        assert record.mean_activation == pytest.approx(float(column.sum()) / max(1, n_fires), rel=1e-6)


def test_a_latent_that_never_fires_has_an_empty_record() -> None:
    record = _recorded(_several(), 8, 12)[7]
    assert record == LatentRecord(7, 0.0, 0, 0.0, 0.0, [], [], [])


def test_special_tokens_within_a_window_have_no_activation() -> None:
    """A latent fires on every content token of a sequence whose even places are special."""
    token_ids = torch.arange(100, 109)[None]
    is_content = torch.tensor([[False, True] * 4 + [False]])
    batch = TokenBatch(token_ids, torch.zeros(1, 9, dtype=torch.int64), is_content)
    rows = rows_of(batch, {"here": torch.tensor([[[0.1 * (i + 1)] for i in range(9)]])})
    recorder = LatentRecorder(1, n_examples=2, reach=3)
    recorder.update(batch, rows, select(rows.activations["here"], Above(0.0)))
    (record,) = recorder.records(["it"], None, None)
    (example,) = record.examples
    assert example.token_ids == [104, 105, 106, 107, 108]
    assert example.activations == [0.0, 0.6, 0.0, 0.8, 0.0]
    assert example.peak == 3
    assert record.density == 1.0


def test_the_order_of_the_batches_does_not_matter() -> None:
    seen = _several()
    assert _recorded(seen, 8, 3) == _recorded(seen[::-1], 8, 3)


def test_a_batch_in_which_nothing_fires_only_adds_rows() -> None:
    seen = _several()
    silent = _seen(3, 20, share=0.0)
    assert len(silent.codes.values) == 0
    with_silence, without = _recorded([silent, *seen, silent], 8, 3), _recorded(seen, 8, 3)
    assert [record.examples for record in with_silence] == [record.examples for record in without]
    assert [record.n_fires for record in with_silence] == [record.n_fires for record in without]
    assert sum(record.density for record in with_silence) < sum(record.density for record in without)


def test_a_batch_without_any_row_is_passed_over() -> None:
    seen = _several()
    batch = TokenBatch(*(part.clone() for part in seen[0].batch[:3]))
    batch.is_content[:] = False
    empty = rows_of(batch, {"here": torch.zeros(9, 20, N_LATENTS)})
    nothing = select(empty.activations["here"], Above(0.0))
    blank = Seen(batch, empty, nothing, np.zeros((9, 20, N_LATENTS)))
    assert _recorded([blank, *seen], 8, 3) == _recorded(seen, 8, 3)


def test_each_sequence_gives_a_latent_one_example_at_most() -> None:
    seen = [_seen(3, 63, share=0.9)]
    assert {len(record.examples) for record in _recorded(seen, 8, 2)} == {0, 3}


def test_promoted_and_suppressed_tokens_stand_in_the_record_of_their_latent() -> None:
    recorder = LatentRecorder(2)
    promoted = (torch.tensor([[5, 6], [7, 8]]), torch.tensor([[2.0, 1.00006], [3.0, 0.5]]))
    suppressed: tuple[Tensor, Tensor] = (torch.tensor([[1, 3], [2, 4]]), torch.tensor([[-4.0, -3.0], [-5.0, -1.0]]))
    records = recorder.records([], promoted, suppressed)
    assert [(token.token_id, token.weight) for token in records[0].promoted] == [(5, 2.0), (6, 1.0001)]
    assert [(token.token_id, token.weight) for token in records[1].suppressed] == [(2, -5.0), (4, -1.0)]
    assert records[1].examples == []
