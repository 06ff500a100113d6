"""What is said of fires against plain loops over the same numbers."""

import numpy as np
import pytest

from unweave.analysis.fire_scans import drawn_by_rank, partners, strongest
from unweave.analysis.fires import N_BINS, QUANTILES, Fires, activity

CONTEXT = 7
N_SEQUENCES = 63


@pytest.fixture(scope="module")
def grid() -> np.ndarray:
    """Activations [places, latents], with a latent that never fires, a dense one and a signed one."""
    random = np.random.default_rng(7)
    values = random.normal(size=(CONTEXT * N_SEQUENCES, 5)).astype(np.float32)
    values[:, 1] = 0
    values[:, 2] = np.abs(values[:, 2]) + 0.1
    for latent, threshold in ((0, 1.5), (4, 0.4)):
        values[:, latent] = np.where(values[:, latent] > threshold, values[:, latent], 0)
    values[:, 3] = np.where(np.abs(values[:, 3]) > 1, values[:, 3], 0)
    return values


@pytest.fixture(scope="module")
def fires(grid: np.ndarray) -> Fires:
    latents, places = np.nonzero(grid.T)
    offsets = np.searchsorted(latents, np.arange(grid.shape[1] + 1))
    return Fires(0, offsets, places, grid.T[latents, places])


def test_mean_quantiles_and_histogram_are_those_of_each_latents_fires(grid: np.ndarray, fires: Fires) -> None:
    found = activity(fires)
    for latent in range(grid.shape[1]):
        own = np.sort(grid[:, latent][grid[:, latent] != 0])
        if not len(own):
            assert found.mean[latent] == 0 and not found.histogram[latent].any() and not found.quantiles[latent].any()
            continue
        assert found.mean[latent] == pytest.approx(own.mean(dtype=np.float64))
        for share, value in zip(QUANTILES, found.quantiles[latent], strict=True):
            assert (own <= value).mean() >= share and value in own
            below = own[own < value]
            assert len(below) == 0 or (own <= below[-1]).mean() < share or share == 0
        low, high = min(own[0], 0.0), max(own[-1], 0.0)
        expected, _ = np.histogram(own.astype(np.float64), bins=N_BINS, range=(low, high))
        assert np.abs(np.cumsum(found.histogram[latent] - expected)).max() <= 1  # a value at the edge of two bins
        assert found.histogram[latent].sum() == len(own)


def test_the_strongest_examples_are_each_of_another_document_while_there_are_so_many(
    grid: np.ndarray, fires: Fires
) -> None:
    documents = np.repeat(np.arange(9), CONTEXT * N_SEQUENCES // 9)
    chosen = strongest(fires.falling, fires.places, fires.offsets, documents, CONTEXT, 4)
    for latent in range(grid.shape[1]):
        best: dict[int, int] = {}
        for place in np.argsort(-grid[:, latent], kind="stable"):
            if grid[place, latent] != 0:
                best.setdefault(int(documents[place]), int(place))
        expected = list(best.values())[:4]
        assert chosen[latent].tolist() == expected + [-1] * (4 - len(expected))


def test_one_document_gives_examples_of_several_sequences(fires: Fires) -> None:
    one = np.zeros(CONTEXT * N_SEQUENCES, dtype=np.int64)
    chosen = strongest(fires.falling, fires.places, fires.offsets, one, CONTEXT, 20)[2]
    assert (chosen >= 0).all() and len({place // CONTEXT for place in chosen.tolist()}) == 20
    values = fires.values[fires.offsets[2] : fires.offsets[3]]  # the dense latent fires at every place
    assert (np.diff(values[chosen]) <= 0).all() and values[chosen[0]] == values.max()


def test_drawn_examples_come_from_their_share_and_do_not_depend_on_how_latents_are_cut(fires: Fires) -> None:
    whole = drawn_by_rank(fires.falling, fires.places, fires.offsets, 0, 3, 5, 7)
    start = fires.offsets[3]
    rest = Fires(3, fires.offsets[3:] - start, fires.places[start:], fires.values[start:])
    alone = drawn_by_rank(rest.falling, rest.places, rest.offsets, 3, 3, 5, 7)
    np.testing.assert_array_equal(whole[3:], alone)
    own = np.sort(fires.values[fires.offsets[4] :])[::-1]
    by_place = dict(zip(fires.places[fires.offsets[4] :], fires.values[fires.offsets[4] :], strict=True))
    for group in range(3):
        share = own[group * len(own) // 3 : (group + 1) * len(own) // 3]
        drawn = [by_place[place] for place in whole[4, group]]
        assert len(set(drawn)) == 5 and set(drawn) <= set(share) and drawn == sorted(drawn, reverse=True)
    assert not np.array_equal(whole, drawn_by_rank(fires.falling, fires.places, fires.offsets, 0, 3, 5, 8))


def test_partners_are_the_latents_with_the_largest_jaccard_index(grid: np.ndarray, fires: Fires) -> None:
    places, latents = np.nonzero(grid)
    offsets = np.searchsorted(places, np.arange(len(grid) + 1))
    counts = (grid != 0).sum(0)
    ids, both = partners(fires.places, fires.offsets, 0, offsets, latents, counts, 3, 5)
    active = grid != 0
    for latent in range(grid.shape[1]):
        shared = {o: int((active[:, latent] & active[:, o]).sum()) for o in range(grid.shape[1]) if o != latent}
        jaccard = {o: n / (counts[latent] + counts[o] - n) for o, n in shared.items() if n >= 5}
        expected = sorted(jaccard, key=lambda o: -jaccard[o])[:3]
        assert ids[latent][ids[latent] >= 0].tolist() == expected
        assert both[latent][: len(expected)].tolist() == [shared[o] for o in expected]
