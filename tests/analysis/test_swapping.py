"""The path from a small coder to a large one: its ends, its groups, and mixtures against dense ones."""

import pytest
import torch
import torch.nn.functional as F

from unweave.analysis.swapping import DEFINITIONS, Groups, SwapPath, SwappedRows, swap_groups, swap_steps
from unweave.coders import Port, SparseCoder, Wiring, architecture
from unweave.errors import UserError
from unweave.metrics import blocks_of

WIRING = Wiring.sae(12, "layers.1.resid_post")


def _coder(n_latents: int, wiring: Wiring = WIRING) -> SparseCoder:
    cls = architecture("relu")
    coder = cls(cls.Config(n_latents=n_latents), wiring)
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return coder


def test_groups_are_the_connected_components() -> None:
    """In the plane, small at 0 and 90 degrees, large at 10, 20, 180 and 270: 0 has two, 90 none, two are novel."""

    def at(*degrees: float) -> torch.Tensor:
        angles = torch.tensor(degrees).deg2rad()
        return torch.stack([angles.cos(), angles.sin()], 1)

    groups = swap_groups(at(0, 90), 3 * at(10, 20, 180, 270), 0.9)
    assert groups.small[0] == groups.large[0] == groups.large[1]
    assert groups.n == 4
    kinds = {name: len(ids) for name, ids in groups.kinds().items()}
    assert kinds == {"novel": 2, "common": 1, "dropped": 1}
    chain = swap_groups(at(0, 40), at(20, 90), 0.9)
    assert chain.small.tolist() == [int(chain.large[0])] * 2, "joined through the one between them"


def test_novel_groups_come_first_and_dropped_ones_leave_last() -> None:
    groups = Groups(torch.tensor([0, 1, 2]), torch.tensor([0, 3, 4, 5]))
    steps = swap_steps(groups, 6, torch.tensor([0.0, -1.0, -3.0, -2.0]))
    assert steps.enter.tolist() == [4, 3, 1, 2]
    assert steps.leave.tolist() == [4, 5, 6]
    coarse = swap_steps(groups, 2)
    assert coarse.enter.tolist() == [2, 1, 1, 1] and coarse.leave.tolist() == [2, 2, 2]
    assert swap_steps(groups, 100).leave.max() <= 100


@pytest.mark.parametrize("row_norm", ["none", "sqrt_width"])
def test_each_mixture_is_that_of_dense_decoders(row_norm: str) -> None:
    wiring = Wiring(WIRING.reads, WIRING.writes, row_norm=row_norm)
    small, large = _coder(9, wiring), _coder(17, wiring)
    steps = swap_steps(swap_groups(small.W_dec, large.W_dec, 0.3), 5)
    path = SwapPath(small, large, steps)
    x = torch.randn(100, 12) + 0.5
    y = x + 0.1
    for part in (slice(0, 63), slice(63, 100)):
        path.update(SwappedRows(x[part], y[part], blocks_of(torch.arange(100)[part])))
    codes = [coder.encode(x).dense() for coder in (small, large)]
    curve = path.curve()
    for step in range(6):
        stay, come = codes[0] * (steps.leave > step), codes[1] * (steps.enter <= step)
        bias = small.b_dec + step / 5 * (large.b_dec - small.b_dec)
        written = wiring.denormalised(stay @ small.W_dec + come @ large.W_dec + bias, x)
        assert curve.mse[step].item() == pytest.approx((y - written).square().sum(1).mean().item(), rel=1e-4)
        n_active = ((stay != 0).sum() + (come != 0).sum()).item() / 100
        assert curve.l0[step].item() == pytest.approx(n_active)
    for end, coder in ((0, small), (5, large)):
        assert curve.mse[end].item() == pytest.approx((y - coder(x)).square().sum(1).mean().item(), rel=1e-4)
    figures = path.compute()
    assert set(figures) == {definition.name for definition in DEFINITIONS}
    assert figures["swap_gain"] == pytest.approx(1 - (curve.mse[5] / curve.mse[0]).item())
    assert figures["swap_rise"] == pytest.approx((curve.mse.diff().clamp(min=0).sum() / curve.mse[0]).item())
    assert figures["swap_peak_l0"] == pytest.approx((curve.l0.max() / curve.l0[5]).item())


def test_a_large_coder_that_has_all_of_the_small_one_lowers_the_error_at_every_step() -> None:
    basis = torch.linalg.qr(torch.randn(12, 12)).Q
    small, large = _coder(7), _coder(12)
    for coder in (small, large):
        with torch.no_grad():
            assert isinstance(coder.W_enc, torch.Tensor) and isinstance(coder.b_enc, torch.Tensor)
            coder.W_enc.copy_(basis[: coder.n_latents])
            coder.W_dec.copy_(basis[: coder.n_latents])
            coder.b_enc.zero_()
            coder.b_dec.zero_()
    x = F.relu(torch.randn(200, 12)) @ basis
    path = SwapPath(small, large, swap_steps(swap_groups(small.W_dec, large.W_dec), 12))
    path.update(SwappedRows(x, x, blocks_of(torch.arange(200))))
    assert path.compute()["swap_rise"] == pytest.approx(0.0, abs=1e-9)
    assert path.compute()["swap_gain"] == pytest.approx(1.0, abs=1e-6)
    assert (path.curve().mse.diff() < 1e-6).all()


def test_what_is_no_path_is_refused() -> None:
    small, large = _coder(5), _coder(9)
    groups = swap_groups(small.W_dec, large.W_dec)
    with pytest.raises(UserError, match="at least 1 step"):
        swap_steps(groups, 0)
    with pytest.raises(UserError, match="5 and 9 steps for 9 and 5 latents"):
        SwapPath(large, small, swap_steps(groups))
    skip = Wiring.transcoder(Port("layers.1.mlp_in", 12), Port("layers.1.mlp_out", 12), skip=True)
    with pytest.raises(UserError, match="a skip path is no latent"):
        SwapPath(_coder(5, skip), _coder(9, skip), swap_steps(groups))
