"""Small coders in float64 as they might be in the middle of training, rows for them, and plain losses to compare."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from unweave.coders import Moment, Port, SparseCoder, Wiring, architecture, architectures
from unweave.errors import UserError

N_ROWS, N_LATENTS, WIDTH = 100, 63, 7

WIRINGS = {
    "sae": Wiring.sae(WIDTH),
    "transcoder": Wiring.transcoder(Port("in", WIDTH), Port("out", 5)),
    "skip_transcoder": Wiring.transcoder(Port("in", WIDTH), Port("out", WIDTH), skip=True),
    "crosscoder": Wiring.crosscoder(Port("first", 3), Port("second", 5)),
}

SMALL = {"k": 7, "k_aux": 20, "n_experts": 3, "n_p": 3, "n_q": 3, "bandwidth": 0.5}
"""Settings for 63 latents, for those architectures that have them."""


class Case(NamedTuple):
    """A coder and rows for it."""

    coder: SparseCoder
    x: Tensor
    y: Tensor


def variants(name: str) -> list[dict[str, Any]]:
    """The published forms of an architecture, as settings."""
    hints = get_type_hints(architecture(name).Config)
    return [{"variant": variant} for variant in get_args(hints["variant"])] if "variant" in hints else [{}]


FORMS = [(name, settings) for name in sorted(architectures()) for settings in variants(name)]
FORM_IDS = ["-".join([name, *settings.values()]) for name, settings in FORMS]


def rows_for(wiring: Wiring, n_rows: int = N_ROWS) -> tuple[Tensor, Tensor]:
    """What a coder reads and what it is to write, off centre."""
    x = torch.randn(n_rows, wiring.d_read, dtype=torch.float64) + 0.5
    return x, x if wiring.writes_what_it_reads else torch.randn(n_rows, wiring.d_write, dtype=torch.float64) - 0.3


def stir(coder: SparseCoder) -> SparseCoder:
    """Move every parameter somewhere else; some latents become so quiet that they are never among the largest."""
    with torch.no_grad():
        for name, parameter in coder.named_parameters():
            if name.startswith(("W_enc", "W_dec", "W_p", "W_q")):
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
        coder.b_dec.add_(torch.randn_like(coder.b_dec))
        if coder.config.decoder_norm == "unit":
            coder.W_dec.div_(coder.W_dec.norm(dim=1, keepdim=True))
        if "W_enc" in dict(coder.named_parameters()):
            coder.W_enc[::9] *= 0.01
            coder.b_enc[::9] = 0.01
    return coder


def build(name: str, wiring: Wiring, settings: Mapping[str, Any], x: Tensor, y: Tensor) -> SparseCoder:
    """A small coder in float64 that started from these rows and was moved from there."""
    cls = architecture(name)
    hints = get_type_hints(cls.Config)
    small = {key: float(value) if hints[key] is float else value for key, value in SMALL.items() if key in hints}
    coder = cls(cls.Config(**{"n_latents": N_LATENTS} | small | dict(settings)), wiring).double()
    coder.start_from(x, y)
    return stir(coder)


@pytest.fixture
def make_coder() -> Callable[..., SparseCoder]:
    """A stirred coder of an architecture, by name; rows only matter where a start depends on them."""

    def make(name: str, wiring: Wiring = WIRINGS["sae"], **settings: Any) -> SparseCoder:
        return build(name, wiring, settings, *rows_for(wiring))

    return make


@pytest.fixture
def x() -> Tensor:
    return rows_for(WIRINGS["sae"])[0]


@pytest.fixture(params=sorted(WIRINGS))
def wiring(request: pytest.FixtureRequest) -> Wiring:
    return WIRINGS[request.param]


@pytest.fixture(params=FORMS, ids=FORM_IDS)
def case(request: pytest.FixtureRequest, wiring: Wiring) -> Case:
    """Every form of every architecture in every wiring; skipped where the architecture refuses the wiring."""
    name, settings = request.param
    x, y = rows_for(wiring)
    try:
        coder = build(name, wiring, settings, x, y)
    except UserError as error:
        assert wiring.kind != "sae", f"{name} refuses to be an SAE"
        pytest.skip(str(error))
    coder.loss(x, y, moment())  # thresholds that follow training have moved
    return Case(coder, x, y)


def moment(*dead: int, progress: float = 0.5) -> Moment:
    return Moment(progress, torch.tensor(sorted(dead), dtype=torch.int64))


@pytest.fixture
def at() -> Callable[..., Moment]:
    """A moment of training: the ids of its dead latents, and its progress."""
    return moment


@pytest.fixture
def agree() -> Callable[..., None]:
    """Fails where a coder's losses or gradients are not those of a plain function of its parameters."""

    def check(
        coder: SparseCoder,
        x: Tensor,
        y: Tensor,
        when: Moment,
        plain: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        tolerance: float = 1e-12,
    ) -> None:
        leaves = {name: p.detach().clone().requires_grad_() for name, p in coder.named_parameters()}
        expected = plain(leaves)
        torch.stack(list(expected.values())).sum().backward()
        coder.zero_grad()
        losses = coder.loss(x, y, when).losses
        torch.stack(list(losses.values())).sum().backward()
        assert losses.keys() == expected.keys()
        for name, loss in losses.items():
            torch.testing.assert_close(
                loss, expected[name], rtol=tolerance, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}"
            )
        for name, parameter in coder.named_parameters():
            ours, theirs = _gradient(parameter), _gradient(leaves[name])
            largest = theirs.abs().max().item()
            torch.testing.assert_close(
                ours, theirs, rtol=0, atol=tolerance * max(largest, 1.0), msg=lambda m, n=name: f"{n}: {m}"
            )

    return check


@pytest.fixture
def plain_aux() -> Callable[..., Tensor]:
    """AuxK by its formulas, with dense matrices: x, y, what was written, the error's dead latents, k, weight."""

    def aux(
        leaves: dict[str, Tensor],
        x: Tensor,
        y: Tensor,
        y_hat: Tensor,
        dead: Tensor,
        k: int,
        *,
        centred: bool = True,
        signed: bool = False,
        weight: float = 1 / 32,
    ) -> Tensor:
        pre = (x - leaves["b_dec"].detach() * centred) @ leaves["W_enc"].T + leaves["b_enc"]
        f = largest_of_rows(pre[:, dead], k, signed=signed)
        e = (y - y_hat).detach()
        share = ((e - f @ leaves["W_dec"][dead]) ** 2).sum() / ((e - e.mean(0)) ** 2).sum()
        return weight * ((y - y.mean(0)) ** 2).sum() / len(y) * share

    return aux


@pytest.fixture
def top_k() -> Callable[..., Tensor]:
    """A matrix in which only the k largest positive entries of each row (signed: the largest magnitudes) are left."""
    return largest_of_rows


def largest_of_rows(pre: Tensor, k: int, *, signed: bool = False) -> Tensor:
    kept = torch.zeros_like(pre)
    for b, row in enumerate(pre.detach().tolist()):
        size = [abs(value) if signed else value for value in row]
        for value, i in sorted(zip(size, range(len(row)), strict=True), reverse=True)[:k]:
            kept[b, i] = float(value > 0)
    return pre * kept


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
