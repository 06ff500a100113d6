"""Small coders in float64 as they might be in the middle of training, rows for them, and plain losses to compare."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from unweave.coders import Moment, Port, SparseCoder, Wiring, architecture, trainable_architectures
from unweave.errors import UserError

Make = Callable[..., SparseCoder]
At = Callable[..., Moment]
Check = Callable[..., None]
Selection = Callable[..., Tensor]

N_ROWS, N_LATENTS, WIDTH = 100, 63, 7

WIRINGS = {
    "sae": Wiring.sae(WIDTH),
    "transcoder": Wiring.transcoder(Port("in", WIDTH), Port("out", 5)),
    "skip_transcoder": Wiring.transcoder(Port("in", WIDTH), Port("out", WIDTH), skip=True),
    "crosscoder": Wiring.crosscoder(Port("first", 3), Port("second", 5)),
}

SMALL = {"k": 7, "k_aux": 20, "n_experts": 3, "n_p": 3, "n_q": 3, "bandwidth": 0.5}
"""Settings for 63 latents, for those architectures that have them."""
K_AUX = 4
"""Of coders that are compared with plain AuxK, so that most dead latents are left out of a row."""


class Case(NamedTuple):
    """A coder and rows for it."""

    coder: SparseCoder
    x: Tensor
    y: Tensor


def variants(name: str) -> list[dict[str, Any]]:
    """The published forms of an architecture, as settings."""
    hints = get_type_hints(architecture(name).Config)
    return [{"variant": variant} for variant in get_args(hints["variant"])] if "variant" in hints else [{}]


FORMS = {
    "-".join([name, *form.values()]): (name, form)
    for name in sorted(trainable_architectures())
    for form in variants(name)
}


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


@pytest.fixture(params=FORMS)
def case(request: pytest.FixtureRequest, wiring: Wiring) -> Case:
    """Every form of every architecture in every wiring; skipped where the architecture refuses the wiring."""
    try:
        made, random_state = _made(request.param, wiring)
    except UserError as error:
        assert wiring.kind != "sae", f"{request.param} refuses to be an SAE"
        pytest.skip(str(error))
    torch.set_rng_state(random_state)
    return deepcopy(made)


@cache
def _made(form: str, wiring: Wiring) -> tuple[Case, Tensor]:
    """A case to copy, and the state of random numbers behind it."""
    torch.default_generator.manual_seed(7)
    name, settings = FORMS[form]
    x, y = rows_for(wiring)
    coder = build(name, wiring, settings, x, y)
    coder.loss(x, y, moment())  # thresholds that follow training have moved
    return Case(coder, x, y), torch.get_rng_state()


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


def linear(p: dict[str, Tensor], rows: Tensor) -> Tensor:
    """The pre-activations of most architectures."""
    return rows @ p["W_enc"].T + p["b_enc"]


@pytest.fixture(params=[0, 1, 20, N_LATENTS], ids="{} dead".format)
def agree_with_aux(request: pytest.FixtureRequest, agree: Callable[..., None], x: Tensor) -> Callable[..., None]:
    """Fails where a coder's losses or gradients are not those of plain latents, with AuxK for any number of dead ones.

    ``latents`` makes of pre-activations a list of dense matrices, one for each reconstruction whose squared errors are
    averaged; the last is what is written.
    """

    def check(
        coder: SparseCoder,
        latents: Callable[[Tensor], list[Tensor]],
        y: Tensor = x,
        *,
        centre: bool = True,
        signed: bool = False,
        error: str = "mse",
        read: Callable[[dict[str, Tensor], Tensor], Tensor] = linear,
        decoder: Callable[[dict[str, Tensor]], Tensor] = lambda p: p["W_dec"],
    ) -> None:
        dead = torch.randperm(N_LATENTS)[: request.param].sort().values

        def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
            W_dec, b_dec = decoder(p), p["b_dec"]
            rest = b_dec + x @ p["W_skip"].T if "W_skip" in p else b_dec
            written = [f @ W_dec + rest for f in latents(read(p, x - b_dec if centre else x))]
            losses = {error: torch.stack([((y - y_hat) ** 2).sum(1).mean() for y_hat in written]).mean()}
            if len(dead):
                pre = read(p, x - b_dec.detach() if centre else x)[:, dead]
                losses["aux"] = _aux(largest_of_rows(pre, K_AUX, signed=signed) @ W_dec[dead], y, written[-1])
            return losses

        agree(coder, x, y, moment(*dead.tolist()), plain)

    return check


def _aux(e_hat: Tensor, y: Tensor, y_hat: Tensor) -> Tensor:
    """What dead latents write for the error of the others, as a share of it, times the variance of y."""
    e = (y - y_hat).detach()
    share = ((e - e_hat) ** 2).sum() / ((e - e.mean(0)) ** 2).sum()
    return share * ((y - y.mean(0)) ** 2).sum() / len(y) / 32


@pytest.fixture
def top_k() -> Callable[..., Tensor]:
    """A matrix in which only the k largest positive entries of each row (signed: the largest magnitudes) are left."""
    return largest_of_rows


@pytest.fixture
def top_of_all() -> Callable[[Tensor, int], Tensor]:
    """A matrix in which only the n largest positive entries of all rows are left."""
    return lambda pre, n: largest_of_rows(pre.reshape(1, -1), n).view_as(pre)


def largest_of_rows(pre: Tensor, k: int, *, signed: bool = False) -> Tensor:
    size = pre.detach().abs() if signed else pre.detach()
    largest = size.argsort(dim=1, descending=True, stable=True)[:, :k]
    return pre * torch.zeros_like(size).scatter(1, largest, 1.0) * (size > 0)


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
