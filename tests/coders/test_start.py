import pytest
import torch
from torch import Tensor

from unweave.coders import Port, Wiring
from unweave.coders.relu import Relu, ReluConfig
from unweave.coders.start import geometric_median, leading_directions


def _rows(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_the_geometric_median_on_a_line_is_the_median() -> None:
    median = geometric_median(_rows((0.0,), (1.0,), (2.0,), (3.0,), (1000.0,)))
    assert median.item() == pytest.approx(2.0, abs=1e-3)


def test_the_geometric_median_of_a_cross_is_its_middle() -> None:
    median = geometric_median(_rows((-1.0, 0.0), (5.0, 0.0), (0.0, -2.0), (0.0, 3.0)))
    assert median.tolist() == pytest.approx([0.0, 0.0], abs=1e-3)


def test_from_the_geometric_median_of_a_wide_triangle_all_sides_are_seen_at_120_degrees() -> None:
    corners = _rows((0.0, 0.0), (4.0, 0.0), (1.0, 3.0))
    directions = torch.nn.functional.normalize(corners - geometric_median(corners, 1000), dim=1)
    cosines = directions @ directions.T
    assert [cosines[0, 1].item(), cosines[0, 2].item(), cosines[1, 2].item()] == pytest.approx([-0.5] * 3, abs=1e-4)


def test_the_geometric_median_of_equal_rows_is_that_row() -> None:
    median = geometric_median(_rows((2.0, -1.0)).expand(5, 2))
    torch.testing.assert_close(median, torch.tensor([2.0, -1.0], dtype=torch.float64))


def test_leading_directions_are_those_of_the_largest_variance_about_the_mean() -> None:
    spreads = torch.tensor([0.1, 5.0, 0.3, 2.0], dtype=torch.float64)
    x = torch.randn(1000, 4, dtype=torch.float64) * spreads + torch.tensor([1000.0, 0.0, 0.0, 0.0])
    directions = leading_directions(x, 2)
    torch.testing.assert_close(directions @ directions.T, torch.eye(2, dtype=torch.float64))
    inside = directions.T @ directions
    torch.testing.assert_close(inside.diagonal().round(decimals=2).tolist(), [0.0, 1.0, 0.0, 1.0])


@pytest.mark.parametrize("centre", [True, False])
def test_no_latent_of_a_new_coder_is_on_or_off_for_the_mean_row_alone(centre: bool) -> None:
    coder = Relu(ReluConfig(n_latents=63, centre=centre), Wiring.sae(7)).double()
    x = torch.randn(100, 7, dtype=torch.float64) + 50.0
    coder.start_from(x, x)
    middle = x.mean(0) - coder.b_dec if centre else x.mean(0)
    torch.testing.assert_close(coder.W_enc @ middle + coder.b_enc, torch.zeros(63, dtype=torch.float64))


def test_a_transcoder_reads_about_the_mean_of_what_it_reads_and_writes_about_that_of_what_it_writes() -> None:
    coder = Relu(ReluConfig(n_latents=63), Wiring.transcoder(Port("in", 7), Port("out", 5))).double()
    x, y = torch.randn(100, 7, dtype=torch.float64) + 50.0, torch.randn(100, 5, dtype=torch.float64) - 20.0
    coder.start_from(x, y)
    torch.testing.assert_close(coder.b_dec.detach(), y.mean(0))
    torch.testing.assert_close(coder.b_enc.detach(), -(coder.W_enc @ x.mean(0)).detach())


def test_biases_stay_zero_where_they_are_to_start_there() -> None:
    coder = Relu(ReluConfig(variant="april_2024", n_latents=63), Wiring.sae(7)).double()
    x = torch.randn(100, 7, dtype=torch.float64) + 50.0
    coder.start_from(x, x)
    assert not coder.b_dec.any()
    assert not coder.b_enc.any()


@pytest.mark.parametrize("reads", ["what it writes", "elsewhere"])
def test_decoder_rows_may_start_in_the_active_subspace(reads: str) -> None:
    wiring = Wiring.sae(7) if reads == "what it writes" else Wiring.transcoder(Port("in", 5), Port("out", 7))
    config = ReluConfig(n_latents=63, active_subspace=3, decoder_init_norm=0.4, encoder_init_gain=2.0)
    coder = Relu(config, wiring).double()
    before = coder.W_enc.detach().clone()
    basis = torch.linalg.qr(torch.randn(7, 3, dtype=torch.float64)).Q
    y = torch.randn(100, 3, dtype=torch.float64) @ basis.T + 10.0
    x = y if reads == "what it writes" else torch.randn(100, 5, dtype=torch.float64)
    coder.start_from(x, y)
    torch.testing.assert_close(coder.W_dec @ basis @ basis.T, coder.W_dec.data)
    torch.testing.assert_close(coder.W_dec.norm(dim=1), torch.full((63,), 0.4, dtype=torch.float64))
    assert torch.linalg.matrix_rank(coder.W_dec.detach(), rtol=1e-6) == 3
    expected = 2.0 * coder.W_dec.detach() if reads == "what it writes" else before
    torch.testing.assert_close(coder.W_enc.detach(), expected)
