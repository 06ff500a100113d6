"""Steering, against activations that are moved by hand."""

import pytest
import torch

from unweave.analysis.steering import Steer, SteerEdit, divergence, steered
from unweave.coders.base import SparseCoder
from unweave.coders.topk import TopK, TopKConfig
from unweave.coders.wiring import Port, Wiring
from unweave.errors import UserError
from unweave.types import Codes

CODES = Codes(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0, 4, 2, 4]), torch.tensor([0, 2, 2, 4]), 5)
"""Row 0: latents 0 and 4; row 1: none; row 2: latents 2 and 4."""


def dense(*steers: Steer, positions: tuple[int, ...] = (0, 1, 2)) -> list[list[float]]:
    return steered(CODES, steers, torch.tensor(positions)).dense().tolist()


@pytest.fixture
def coder() -> SparseCoder:
    coder = TopK(TopKConfig(n_latents=63, k=7), Wiring.sae(28, "layers.0.resid_post")).requires_grad_(False)
    torch.nn.init.normal_(coder.b_dec)
    return coder


def test_each_mode_makes_the_numbers_that_its_formula_says() -> None:
    assert dense(Steer(latent=4, mode="ablate")) == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 3, 0, 0]]
    assert dense(Steer(latent=4, mode="scale", strength=-0.5)) == [[1, 0, 0, 0, -1], [0, 0, 0, 0, 0], [0, 0, 3, 0, -2]]
    added = dense(Steer(latent=4, mode="add", strength=2.0, unit=5.0))
    assert added == [[1, 0, 0, 0, 12], [0, 0, 0, 0, 10], [0, 0, 3, 0, 14]]
    clamped = dense(Steer(latent=1, mode="clamp", strength=0.5, unit=7.0))
    assert clamped == [[1, 3.5, 0, 0, 2], [0, 3.5, 0, 0, 0], [0, 3.5, 3, 0, 4]]


def test_only_chosen_positions_are_steered() -> None:
    first = Steer(latent=4, mode="clamp", strength=9.0, end=11)
    later = Steer(latent=0, strength=1.0, start=12)
    assert dense(first, later, positions=(10, 11, 12)) == [[1, 0, 0, 0, 9], [0, 0, 0, 0, 0], [1, 0, 3, 0, 4]]
    nowhere = Steer(latent=4, mode="ablate", end=0)
    assert steered(CODES, [nowhere], torch.arange(3)) is CODES


def test_entries_stay_in_order_and_zeros_are_no_entries() -> None:
    codes = steered(CODES, [Steer(latent=3, strength=1.0), Steer(latent=0, mode="ablate")], torch.arange(3))
    assert codes.row_offsets.tolist() == [0, 2, 3, 6]
    assert codes.latent_ids.tolist() == [3, 4, 3, 2, 3, 4]


def test_an_edit_moves_a_row_along_decoder_rows_and_keeps_the_rest(coder: SparseCoder) -> None:
    x = torch.randn(2, 9, 28)
    active = coder.encode(x.flatten(0, 1)).dense().view(2, 9, 63)
    often = int((active[:, 3:] > 0).sum((0, 1)).argmax())
    other = (often + 1) % 63
    edit = SteerEdit(coder, [Steer(latent=often, mode="ablate"), Steer(latent=other, strength=2.0, unit=3.0)])
    by_hand = x - active[..., often, None] * coder.W_dec[often] + 6.0 * coder.W_dec[other]
    torch.testing.assert_close(edit(x), by_hand, rtol=1e-5, atol=1e-5)


def test_a_part_of_a_sequence_is_edited_as_in_the_whole(coder: SparseCoder) -> None:
    x = torch.randn(1, 9, 28)
    edit = SteerEdit(coder, [Steer(latent=7, strength=5.0, start=3, end=6)])
    whole = edit(x)
    assert torch.equal(whole[:, :3], x[:, :3]) and torch.equal(whole[:, 6:], x[:, 6:])
    torch.testing.assert_close(edit.at(4)(x[:, 4:]), whole[:, 4:])


def test_the_divergence_is_that_of_torch() -> None:
    before, after = torch.randn(7, 63), torch.randn(7, 63)
    p, q = torch.distributions.Categorical(logits=before), torch.distributions.Categorical(logits=after)
    torch.testing.assert_close(divergence(before, after), torch.distributions.kl_divergence(p, q))
    assert divergence(before, before + 3.0).tolist() == pytest.approx([0.0] * 7, abs=1e-6)


@pytest.mark.parametrize(
    ("steers", "said"),
    [
        ([Steer(latent=63, mode="ablate")], "no latent 63; this coder has latents 0 to 62"),
        ([Steer(latent=7, strength=1.0), Steer(latent=7, mode="ablate")], "latent 7 is steered twice"),
    ],
)
def test_latents_that_are_not_there_or_named_twice_are_refused(
    coder: SparseCoder, steers: list[Steer], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        SteerEdit(coder, steers)


def test_a_coder_that_writes_elsewhere_is_refused() -> None:
    wiring = Wiring.transcoder(Port("layers.0.mlp_in", 28), Port("layers.0.mlp_out", 28))
    with pytest.raises(UserError, match="writes where it reads, got a transcoder"):
        SteerEdit(TopK(TopKConfig(n_latents=63, k=7), wiring), [])


def test_a_strength_without_meaning_is_refused() -> None:
    with pytest.raises(UserError, match="ablate has no strength"):
        Steer(latent=7, mode="ablate", strength=1.0)
    with pytest.raises(UserError, match="add needs a strength"):
        Steer(latent=7)
    with pytest.raises(UserError, match="must be a number"):
        Steer(latent=7, strength=float("inf"))


def test_a_clamp_at_what_it_is_changes_nothing(coder: SparseCoder) -> None:
    x = torch.randn(1, 1, 28)
    codes = coder.encode(x[0])
    latent, value = int(codes.latent_ids[0]), float(codes.values[0])
    torch.testing.assert_close(SteerEdit(coder, [Steer(latent=latent, mode="clamp", strength=value)])(x), x)
