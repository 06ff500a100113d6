from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Port, Wiring
from unweave.coders.matryoshka import Matryoshka, MatryoshkaConfig, random_prefixes
from unweave.errors import UserError

from .conftest import At, Check, Make, Selection

N_ROWS, N_LATENTS = 100, 63


def _prefixes(f: Tensor, lengths: list[int]) -> list[Tensor]:
    """The latents of each prefix, the others zero."""
    return [torch.cat([f[:, :m], torch.zeros_like(f[:, m:])], dim=1) for m in lengths]


@pytest.mark.parametrize("k", [1.0, 2.37, 5.0, float(N_LATENTS)])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("prefixes", [(1.0,), (0.1, 0.5, 1.0), None, "random"])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree_with_aux: Check, top_of_all: Selection, prefixes: Any, centre: bool, k: float
) -> None:
    given = {} if prefixes is None else {"prefixes": prefixes}
    coder = make_coder("matryoshka", k=k, k_aux=4, centre=centre, **given)
    lengths = {(1.0,): [63], (0.1, 0.5, 1.0): [6, 32, 63], None: [2, 6, 14, 30, 63]}
    ends = random_prefixes(63, 10, 0.5) if prefixes == "random" else lengths[prefixes]

    def latents(pre: Tensor) -> list[Tensor]:
        return _prefixes(top_of_all(pre, int(N_ROWS * k)), ends)

    agree_with_aux(coder, latents, centre=centre, error="prefix_mse")


@pytest.mark.parametrize("skip", [True, False], ids=["skip transcoder", "transcoder"])
def test_what_is_written_may_be_something_else_than_what_is_read(
    make_coder: Make, agree_with_aux: Check, top_of_all: Selection, skip: bool
) -> None:
    coder = make_coder("matryoshka", Wiring.transcoder(Port("in", 7), Port("out", 5), skip=skip), k=5.0, k_aux=4)
    y = torch.randn(N_ROWS, 5, dtype=torch.float64)

    def latents(pre: Tensor) -> list[Tensor]:
        return _prefixes(top_of_all(pre, 500), [2, 6, 14, 30, 63])

    agree_with_aux(coder, latents, y, centre=False, error="prefix_mse")


def test_two_prefixes_of_one_row_by_hand(at: At) -> None:
    coder = Matryoshka(MatryoshkaConfig(n_latents=4, k=2.0, prefixes=(0.5, 1.0)), Wiring.sae(2)).double()
    with torch.no_grad():
        coder.W_enc.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.1]]))
        coder.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]))
    x = torch.tensor([[3.0, 2.0]], dtype=torch.float64)
    # latents 0 and 2 fire with 3 and 2; the first two latents write (3, 0), all four (3, 2)
    step = coder.loss(x, x, at())
    step.losses["prefix_mse"].backward()
    assert step.codes.latent_ids.tolist() == [0, 2]
    assert step.losses["prefix_mse"].item() == pytest.approx((4.0 + 0.0) / 2)
    assert step.reconstruction.tolist() == [[3.0, 2.0]]
    # latent 0 is in both prefixes, whose errors are (0, -2) and (0, 0); latent 2 only in the second
    torch.testing.assert_close(coder.W_dec.grad[0], torch.tensor([0.0, 3 * -2.0], dtype=torch.float64))
    assert not coder.W_dec.grad[1:].any()


def test_one_prefix_of_all_latents_is_batch_topk(make_coder: Make, at: At, x: Tensor) -> None:
    ours = make_coder("matryoshka", k=5.0, prefixes=(1.0,))
    theirs = make_coder("batch_topk", k=5.0)
    theirs.load_state_dict(ours.state_dict())
    a, b = ours.loss(x, x, at(1, 2)), theirs.loss(x, x, at(1, 2))
    torch.testing.assert_close(list(a.losses.values()), list(b.losses.values()), rtol=1e-12, atol=0)
    assert torch.equal(ours.threshold, theirs.threshold)
    assert torch.equal(ours.encode(x).values, theirs.encode(x).values)


def test_the_default_prefixes_are_those_of_the_paper() -> None:
    coder = Matryoshka(MatryoshkaConfig(n_latents=65536), Wiring.sae(3))
    assert coder.prefix_lengths(0.0) == [2048, 6144, 14336, 30720, 65536]


