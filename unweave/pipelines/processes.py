"""The processes that torchrun starts for one job: who is the first, how they meet, and how they part."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from unweave.errors import UserError

if TYPE_CHECKING:
    from unweave.training.ranks import Ranks

_STARTING = timedelta(minutes=10)
"""How long the processes wait for each other before training, when one may have more to load than another."""
APART = timedelta(days=1)
"""How long they wait for each other where each works alone for long; torchrun ends all when one has failed."""
_LOST = "another process has ended or hangs; "
_GO_ON = "go on from the last checkpoint with `unweave train --resume`"


def process_count() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """Which of them this is; number 0 writes and speaks for all."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def joined_ranks(
    latent_parts: int, advice: str = _GO_ON, patience: timedelta | None = None
) -> Iterator["Ranks | None"]:
    """The ranks of this job within the block; None where there is one process.

    ``patience`` is how long they wait for each other within it, a minute where it is not given.

    Raises ``UserError`` where another process has ended or hangs, with ``advice`` on what to do then, and where the
    parts do not fit the processes.
    """
    if process_count() == 1:
        if latent_parts > 1:
            raise UserError(
                f"training.latent_parts={latent_parts} needs as many processes; "
                f"run torchrun --nproc-per-node {latent_parts} -m unweave train ..."
            )
        yield None
        return
    # as many threads for our kernels as torchrun leaves torch; more would wait for each other's cores in every step
    os.environ.setdefault("NUMBA_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    import torch
    import torch.distributed as dist

    from unweave.training.ranks import PATIENCE, Ranks

    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if process_number() == 0:
        signal.signal(signal.SIGTERM, partial(_told_to_end, advice))
    dist.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=_STARTING)
    try:
        yield Ranks(latent_parts, patience or PATIENCE)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise UserError(_LOST + advice) from error


def leave(ranks: "Ranks | None") -> None:
    """The end of what processes do together: the first goes on alone, the others end here."""
    if ranks is None:
        return
    import torch.distributed as dist

    ranks.wait()  # a process that leaves while another still talks to it may crash
    dist.destroy_process_group()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if ranks.rank > 0:
        raise SystemExit(0)


def _told_to_end(advice: str, _: int, __: FrameType | None) -> None:
    """torchrun ends all processes when one has failed."""
    raise UserError(_LOST + advice)
