from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Port, SparseCoder, Wiring
from unweave.coders.archetypal import Archetypal, ArchetypalConfig, centroids
from unweave.coders.folding import Scaling, fold_scaling
from unweave.errors import UserError

from .conftest import At, Check, Make, Selection

N_LATENTS = 63


def _within_bounds(coder: SparseCoder, p: dict[str, Tensor]) -> Tensor:
    """The decoder of weights put back within bounds; its gradient is that at the point where they end."""
    mixing = p["mixing"].detach().clamp(min=0)
    mixing = mixing / mixing.sum(1, keepdim=True)
    relaxation = p["relaxation"].detach()
    norms = relaxation.norm(dim=1, keepdim=True)
    relaxation = torch.where(norms > coder.config.delta, relaxation * coder.config.delta / norms, relaxation)
    mixing = mixing + p["mixing"] - p["mixing"].detach()
    relaxation = relaxation + p["relaxation"] - p["relaxation"].detach()
    return p["log_scale"].exp() * (mixing @ coder.candidates + relaxation)


@pytest.mark.parametrize("k", [1, 5, N_LATENTS])
@pytest.mark.parametrize("centre", [True, False])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree_with_aux: Check, top_k: Selection, centre: bool, k: int
) -> None:
    coder = make_coder("archetypal", k=k, k_aux=4, centre=centre, n_candidates=20, delta=0.3)
    assert (coder.relaxation.norm(dim=1) > 0.3).any() and (coder.relaxation.norm(dim=1) < 0.3).any()
    assert (coder.mixing < 0).any()
    agree_with_aux(coder, lambda pre: [top_k(pre, k)], centre=centre, decoder=lambda p: _within_bounds(coder, p))


def test_what_is_written_may_be_something_else_than_what_is_read(
    make_coder: Make, agree_with_aux: Check, top_k: Selection
) -> None:
    coder = make_coder("archetypal", Wiring.transcoder(Port("in", 7), Port("out", 5), skip=True), k=7, k_aux=4)
    y = torch.randn(100, 5, dtype=torch.float64)
    agree_with_aux(coder, lambda pre: [top_k(pre, 7)], y, centre=False, decoder=lambda p: _within_bounds(coder, p))


