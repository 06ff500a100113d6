"""A coder on rows of another site: affine maps that are known, and figures against plain formulas."""

import math

import pytest
import torch

from unweave.analysis.transfer import DEFINITIONS, AffineMap, MapFit, Transfer, TransferRows
from unweave.coders import Port, SparseCoder, Wiring, architecture
from unweave.errors import UserError
from unweave.metrics import blocks_of


def _coder(width: int) -> SparseCoder:
    """Writes the positive part of the first half of the coordinates."""
    cls = architecture("relu")
    coder = cls(cls.Config(n_latents=width // 2, centre=False), Wiring.sae(width, "layers.1.resid_post"))
    with torch.no_grad():
        assert isinstance(coder.W_enc, torch.Tensor)
        coder.W_enc.copy_(torch.eye(width)[: width // 2])
        coder.W_dec.copy_(torch.eye(width)[: width // 2])
    return coder


def _fit(x: torch.Tensor, y: torch.Tensor) -> AffineMap:
    fit = MapFit(x.shape[1], y.shape[1])
    for part, other in zip(x.split(63), y.split(63), strict=True):
        fit.update(part, other)
    return fit.solve()


def _explained(y: torch.Tensor, y_hat: torch.Tensor) -> float:
    return 1 - ((y - y_hat).square().sum() / (y - y.mean(0)).square().sum()).item()


def test_an_affine_map_is_found() -> None:
    x = torch.randn(300, 7) + 2
    weight, offset = torch.randn(7, 11), torch.randn(11)
    found = _fit(x, x @ weight + offset)
    torch.testing.assert_close(found.weight.float(), weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found(x), x @ weight + offset, atol=1e-4, rtol=1e-4)


def test_the_map_has_the_least_squared_error_and_is_the_smallest_where_there_are_several() -> None:
    x, y = torch.randn(200, 5).double(), torch.randn(200, 3).double()
    twice = torch.cat([x, x], 1)
    found = _fit(twice, y)
    design = torch.cat([x, torch.ones(200, 1)], 1)
    best = torch.linalg.lstsq(design, y).solution
    torch.testing.assert_close(found(twice), design @ best)
    torch.testing.assert_close(found.weight[:5], best[:5] / 2)
    torch.testing.assert_close(found.weight[5:], best[:5] / 2)


def test_a_turned_copy_of_the_site_works_through_maps_and_not_without() -> None:
    """Home rows have four positive coordinates and four small ones; the other site has them turned and shifted."""
    home = torch.cat([torch.randn(1000, 4).abs(), 0.1 * torch.randn(1000, 4)], 1)
    turn = torch.linalg.qr(torch.randn(8, 8)).Q
    other = 3 * home @ turn + 1
    there, back = _fit(other[:500], home[:500]), _fit(home[:500], other[:500])
    coder = _coder(8)
    transfer = Transfer(coder, there, back)
    for start in range(500, 1000, 63):
        x, y = home[start : start + 63], other[start : start + 63]
        transfer.update(TransferRows(x, y, blocks_of(torch.arange(start, start + len(x)))))
    figures = transfer.compute()
    x, y = home[500:], other[500:]
    assert figures["transfer_home"] == pytest.approx(_explained(x, coder(x)), rel=1e-4)
    assert figures["transfer_as_is"] == pytest.approx(_explained(y, coder(y)), rel=1e-4)
    assert figures["transfer_mapped"] == pytest.approx(figures["transfer_home"], abs=1e-3)
    assert figures["transfer_as_is"] < figures["transfer_mapped"] - 0.5
    assert figures["transfer_map_only"] == pytest.approx(1.0, abs=1e-4)
    assert figures["transfer_kept"] == pytest.approx(figures["transfer_mapped"], abs=1e-3)
    assert figures["transfer_l0_home"] == figures["transfer_l0_mapped"] == 4.0
    assert set(figures) == {definition.name for definition in DEFINITIONS}
    assert 0 < transfer.standard_errors()["transfer_home"] < 0.01


def test_a_wider_site_has_no_figure_as_it_is_and_keeps_what_its_map_keeps() -> None:
    """The other site has the home rows and as much noise of its own, which no map back can make."""
    home = torch.cat([torch.randn(2000, 4).abs(), 0.01 * torch.randn(2000, 4)], 1)
    other = torch.cat([home, (1 - 2 / math.pi) ** 0.5 * torch.randn(2000, 4)], 1)
    transfer = Transfer(_coder(8), _fit(other, home), _fit(home, other))
    transfer.update(TransferRows(home, other, blocks_of(torch.arange(2000))))
    figures = transfer.compute()
    assert math.isnan(figures["transfer_as_is"])
    assert figures["transfer_map_only"] == pytest.approx(0.5, abs=0.02)
    assert figures["transfer_mapped"] == pytest.approx(0.5, abs=0.02)
    assert figures["transfer_kept"] == pytest.approx(figures["transfer_home"], abs=0.01)


def test_what_does_not_fit_is_refused() -> None:
    fit = MapFit(5, 3)
    with pytest.raises(UserError, match="at least 2 rows, got 0"):
        fit.solve()
    with pytest.raises(UserError, match=r"from width 5 to 3 .* got \[7, 5\] and \[8, 3\]"):
        fit.update(torch.randn(7, 5), torch.randn(8, 3))
    fit.update(torch.randn(9, 5), torch.randn(9, 3))
    with pytest.raises(UserError, match=r"expected maps \[5, 8\] and \[8, 5\]"):
        Transfer(_coder(8), fit.solve(), fit.solve())
    wiring = Wiring.transcoder(Port("layers.1.mlp_in", 8), Port("layers.1.mlp_out", 8))
    transcoder = architecture("relu")(architecture("relu").Config(n_latents=9), wiring)
    with pytest.raises(UserError, match="got a transcoder"):
        Transfer(transcoder, fit.solve(), fit.solve())
