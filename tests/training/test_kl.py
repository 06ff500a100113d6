"""KL of next-token distributions agrees with torch's own, in value and gradient, at any places and precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unweave.training.kl import kl_divergence

N, T, V = 3, 7, 63


def _logits(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(63)
    clean, spliced = (4 * torch.randn(N, T, V, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    return clean, spliced.requires_grad_()


def _content() -> Tensor:
    """All of one text, some of another, one token of the last."""
    is_content = torch.zeros(N, T, dtype=torch.bool)
    is_content[0] = True
    is_content[1, [1, 2, 5]] = True
    is_content[2, 6] = True
    return is_content


def _plain(clean: Tensor, spliced: Tensor, is_content: Tensor) -> Tensor:
    log_p, log_q = clean[is_content].log_softmax(-1), spliced[is_content].log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def test_value_and_gradient_are_those_of_torch() -> None:
    clean, spliced = _logits()
    (3.0 * kl_divergence(clean, spliced, _content())).backward()
    ours, spliced.grad = spliced.grad, None
    expected = _plain(clean, spliced, _content())
    (3.0 * expected).backward()
    assert ours is not None and spliced.grad is not None
    torch.testing.assert_close(kl_divergence(clean, spliced, _content()), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours, spliced.grad, rtol=1e-12, atol=1e-15)
    assert not ours[~_content()].any()


def test_the_same_logits_have_no_divergence() -> None:
    clean, _ = _logits()
    assert kl_divergence(clean, clean.clone(), _content()) == 0


def test_a_shift_of_all_logits_changes_nothing() -> None:
    clean, spliced = _logits()
    shifted = kl_divergence(clean + 100, spliced - 7, _content())
    torch.testing.assert_close(shifted, kl_divergence(clean, spliced, _content()), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_logits_of_a_lower_precision_are_widened(dtype: torch.dtype) -> None:
    clean, spliced = _logits(dtype)
    divergence = kl_divergence(clean, spliced, _content())
    divergence.backward()
    assert divergence.dtype == torch.float32
    assert spliced.grad is not None and spliced.grad.dtype == dtype
    torch.testing.assert_close(divergence.double(), _plain(clean.double(), spliced.double(), _content()))