def test_prefixes_that_come_to_the_same_length_count_once() -> None:
    assert Matryoshka(MatryoshkaConfig(n_latents=4, k=2), Wiring.sae(3)).prefix_lengths(0.0) == [1, 2, 4]


def test_random_prefixes_ascend_end_at_all_latents_and_change_with_every_step() -> None:
    drawn = [random_prefixes(63, 7, step / 1000) for step in range(1000)]
    assert all(lengths == sorted(set(lengths)) and lengths[-1] == 63 and len(lengths) == 7 for lengths in drawn)
    assert len({tuple(lengths) for lengths in drawn}) > 990
    assert drawn == [random_prefixes(63, 7, step / 1000) for step in range(1000)]
    assert random_prefixes(7, 7, 0.5) == [1, 2, 3, 4, 5, 6, 7]
    assert random_prefixes(63, 1, 0.5) == [63]


def test_random_prefixes_follow_the_truncated_pareto_distribution() -> None:
    n_draws = 6000
    counts = Counter(random_prefixes(7, 2, step / n_draws)[0] for step in range(n_draws))
    assert counts.keys() == {1, 2, 3, 4, 5, 6}
    for m in range(1, 7):
        expected = (m**0.5 - (m - 1) ** 0.5) / 6**0.5
        assert counts[m] / n_draws == pytest.approx(expected, abs=4 * (expected / n_draws) ** 0.5)


def test_drawing_prefixes_leaves_the_generator_of_the_process_alone(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("matryoshka", k=5.0, prefixes="random")
    before = torch.get_rng_state()
    coder.loss(x, x, at())
    assert torch.equal(torch.get_rng_state(), before)


def test_in_use_an_entry_is_active_when_it_exceeds_the_threshold(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("matryoshka", k=5.0)
    smallest = coder.loss(x, x, at()).codes.values.min().item()
    assert coder.threshold.item() == smallest
    pre = (x - coder.b_dec) @ coder.W_enc.T + coder.b_enc
    expected = torch.where(pre > smallest, pre, torch.zeros_like(pre))
    torch.testing.assert_close(coder.encode(x).dense(), expected.detach(), rtol=1e-12, atol=1e-12)


def test_a_loss_may_be_put_on_the_reconstruction_too(make_coder: Make, at: At, x: Tensor) -> None:
    """Its gradient adds to that of the coder's own loss, as for end-to-end training."""
    coder = make_coder("matryoshka", k=5.0)
    weights = torch.randn_like(x)

    def gradients(own: float, other: float) -> list[Tensor]:
        step = coder.loss(x, x, at())
        coder.zero_grad()
        (own * step.losses["prefix_mse"] + other * (weights * step.reconstruction).sum()).backward()
        return [p.grad.clone() for p in coder.parameters()]

    codes = coder.loss(x, x, at()).codes
    coder.zero_grad()
    (weights * coder.reconstruct(codes, x)).sum().backward()
    expected = [p.grad.clone() for p in coder.parameters()]
    torch.testing.assert_close(gradients(0.0, 1.0), expected, rtol=1e-10, atol=1e-10)
    both = [a + 0.3 * b for a, b in zip(gradients(1.0, 0.0), expected, strict=True)]
    torch.testing.assert_close(gradients(1.0, 0.3), both, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("k", 0, "k needs.*k=0"),
        ("k", 64, "k needs.*k=64"),
        ("threshold_decay", 1.0, "threshold_decay.*1.0"),
        ("prefixes", (0.5, 0.25, 1.0), r"prefixes must ascend.*\[0.5, 0.25, 1.0\]"),
        ("prefixes", (0.0, 1.0), r"prefixes must ascend.*\[0.0, 1.0\]"),
        ("prefixes", (0.25, 0.5), r"prefixes must ascend.*\[0.25, 0.5\]"),
        ("prefixes", (), r"prefixes must ascend.*\[\]"),
        ("n_prefixes", 3, "n_prefixes=3 has no effect"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        MatryoshkaConfig(**{"n_latents": N_LATENTS, "k": 5.0} | {setting: value})


@pytest.mark.parametrize("n_prefixes", [0, 64])
def test_a_number_of_random_prefixes_out_of_range_is_refused(n_prefixes: int) -> None:
    with pytest.raises(UserError, match=rf"n_prefixes.*{n_prefixes}"):
        MatryoshkaConfig(n_latents=N_LATENTS, k=5.0, prefixes="random", n_prefixes=n_prefixes)
