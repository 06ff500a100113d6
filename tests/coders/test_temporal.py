import math
from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from unweave.coders import Moment, Port, Wiring
from unweave.coders.temporal import Temporal, TemporalConfig
from unweave.coders.wiring import RowNorm
from unweave.errors import UserError

WIDTH, N_LATENTS, HEADS, KEY = 5, 21, 3, 9


def _coder(row_norm: RowNorm = "none", **settings: Any) -> Temporal:
    values: dict[str, Any] = {"n_latents": N_LATENTS, "n_heads": HEADS, "d_key": KEY, "k": 4} | settings
    port = (Port("some.site", WIDTH),)
    coder = Temporal(TemporalConfig(**values), Wiring(port, port, row_norm=row_norm)).double()
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    return coder.requires_grad_(False)


def _attended(p: dict[str, Tensor], layer: int, z: list[Tensor], t: int) -> Tensor:
    """What position t attends to, head by head and position by position; before the first stands a row of zeros."""

    def linear(name: str, row: Tensor) -> Tensor:
        return p[f"layers.{layer}.{name}.weight"] @ row + p[f"layers.{layer}.{name}.bias"]

    earlier = [torch.zeros(N_LATENTS, dtype=torch.float64), *z[:t]]
    heads = []
    for head in range(HEADS):
        part, values = slice(3 * head, 3 * head + 3), slice(7 * head, 7 * head + 7)
        query = linear("query", z[t])[part]
        weights = [math.exp(float(query @ linear("key", row)[part]) / math.sqrt(3)) for row in earlier]
        mixed = [w * linear("value", row)[values] for w, row in zip(weights, earlier, strict=True)]
        heads.append(torch.stack(mixed).sum(0) / sum(weights))
    return linear("out", torch.cat(heads)).relu()


def _by_hand(coder: Temporal, x_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Novel latents and what is predicted, for the rows of one sequence."""
    p = dict(coder.state_dict())
    left = [row - p["b_dec"] if coder.config.centre else row for row in x_TD]
    predicted = [torch.zeros_like(row) for row in left]
    for layer in range(coder.config.n_layers):
        z = [(p["W_enc"] @ row).relu() for row in left]
        for t, row in enumerate(left):
            direction = _attended(p, layer, z, t) @ p["W_dec"]
            share = (direction @ row) / (direction.norm() + coder.config.epsilon) ** 2
            predicted[t] = predicted[t] + share * direction
            left[t] = row - share * direction
    latents = (torch.stack(left) @ p["W_enc"].T).relu()
    if coder.config.k:
        latents[latents < latents.sort(dim=1).values[:, -coder.config.k, None]] = 0.0
    return latents, torch.stack(predicted)


@pytest.mark.parametrize("settings", [{}, {"k": 0}, {"n_layers": 2, "epsilon": 0.3}, {"centre": False}])
def test_codes_and_rows_are_those_of_a_search_through_each_sequence(settings: dict) -> None:
    coder = _coder(**settings)
    x = torch.randn(3, 7, WIDTH, dtype=torch.float64) + 0.4
    codes, written = coder.encode(x), coder(x)
    assert codes.n_rows == 21
    for number, sequence in enumerate(x):
        latents, predicted = _by_hand(coder, sequence)
        rows = slice(7 * number, 7 * number + 7)
        torch.testing.assert_close(codes.dense()[rows], latents, rtol=1e-10, atol=1e-10)
        whole = latents @ coder.W_dec + coder.b_dec + predicted
        torch.testing.assert_close(written[rows], whole, rtol=1e-10, atol=1e-10)
    assert torch.equal(coder.reconstruct(codes, x), written)


def test_decoding_is_without_what_is_predicted() -> None:
    coder = _coder()
    x = torch.randn(2, 7, WIDTH, dtype=torch.float64)
    codes = coder.encode(x)
    torch.testing.assert_close(coder.decode(codes), codes.dense() @ coder.W_dec + coder.b_dec)
    assert (coder.reconstruct(codes, x) - coder.decode(codes)).abs().max() > 0.1


def test_a_row_depends_on_earlier_rows_of_its_sequence_alone() -> None:
    coder = _coder(k=0)
    x = torch.randn(2, 7, WIDTH, dtype=torch.float64)
    before = coder.encode(x).dense().view(2, 7, -1)
    x[0, 4] += 1.0
    after = coder.encode(x).dense().view(2, 7, -1)
    assert torch.equal(before[0, :4], after[0, :4])
    assert (before[0, 5:] != after[0, 5:]).any(dim=1).all()
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("row_norm", ["sqrt_width", "layer_norm"])
def test_rows_are_normed_one_by_one(row_norm: RowNorm) -> None:
    coder = _coder(row_norm)
    plain = _coder()
    plain.load_state_dict(coder.state_dict())
    x = 3.0 * torch.randn(2, 7, WIDTH, dtype=torch.float64)
    rows = x.flatten(0, 1)
    normed = coder.wiring.normalised(rows)
    assert torch.equal(coder.encode(x).dense(), plain.encode(normed.view_as(x)).dense())
    expected = coder.wiring.denormalised(plain(normed.view_as(x)), rows)
    torch.testing.assert_close(coder(x), expected, rtol=1e-12, atol=1e-12)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shapes are not checked by their annotations, as outside of tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shape", [(7, WIDTH), (2, 7, WIDTH + 1), (1, 2, 7, WIDTH)])
def test_rows_without_a_sequence_are_refused(shape: tuple[int, ...]) -> None:
    coder, x = _coder(), torch.zeros(shape, dtype=torch.float64)
    codes = coder.encode(torch.zeros(2, 7, WIDTH, dtype=torch.float64))
    for read in (coder.encode, coder, lambda x: coder.reconstruct(codes, x)):
        with pytest.raises(UserError, match=r"read sequences \[N, T, 5\], got \[.*\]$"):
            read(x)


def test_it_is_not_trained() -> None:
    x = torch.zeros(7, WIDTH, dtype=torch.float64)
    with pytest.raises(UserError, match="not trained: rows are shuffled, and they need whole sequences"):
        _coder().loss(x, x, Moment(0.5, torch.zeros(0, dtype=torch.int64)))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"k": 22}, "0 <= k <= n_latents, got k=22 with n_latents=21"),
        ({"n_heads": 2}, "n_heads=2 must divide n_latents=21 and d_key=9"),
        ({"d_key": 10}, "n_heads=3 must divide n_latents=21 and d_key=10"),
        ({"n_layers": 0}, "must be at least 1, got 0, 3 and 9"),
        ({"epsilon": 0.0}, "epsilon must be a number more than 0, got 0.0"),
        ({"epsilon": float("inf")}, "epsilon must be a number more than 0, got inf"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        _coder(**settings)


def test_other_wirings_are_refused() -> None:
    with pytest.raises(UserError, match="one site that it reads and writes, got a transcoder"):
        Temporal(TemporalConfig(), Wiring.transcoder(Port("a", 5), Port("b", 5)))
