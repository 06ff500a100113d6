"""Counterparts of latents, where the second coder is the first one shuffled."""

import pytest
import torch

from unweave.analysis.counterparts import counterparts
from unweave.errors import UserError


def test_a_shuffled_coder_is_found_latent_by_latent() -> None:
    generator = torch.Generator().manual_seed(3)
    W = torch.randn(63, 20, generator=generator)
    order = torch.randperm(63, generator=generator)
    other = -2.5 * W[order]
    found = counterparts(W, other)
    assert torch.equal(order[found.matching.second], found.matching.first)
    assert torch.equal(order[found.forth.ids.flatten()], torch.arange(63))
    assert torch.equal(found.back.ids.flatten(), order)
    torch.testing.assert_close(found.matching.strength, -torch.ones(63), rtol=0, atol=1e-5)
    figures = found.figures(20)
    assert figures["mmcs"] == pytest.approx(1) and figures["mcc_of_coders"] == pytest.approx(1)
    assert figures["same_number_share"] == (order == torch.arange(63)).double().mean().item()


def test_chance_is_that_of_directions_without_a_relation() -> None:
    generator = torch.Generator().manual_seed(7)
    W, other = torch.randn(63, 30, generator=generator), torch.randn(100, 30, generator=generator)
    found = counterparts(W, other)
    figures = found.figures(30)
    assert figures["mmcs_rotated"] == pytest.approx(figures["mmcs_of_random"], rel=0.05)
    assert figures["mmcs"] == pytest.approx(figures["mmcs_of_random"], rel=0.05)
    assert torch.equal(found.rotated_L, counterparts(W, other).rotated_L)


def test_coders_of_other_widths_are_refused() -> None:
    with pytest.raises(UserError, match="width 7 and 63"):
        counterparts(torch.randn(3, 7), torch.randn(3, 63))
