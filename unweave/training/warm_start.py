"""Start a coder in training as a finished one, whose weights are in the model's units, in the place of random weights.

Folding the inverse of the scaling into the finished coder gives the one that training would have finished so.
"""

from typing import Any

from unweave.coders import Port, SparseCoder
from unweave.coders.folding import Scaling, fold_scaling
from unweave.errors import UserError


def start_at(coder: SparseCoder, finished: SparseCoder, reads: list[Scaling], writes: list[Scaling]) -> None:
    """Give a coder the weights and buffers of a finished one, in units of rows that are scaled like this.

    Raises ``UserError`` where the two would not compute the same.
    """
    kind = _kind(finished)
    if type(finished).settle is not SparseCoder.settle:
        raise UserError(f"a finished {kind} coder lacks what its training needs, so none can start from it")
    came, expected = _facts(finished), _facts(coder)
    for what, value in came.items():
        if value != expected[what]:
            raise UserError(f"the coder to start from has {what} {value}, the recipe asks for {expected[what]}")
    try:
        coder.load_state_dict(finished.state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the coder to start from is of another form of {kind} than the recipe's: {reason}") from error
    fold_scaling(coder, [scaling.inverse for scaling in reads], [scaling.inverse for scaling in writes])


def _facts(coder: SparseCoder) -> dict[str, Any]:
    """What has to agree."""
    return {
        "the type": _kind(coder),
        "n_latents": coder.n_latents,
        "sites to read": _shown(coder.wiring.reads),
        "sites to write": _shown(coder.wiring.writes),
        "skip": coder.wiring.skip,
        "centre": coder.config.centre,
        "decoder_norm": coder.config.decoder_norm,
    }


def _kind(coder: SparseCoder) -> str:
    return type(coder).__module__.rpartition(".")[2]


def _shown(ports: tuple[Port, ...]) -> str:
    return ", ".join(f"{port.site} ({port.width} wide)" for port in ports)
