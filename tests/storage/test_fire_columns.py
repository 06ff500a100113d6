"""Fires on disk against the numbers that went in: blocks in any order, merged latent by latent, read one at a time."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from unweave.activations.harvest import rows_of
from unweave.errors import UserError
from unweave.kernels.selection import Above, select
from unweave.storage import fire_blocks
from unweave.storage.fire_blocks import FireBlocks
from unweave.storage.fire_columns import ColumnsWriter, FireColumns
from unweave.types import Codes, TokenBatch

N_LATENTS, CONTEXT = 63, 7


def _batch(number: int, n_sequences: int = 3) -> tuple[TokenBatch, torch.Tensor, Codes, np.ndarray]:
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(1, 250, (n_sequences, CONTEXT), generator=generator)
    is_content = torch.rand(n_sequences, CONTEXT, generator=generator) < 0.8
    pre = torch.rand(n_sequences, CONTEXT, N_LATENTS, generator=generator) - 0.9
    pre[..., 7] = -1.0  # never fires
    pre[..., 8] = 3.0 + number  # always fires
    batch = TokenBatch(tokens, torch.full_like(tokens, number), is_content)
    rows = rows_of(batch, {"here": pre})
    grid = np.where(is_content[..., None].numpy(), pre.clamp(min=0).numpy(), 0.0)
    places = rows.sequences * CONTEXT + rows.positions
    return batch, places, select(rows.activations["here"], Above(0.0)), grid.reshape(-1, N_LATENTS)


def _write(blocks: FireBlocks, numbers: range) -> None:
    for number in numbers:
        if not blocks.has(number):
            blocks.update(number, *_batch(number)[:3])


def test_merged_fires_are_those_of_every_batch_whoever_wrote_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fire_blocks, "_AT_ONCE", 100)
    second, first = FireBlocks(tmp_path, N_LATENTS, 2), FireBlocks(tmp_path, N_LATENTS, 2)
    _write(second, range(4, 5))
    second.end(5)
    _write(first, range(4))
    grid = np.concatenate([_batch(number)[3] for number in range(5)])
    parts = list(first.fires(first.counts()))
    assert [part.first for part in parts] == np.cumsum([0] + [len(part) for part in parts])[:-1].tolist()
    assert len(parts) > 3 and sum(len(part) for part in parts) == N_LATENTS
    for part in parts:
        for i, (start, end) in enumerate(itertools.pairwise(part.offsets)):
            expected = np.flatnonzero(grid[:, part.first + i])
            np.testing.assert_array_equal(part.places[start:end], expected)
            np.testing.assert_array_equal(part.values[start:end], grid[expected, part.first + i].astype(np.float32))
    text = first.text()
    assert text.token_ids.shape == (15, CONTEXT) and text.document_ids[:, 0].tolist() == sorted([0, 1, 2, 3, 4] * 3)
    np.testing.assert_array_equal(text.is_row.reshape(-1), grid[:, 8] != 0)
    found = first.by_place()
    for place in range(len(grid)):
        own = sorted(found.latents[found.offsets[place] : found.offsets[place + 1]].tolist())
        assert own == np.flatnonzero(grid[place]).tolist()
    assert found.counts.tolist() == (grid != 0).sum(0).tolist() and found.n_rows == text.n_rows


def test_of_a_text_with_too_many_fires_every_nth_block_tells_what_fires_together(tmp_path: Path) -> None:
    blocks = FireBlocks(tmp_path, N_LATENTS, 1)
    _write(blocks, range(5))
    grids = [_batch(number)[3] for number in range(5)]
    found = blocks.by_place(most=sum(int((grid != 0).sum()) for grid in grids) - 1)
    every_other = np.concatenate([grid * (number % 2 == 0) for number, grid in enumerate(grids)])
    for place in range(len(every_other)):
        own = sorted(found.latents[found.offsets[place] : found.offsets[place + 1]].tolist())
        assert own == np.flatnonzero(every_other[place]).tolist()
    assert found.counts.tolist() == (every_other != 0).sum(0).tolist()
    assert found.n_rows == (every_other[:, 8] != 0).sum()


def test_a_block_that_was_not_finished_is_read_again_from_its_first_batch(tmp_path: Path) -> None:
    cut_short = FireBlocks(tmp_path, N_LATENTS, 2)
    _write(cut_short, range(3))
    again = FireBlocks(tmp_path, N_LATENTS, 2)
    assert [again.has(number) for number in range(4)] == [True, True, False, False]
    _write(again, range(4))
    assert again.text().token_ids.shape == (12, CONTEXT)


def test_a_damaged_block_is_named(tmp_path: Path) -> None:
    blocks = FireBlocks(tmp_path, N_LATENTS, 1)
    _write(blocks, range(2))
    path = tmp_path / "block-000001.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"block-000001.*is damaged; remove it"):
        blocks.text()


@pytest.mark.parametrize("stretch", [2**16, 16])
def test_columns_give_back_places_exactly_and_values_to_a_65534th_of_the_largest(
    tmp_path: Path, stretch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unweave.storage.fire_columns._STRETCH", stretch)
    blocks = FireBlocks(tmp_path, N_LATENTS, 2)
    _write(blocks, range(4))
    writer = ColumnsWriter(tmp_path, blocks.counts(), blocks.text().token_ids.size)
    for fires in blocks.fires(blocks.counts()):
        writer.write(fires)
    writer.close()
    grid = np.concatenate([_batch(number)[3] for number in range(4)])
    columns = FireColumns(tmp_path)
    assert columns.n_latents == N_LATENTS and columns.counts().tolist() == (grid != 0).sum(0).tolist()
    for latent in range(N_LATENTS):
        places, values = columns[latent]
        expected = np.flatnonzero(grid[:, latent])
        np.testing.assert_array_equal(places, expected)
        assert np.abs(values - grid[expected, latent]).max(initial=0) <= grid[:, latent].max() * (
            1 / 65_534 + 2e-7
        )  # float32
        assert (values != 0).all()


def test_weak_and_negative_fires_keep_their_sign(tmp_path: Path) -> None:
    from unweave.analysis.fires import Fires

    values = np.array([-5.0, 1e-6, 3.0, -1e-6], dtype=np.float32)
    writer = ColumnsWriter(tmp_path, np.array([4, 0]), 10)
    writer.write(Fires(0, np.array([0, 4, 4]), np.array([0, 3, 4, 9]), values))
    writer.close()
    places, found = FireColumns(tmp_path)[0]
    assert places.tolist() == [0, 3, 4, 9] and np.sign(found).tolist() == [-1, 1, 1, -1]
    assert len(FireColumns(tmp_path)[1][0]) == 0
