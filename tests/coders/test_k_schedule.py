"""k falls from where it is told to start, in every architecture that has the setting, and only in training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Moment, SparseCoder, architecture, architectures
from unweave.coders.k_schedule import FallingKConfig, k_at, whole_k_at
from unweave.coders.topk import TopKConfig
from unweave.errors import UserError

FALLING = [name for name, cls in architectures().items() if issubclass(cls.Config, FallingKConfig)]
At = Callable[..., Moment]


def test_which_architectures_have_it() -> None:
    assert FALLING == ["abs_topk", "archetypal", "batch_topk", "hierarchical_topk", "kron", "matryoshka", "topk"]


@pytest.mark.parametrize(
    ("progress", "k"), [(0.0, 63), (0.1, 49), (0.2, 35), (0.21, 33.6), (0.3, 21), (0.4, 7), (0.7, 7), (1.0, 7)]
)
def test_k_falls_linearly_over_its_share(progress: float, k: float) -> None:
    config = TopKConfig(n_latents=100, k=7, k_start=63, k_share=0.4)
    assert k_at(config, progress) == pytest.approx(k)
    assert whole_k_at(config, progress) == round(k)


def test_without_a_start_k_is_what_it_is() -> None:
    config = TopKConfig(n_latents=100, k=7)
    assert (k_at(config, 0.0), config.k_start, config.k_share) == (7, None, None)


def test_a_tenth_of_the_run_is_the_default() -> None:
    assert TopKConfig(n_latents=100, k=7, k_start=63).k_share == 0.1


@pytest.mark.parametrize("name", FALLING)
def test_training_has_the_k_of_the_moment_and_use_the_last(
    name: str, make_coder: Callable[..., SparseCoder], x: Tensor, at: At
) -> None:
    falling = make_coder(name, k_start=21, k_share=0.5)
    torch.manual_seed(7)
    for progress, k in [(0.0, 21), (0.25, 14), (0.5, 7), (1.0, 7)]:
        plain = _with_k(falling, k)
        ours, theirs = (coder.loss(x, x, at(progress=progress)) for coder in (falling, plain))
        assert torch.equal(ours.codes.values, theirs.codes.values), progress
        assert torch.equal(ours.reconstruction, theirs.reconstruction)
        assert ours.losses.keys() == theirs.losses.keys()
        for key, loss in ours.losses.items():
            assert torch.equal(loss, theirs.losses[key])
        torch.stack(list(ours.losses.values())).sum().backward()
    plain = _with_k(falling, 7)
    assert torch.equal(falling.encode(x).values, plain.encode(x).values)


def _with_k(coder: SparseCoder, k: int) -> SparseCoder:
    """The same weights in a coder whose k is always this."""
    kind = type(coder.config.k)  # type: ignore[attr-defined]
    plain = type(coder)(type(coder).Config(**vars(coder.config) | _always(kind(k))), coder.wiring).double()
    plain.load_state_dict(coder.state_dict())
    return plain


def _always(k: int | float) -> dict[str, Any]:
    return {"k": k, "k_start": None, "k_share": None}


def test_multi_topk_has_a_multiple_of_the_k_of_the_moment(
    make_coder: Callable[..., SparseCoder], x: Tensor, at: At
) -> None:
    coder = make_coder("topk", k=3, multi_k=2, k_start=9, k_share=0.5)
    for progress, k in [(0.0, 9), (1.0, 3)]:
        plain = _with_k(coder, k)
        losses, expected = (c.loss(x, x, at(progress=progress)).losses for c in (coder, plain))
        assert torch.equal(losses["multi"], expected["multi"])


def test_the_falling_k_is_a_budget_beside_those_given(
    make_coder: Callable[..., SparseCoder], x: Tensor, at: At
) -> None:
    coder = make_coder("hierarchical_topk", k=7, budgets=(1, 7), k_start=21, k_share=1.0)
    plain = architecture("hierarchical_topk")
    wide = plain(plain.Config(**vars(coder.config) | _always(14) | {"budgets": (1, 7, 14)}), coder.wiring).double()
    wide.load_state_dict(coder.state_dict())
    ours, theirs = (c.loss(x, x, at(progress=0.5)).losses["prefix_mse"] for c in (coder, wide))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k_share": 0.3}, r"coder\.k_share=0\.3 has no effect without coder\.k_start"),
        ({"k_start": 7}, r"k_start needs k < k_start <= n_latents, got k_start=7 with k=7 and n_latents=63"),
        ({"k_start": 64}, r"k_start=64"),
        ({"k_start": 9, "k_share": 0.0}, r"coder\.k_share is a share of the run in \(0, 1\], got 0\.0"),
        ({"k_start": 9, "k_share": 1.1}, r"coder\.k_share"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TopKConfig(n_latents=63, k=7, **settings)
