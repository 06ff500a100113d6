"""Run a model again on the same tokens from a block on: what the blocks before it did is not done anew.

A pass with edits is the clean pass up to the first edit. So the output of the last block before that is kept from the
clean pass, and in later passes the blocks up to there return it without running. The rest runs as always, on the same
tensors, so the results are the same bit for bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from unweave.models.language_model import LanguageModel


class Prefix(NamedTuple):
    """The blocks that need not run again, and what the last of them returned."""

    blocks: tuple[str, ...]
    output: Any


@contextmanager
def keeping_prefix(model: LanguageModel, sites: Sequence[str]) -> Iterator[list[Prefix]]:
    """The prefix in front of the first of some sites, of the pass that is made within the block.

    The list that is given stays empty where nothing can be left out.
    """
    kept: list[Prefix] = []
    blocks = _blocks_before(model, sites)
    if not blocks:
        yield kept
        return

    def keep(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        kept[:] = [Prefix(blocks, output)]

    handle = model.model.get_submodule(blocks[-1]).register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


@contextmanager
def after_prefix(model: LanguageModel, prefix: Sequence[Prefix]) -> Iterator[None]:
    """Passes within the block, which must be on the same tokens, begin behind the prefix, if there is one."""
    modules = [model.model.get_submodule(path) for kept in prefix for path in kept.blocks]
    before = [module.__dict__.get("forward") for module in modules]
    try:
        for kept in prefix:
            for module in modules:
                module.forward = _returning(kept.output)
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.forward = forward


def _returning(output: Any) -> Any:
    return lambda *args, **kwargs: output


def _blocks_before(model: LanguageModel, sites: Sequence[str]) -> tuple[str, ...]:
    """The paths of the blocks that do the same whatever is edited at the sites."""
    points = model.sites.layout.blocks
    paths = [block["resid_pre"].module for block in points]
    resolved = [model.sites.resolve(name) for name in sites]
    if not resolved or not all(site.block in paths for site in resolved):
        return ()
    first = min(paths.index(site.block) for site in resolved)
    at_its_end = all(s.side == "out" and s.module == s.block for s in resolved if s.block == paths[first])
    last = first if at_its_end else first - 1
    if last < 0 or points[last]["resid_post"].is_overwritten:
        return ()
    return tuple(paths[: last + 1])
