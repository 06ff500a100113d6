"""Where bfloat16 proposes, float32 decides: the entries are those of the exact product, whatever rounding does."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

from unweave.kernels.encode import encode
from unweave.kernels.encode.cpu import _Products
from unweave.kernels.selection import Above, GroupMax, Rule, TopKOfBatch, TopKOfRow, reference
from unweave.types import Codes

from .conftest import assert_well_formed, bfloat16_proposes, float32_alone, mask_of

N_ROWS, N_LATENTS = 301, 120  # several blocks of rows, the last one short
RULES: list[Rule] = [
    TopKOfRow(1),
    TopKOfRow(7),
    TopKOfRow(7, signed=True),
    TopKOfRow(N_LATENTS),
    TopKOfBatch(0.3),
    TopKOfBatch(7.3),
    Above(0.0),
    Above(0.7),
    GroupMax(8),
]
KINDS = (
    "normal",
    "one dimension",
    "outlier dimensions",
    "rows of very different norms",
    "near ties",
    "near ties in whole numbers",
    "near opposites",
    "rounding at its worst",
    "large biases",
    "large and small biases",
    "large offset",
    "zero rows",
    "zero weights",
    "subnormal",
    "first rows small",
    "first rows large",
)


def _operands(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, weights and biases in float32."""
    width = 1 if kind == "one dimension" else 63
    x, W = torch.randn(N_ROWS, width), torch.randn(N_LATENTS, width) / width**0.5
    bias = 0.1 * torch.randn(N_LATENTS)
    match kind:
        case "outlier dimensions":
            x[:, ::17] *= 1000
        case "rows of very different norms":
            x *= 10 ** (6 * torch.rand(N_ROWS, 1) - 3)
            W *= 10 ** (6 * torch.rand(N_LATENTS, 1) - 3)
        case "near ties":
            # far closer than bfloat16 can tell (2**-8), well apart in float32 (2**-24), in an order of its own per row
            W = W[:1] * (1 + 1e-3 * torch.randn(N_LATENTS, 1)) + 1e-4 * W
            bias = torch.zeros(N_LATENTS)
        case "near ties in whole numbers":
            x, W = torch.full((N_ROWS, width), 64.0), torch.full((N_LATENTS, width), 64.0)
            x[:, 0], W[:, 0] = 1.0 + torch.arange(N_ROWS) % 7, torch.randperm(N_LATENTS).float()
            bias = torch.zeros(N_LATENTS)
        case "near opposites":
            W[::2] = -W[1::2] * (1 + 1e-4 * torch.randn(N_LATENTS // 2, 1))
            bias = torch.zeros(N_LATENTS)
        case "rounding at its worst":
            # weights half a unit off, a little more or a little less, so that all of a row are rounded the same way: as
            # wrong as the bound allows, up or down, and the last weight makes those that go down the larger ones
            up = torch.arange(N_LATENTS)[:, None] % 2
            W = 1 + 2**-7 * torch.randint(4, (N_LATENTS, 6)) + 2**-8 + 2**-14 * (2 * up - 1)
            W[:, 5:] = 5 * 2**-12 * (1 - up)
            x = 2.0 ** torch.randint(3, (N_ROWS, 6))
            bias = torch.zeros(N_LATENTS)
        case "large biases":
            bias = 1e4 * torch.ones(N_LATENTS)
        case "large and small biases":
            bias = torch.where(torch.arange(N_LATENTS) % 2 == 0, 1e4, -1e4) + torch.randn(N_LATENTS)
            x = 1e4 * x
        case "large offset":
            x += 100.0
        case "zero rows":
            x[::3] = 0
        case "zero weights":
            W[::3] = 0
            bias[::6] = 0
        case "subnormal":
            x, W, bias = 1e-20 * x, 1e-20 * W, 1e-41 * bias
        case "first rows small":
            x[:64] *= 1e-3
        case "first rows large":
            x[:64] *= 1e3
    return x, W, bias


def _tolerance(x: Tensor, W: Tensor, bias: Tensor) -> Tensor:
    """How far a float32 sum may be from the exact one: D units of the sum of magnitudes (Higham 2002, 3.1)."""
    unit = torch.finfo(torch.float32).eps
    magnitudes = x.double().abs() @ W.double().abs().T + bias.double().abs()
    return unit * (2 + x.shape[1]) * magnitudes + 1e-43 * x.shape[1]


def _distance_to_the_cut(exact: Tensor, mask: Tensor, rule: Rule) -> Tensor:
    """How much each score would have to change for its entry to be treated otherwise."""
    score = exact.abs() if getattr(rule, "signed", False) else exact
    if isinstance(rule, Above):
        return (score - rule.threshold).abs()
    groups = {"TopKOfRow": exact.shape, "TopKOfBatch": (1, -1)}.get(type(rule).__name__)
    shape = groups or (exact.shape[0] * getattr(rule, "n_groups", 1), -1)
    kept, lost = (part.reshape(shape) for part in (score.where(mask, torch.inf), score.where(~mask, -torch.inf)))
    lowest, highest = kept.amin(1, keepdim=True), lost.amax(1, keepdim=True).clamp(min=0.0)
    apart = torch.where(mask.reshape(shape), score.reshape(shape) - highest, lowest - score.reshape(shape))
    return torch.minimum(apart.abs(), score.reshape(shape).abs()).view_as(exact)


def _assert_exact(codes: Codes, x: Tensor, W: Tensor, bias: Tensor, rule: Rule) -> int:
    """Entries may differ from those of float64 only at the cut; returns how many do."""
    assert_well_formed(codes, (N_ROWS, N_LATENTS))
    exact = x.double() @ W.double().T + bias.double()
    mask, tolerance = reference.mask(exact, rule), _tolerance(x, W, bias)
    wrong = mask_of(codes) != mask
    # two scores that are compared may both be off
    largest = tolerance.amax() if isinstance(rule, TopKOfBatch) else tolerance.amax(1, keepdim=True)
    distance = _distance_to_the_cut(exact, mask, rule)
    assert (distance[wrong] <= (tolerance + largest)[wrong]).all()
    entries = codes.row_ids, codes.latent_ids
    assert ((codes.values.double() - exact[entries]).abs() <= tolerance[entries]).all()
    return int(wrong.sum())


@pytest.mark.parametrize("precision", [bfloat16_proposes, float32_alone])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_entries_are_those_of_the_exact_product(
    kind: str, rule: Rule, precision: Callable[[], AbstractContextManager]
) -> None:
    x, W, bias = _operands(kind)
    with precision():
        assert _Products(x, W).can_round == (precision is bfloat16_proposes)
        codes = encode(x, W, bias, rule)
    _assert_exact(codes, x, W, bias, rule)


@pytest.mark.parametrize("kind", ["normal", "near ties", "near ties in whole numbers", "outlier dimensions"])
def test_bfloat16_alone_would_choose_other_entries(kind: str) -> None:
    """Else the test above shows nothing; and what decides is float32, so that hardly any entry differs at all."""
    x, W, bias = _operands(kind)
    rule = TopKOfRow(7)
    exact = reference.mask(x.double() @ W.double().T + bias.double(), rule)
    alone = reference.mask((x.bfloat16() @ W.bfloat16().T).double() + bias.double(), rule)
    n_wrong_alone = int((alone != exact).sum())
    assert n_wrong_alone >= 4
    with bfloat16_proposes():
        assert _assert_exact(encode(x, W, bias, rule), x, W, bias, rule) <= n_wrong_alone // 4


def test_scores_at_a_distance_that_only_float32_can_see_are_ranked_right() -> None:
    """All sums are whole numbers that differ by 1 in 250,000: no tolerance here."""
    x, W, bias = _operands("near ties in whole numbers")
    exact = x.double() @ W.double().T
    for rule in (TopKOfRow(7), TopKOfBatch(7.3), GroupMax(8), Above(float(exact[0].median()))):
        with bfloat16_proposes():
            codes = encode(x, W, bias, rule)
        assert torch.equal(mask_of(codes), reference.mask(exact, rule)), rule


@pytest.mark.parametrize("size", [1e3, 1e5, -1e5])
def test_biases_so_large_that_products_vanish_in_them_leave_the_ties_of_float32(size: float) -> None:
    """Products of one pair of bfloat16 numbers are exact in float32, so what it makes of them is known to the bit."""
    x, W = (torch.randn(n, 1).bfloat16().float() for n in (N_ROWS, N_LATENTS))
    bias = torch.full((N_LATENTS,), size)
    pre = x @ W.T + bias
    for rule in (TopKOfRow(7), TopKOfRow(7, True), TopKOfBatch(7.3), GroupMax(8), Above(size), Above(size + 0.3)):
        with bfloat16_proposes():
            codes = encode(x, W, bias, rule)
        assert torch.equal(mask_of(codes), reference.mask(pre, rule)), rule
        assert torch.equal(codes.values, pre[mask_of(codes)])


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_codes_that_turn_out_dense_are_made_by_the_exact_product(rule: Rule) -> None:
    x, W, bias = _operands("normal")
    with bfloat16_proposes(everywhere=False):
        codes = encode(x, W, bias, rule)
    _assert_exact(codes, x, W, bias, rule)


def test_sparse_codes_of_many_latents_are_those_of_the_exact_product() -> None:
    """A shape like that of training, with the shares of candidates that training has."""
    x, W = torch.randn(601, 63), torch.randn(4001, 63)
    bias = -1.0 + 0.1 * torch.randn(4001)
    for rule in (TopKOfRow(7), TopKOfBatch(7.3), Above(20.0)):
        with bfloat16_proposes(everywhere=False):
            codes = encode(x, W, bias, rule)
        exact = x.double() @ W.double().T + bias.double()
        wrong = mask_of(codes) != reference.mask(exact, rule)
        assert wrong.sum() <= 2, "a tie in float32 at most"


def test_gradients_are_those_of_float32() -> None:
    x, W, bias = _operands("normal")
    gradients = []
    for precision in (bfloat16_proposes, float32_alone):
        parts = [part.clone().requires_grad_() for part in (x, W, bias)]
        with precision():
            values = encode(*parts, TopKOfRow(7)).values
        gradients.append(torch.autograd.grad(values.square().sum(), parts))
    for proposed, exact in zip(*gradients, strict=True):
        torch.testing.assert_close(proposed, exact, rtol=1e-4, atol=1e-4)
