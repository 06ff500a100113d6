"""Wrong shapes fail where a function is called, in what it is given and in what it returns."""

from dataclasses import dataclass

import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation, BeartypeCallHintReturnViolation
from jaxtyping import Float
from torch import Tensor

from tests.shape_checks import checked
from unweave.formats.stdlib_corpus import is_held_out
from unweave.kernels.segment_sum import segment_sum
from unweave.types import Codes


@checked
def doubled(x: Float[Tensor, "B D"], scale: "Float[Tensor, ' B']") -> Float[Tensor, "B D"]:
    """Right, unless the scale is huge."""
    return x * 2 if scale.max() < 100 else (x * 2)[1:]


@checked
@dataclass
class Pair:
    """Two tensors of one size."""

    left: Float[Tensor, " B"]
    right: Float[Tensor, " B"]


def test_functions_and_dataclasses_of_the_package_are_checked() -> None:
    codes = Codes(torch.ones(3), torch.tensor([0, 1, 2]), torch.tensor([0, 3]), 7)
    with pytest.raises(BeartypeCallHintParamViolation):
        segment_sum(codes, torch.ones(3), torch.ones(7))
    with pytest.raises(BeartypeCallHintParamViolation):
        Codes(torch.ones(3), torch.tensor([0, 1]), torch.tensor([0, 3]), 7)
    assert not hasattr(is_held_out, "__wrapped__"), "it has no shapes"


def test_sizes_hold_for_one_call() -> None:
    for n in (3, 5):
        assert doubled(torch.ones(n, 2), torch.ones(n)).shape == (n, 2)
    with pytest.raises(BeartypeCallHintParamViolation):
        doubled(torch.ones(3, 2), torch.ones(5))
    with pytest.raises(BeartypeCallHintReturnViolation):
        doubled(torch.ones(3, 2), torch.full((3,), 100.0))
    with pytest.raises(BeartypeCallHintParamViolation):
        Pair(torch.ones(3), torch.ones(5))
    assert Pair(torch.ones(3), torch.ones(3)).right.shape == (3,)


def test_what_has_no_shapes_is_left_alone() -> None:
    def plain(x: int) -> int:
        return x

    assert checked(plain) is plain
