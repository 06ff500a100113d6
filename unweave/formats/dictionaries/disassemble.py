"""Take a finished coder apart for another library's format, and say plainly what that library cannot hold."""

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.coders.batch_topk import BatchTopK
from unweave.coders.gated import Gated
from unweave.coders.jumprelu import JumpRelu
from unweave.coders.matryoshka import Matryoshka
from unweave.errors import UserError


def architecture_of(coder: SparseCoder) -> str:
    """The name of a coder's architecture."""
    return type(coder).__module__.rpartition(".")[2]


def check_sites(coder: SparseCoder, library: str) -> None:
    """Raise ``UserError`` for a coder of several sites, or of one that nobody named."""
    ports = coder.wiring.reads, coder.wiring.writes
    if max(map(len, ports)) > 1:
        raise cannot_hold(
            library, f"a {coder.wiring.kind} of {len(ports[0])} sites", "one site that is read and written"
        )
    if not all(port.site for group in ports for port in group):
        raise UserError("this coder does not say which site it reads and writes; say so when it is loaded")


def cannot_hold(library: str, what: str, holds: str) -> UserError:
    """The error for what has no place in a library's files."""
    return UserError(f"{library} cannot hold {what}; it holds {holds}; keep it in our own format")


@torch.no_grad()
def encoder_bias(coder: SparseCoder, *, centred: bool) -> Float[Tensor, " L"]:
    """``b_enc`` for a reader that subtracts ``b_dec`` from its input if ``centred``, whether or not the coder does."""
    return coder.b_enc + _shift(coder, centred)


@torch.no_grad()
def magnitude_bias(coder: Gated, *, centred: bool) -> Float[Tensor, " L"]:
    """The same for the bias of a gated coder's magnitudes."""
    return coder.b_mag + coder.r_mag.exp() * _shift(coder, centred)


@torch.no_grad()
def thresholds_of(coder: BatchTopK | JumpRelu | Matryoshka) -> Float[Tensor, " L"]:
    """The number that each pre-activation must pass."""
    if isinstance(coder, JumpRelu):
        return coder.thresholds()
    return coder.threshold.expand(coder.n_latents)


def plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as a file is to hold them: on the CPU, contiguous, and none sharing memory with another."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def model_of(coder: SparseCoder) -> str:
    """The name of the model that a coder belongs to, empty where that is not known."""
    return "" if coder.origin is None else coder.origin.model


def _shift(coder: SparseCoder, centred: bool) -> Tensor | float:
    """What a change of what is subtracted from the input adds to every pre-activation."""
    if coder.config.centre == centred:
        return 0.0
    sign = 1.0 if centred else -1.0
    return (sign * (coder.W_enc.double() @ coder.b_dec.double())).to(coder.b_enc)