def _train(coder: SparseCoder, x: Tensor, at: At, steps: int = 20) -> None:
    optimizer = torch.optim.Adam(coder.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        coder.loss(x, x, at()).losses["mse"].backward()
        optimizer.step()


@pytest.mark.parametrize("delta", [0.0, 0.2])
def test_after_training_decoder_rows_lie_near_the_hull_of_the_candidates(x: Tensor, at: At, delta: float) -> None:
    coder = Archetypal(ArchetypalConfig(n_latents=63, k=5, n_candidates=20, delta=delta), Wiring.sae(7)).double()
    coder.start_from(x, x)
    _train(coder, x, at)
    coder.compose()
    mixing, scale, candidates = coder.mixing.detach(), coder.log_scale.exp().item(), coder.candidates
    assert (mixing >= 0).all()
    torch.testing.assert_close(mixing.sum(1), torch.ones(63, dtype=torch.float64))
    assert scale != 1.0
    coder.settle()
    away = (coder.W_dec.detach() / scale - mixing @ candidates).norm(dim=1)
    assert away.max() <= delta + 1e-9
    assert delta == 0 or away.max() > 0.5 * delta


def test_latents_start_at_one_candidate_each_and_read_along_it(x: Tensor) -> None:
    coder = Archetypal(ArchetypalConfig(n_latents=63, k=5, n_candidates=20), Wiring.sae(7)).double()
    coder.start_from(x, x)
    points = centroids(x - x.mean(0), 20, 10)
    torch.testing.assert_close(coder.W_dec.detach(), points[torch.arange(63) % 20], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(coder.W_enc.detach(), torch.nn.functional.normalize(coder.W_dec.detach(), dim=1))


def test_a_coder_starts_the_same_whatever_the_seed(x: Tensor) -> None:
    starts = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        coder = Archetypal(ArchetypalConfig(n_latents=63, k=5), Wiring.sae(7)).double()
        coder.start_from(x, x)
        starts.append(coder.W_dec.detach())
    assert torch.equal(*starts)


def test_settling_leaves_an_ordinary_decoder_that_writes_the_same(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("archetypal", k=5)
    written = coder.loss(x, x, at()).reconstruction
    coder.settle()
    assert [name for name, _ in coder.named_parameters()] == ["W_enc", "b_enc", "W_dec", "b_dec"]
    assert set(coder.state_dict()) == {"W_enc", "b_enc", "W_dec", "b_dec"}
    assert coder.W_dec.requires_grad
    torch.testing.assert_close(coder(x), written, rtol=1e-12, atol=1e-12)
    coder.settle()
    torch.testing.assert_close(coder(x), written, rtol=1e-12, atol=1e-12)


def test_settling_counts_the_last_step_of_the_optimizer(x: Tensor, at: At) -> None:
    coder = Archetypal(ArchetypalConfig(n_latents=63, k=5), Wiring.sae(7)).double()
    coder.start_from(x, x)
    _train(coder, x, at, steps=3)
    written = coder.loss(x, x, at()).reconstruction
    stale = Archetypal(coder.config, coder.wiring).double()
    stale.load_state_dict(coder.state_dict())
    with torch.no_grad():
        stale.W_dec.zero_()
    stale.settle()
    torch.testing.assert_close(stale(x), written, rtol=1e-12, atol=1e-12)


def test_folding_settles(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("archetypal", k=5)
    expected = coder.loss(x, x, at()).reconstruction / 0.4
    fold_scaling(coder, [Scaling(factor=0.4)], [Scaling(factor=0.4)])
    assert coder.candidates is None
    torch.testing.assert_close(coder(x / 0.4), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settled", [True, False])
def test_a_state_loads_into_a_new_coder_in_training_or_not(make_coder: Make, at: At, x: Tensor, settled: bool) -> None:
    coder = make_coder("archetypal", k=5, n_candidates=20)
    loss = coder.loss(x, x, at()).losses["mse"].item()
    if settled:
        coder.settle()
    for other in (Archetypal(coder.config, coder.wiring).double(), make_coder("archetypal", k=5, n_candidates=20)):
        other.load_state_dict(coder.state_dict())
        torch.testing.assert_close(other(x), coder(x), rtol=0, atol=0)
        assert (other.candidates is None) == settled
        assert other.W_dec.requires_grad == settled
        if not settled:
            assert other.loss(x, x, at()).losses["mse"].item() == pytest.approx(loss, rel=1e-12)


def test_training_before_the_candidates_are_known_is_a_mistake(at: At, x: Tensor) -> None:
    with pytest.raises(AssertionError, match="start_from"):
        Archetypal(ArchetypalConfig(n_latents=63, k=5), Wiring.sae(7)).double().loss(x, x, at())


def test_k_means_by_hand() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.0, 2.0], [10.0, 0.0], [10.0, 4.0], [12.0, 2.0]])
    # from the first and the last row, each of which is nearest to its own side from the start
    points = centroids(rows, 2, 10)
    torch.testing.assert_close(points, torch.tensor([[0.0, 1.0], [32 / 3, 2.0]]))
    assert torch.equal(centroids(rows, 2, 0), rows[[0, 4]])
    assert torch.equal(centroids(rows, 5, 10), rows)


def test_a_round_of_k_means_never_makes_the_distances_longer(x: Tensor) -> None:
    lengths = [torch.cdist(x, centroids(x, 20, n)).min(1).values.square().sum() for n in range(12)]
    assert all(after <= before + 1e-12 for before, after in pairwise(lengths))
    assert lengths[-1] < lengths[0]


def test_a_centroid_that_is_nearest_to_no_row_stays() -> None:
    points = centroids(torch.zeros(4, 2), 3, 5)
    assert torch.equal(points, torch.zeros(3, 2))


def test_a_sample_with_fewer_rows_than_candidates_gives_as_many_as_it_has(x: Tensor, at: At) -> None:
    coder = Archetypal(ArchetypalConfig(n_latents=63, k=5, n_candidates=500), Wiring.sae(7)).double()
    coder.start_from(x, x)
    assert coder.candidates.shape == (100, 7)
    assert coder.loss(x, x, at()).losses["mse"].isfinite()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("k", 0),
        ("k", 64),
        ("n_candidates", 0),
        ("delta", -0.1),
        ("iterations", -1),
        ("decoder_norm", "unit"),
        ("decoder_init_norm", 0.5),
        ("active_subspace", 3),
    ],
)
def test_a_setting_out_of_range_or_without_effect_is_named(setting: str, value: Any) -> None:
    with pytest.raises(UserError, match=setting):
        ArchetypalConfig(**{"n_latents": N_LATENTS, "k": 5} | {setting: value})
