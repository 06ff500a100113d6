"""A training step must not wait for the GPU: no operation of it may need a number that lives there.

What waits on a GPU is known by name on a CPU too, so a step of every architecture runs here through Triton's
interpreter, while each operation that reaches torch is looked at. It also ends where that of the path for CPUs ends.
"""

from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unweave.coders import Moment, SparseCoder, Wiring, architecture, trainable_architectures
from unweave.kernels import device
from unweave.kernels.selection import Above, select
from unweave.training.dead_latents import DeadLatents
from unweave.training.optimizer import CoderAdam

WAITS = {
    "_local_scalar_dense": "reads a number",
    "nonzero": "asks how many are not 0",
    "masked_select": "asks how many are marked",
    "bincount": "asks for the largest",
    "_unique": "asks how many differ",
    "_unique2": "asks how many differ",
    "unique_dim": "asks how many differ",
    "unique_consecutive": "asks how many differ",
    "equal": "reads whether it is so",
    "is_nonzero": "reads a number",
    "lift_fresh": "copies Python's numbers to the device",
}


class Waits(TorchDispatchMode):
    """Raises, or counts, where an operation would wait for a GPU."""

    def __init__(self, *, raises: bool = True) -> None:
        super().__init__()
        self.raises = raises
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        reason = WAITS.get(name)
        if name in ("index", "index_put", "index_put_", "_index_put_impl_") and _has_mask(args[1]):
            reason = "asks how many are marked"
        if name == "repeat_interleave" and kwargs.get("output_size") is None:
            reason = "asks how many there will be"
        if reason is not None:
            self.n += 1
            assert not self.raises, f"{func} would wait for the GPU: it {reason}"
        return func(*args, **kwargs)


def _has_mask(indices: Any) -> bool:
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)


N_LATENTS = 27
SMALL = {"k": 9, "k_aux": 3, "n_experts": 3, "n_p": 3, "n_q": 3, "bandwidth": 0.5}
"""Settings for so many latents, for those architectures that have them."""
NEVER_WAIT = {"topk", "batch_topk", "group_max", "abs_topk", "archetypal"}
STEPS = [(name, {}, True) for name in sorted(trainable_architectures())]
STEPS += [("topk", {"multi_k": 2}, True), ("topk", {}, False), ("batch_topk", {}, False)]


def _coder(name: str, settings: dict[str, Any]) -> SparseCoder:
    """In float64, with so few positive pre-activations that there are explicit zeros."""
    torch.manual_seed(7)
    cls = architecture(name)
    hints = get_type_hints(cls.Config)
    small = {key: float(value) if hints[key] is float else value for key, value in SMALL.items() if key in hints}
    coder = cls(cls.Config(n_latents=N_LATENTS, **small, **settings), Wiring.sae(9)).double()
    rows = torch.randn(7, 9, dtype=torch.float64)
    coder.start_from(rows, rows)
    with torch.no_grad():
        for key, parameter in coder.named_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
            if key in ("b_enc", "b_p", "b_q"):
                parameter.sub_(0.3)
    return coder


def _step(coder: SparseCoder, rows: Tensor, dead: Tensor) -> CoderAdam:
    torch.manual_seed(7)
    optimizer = CoderAdam(coder, (0.9, 0.999))
    step = coder.loss(rows, rows, Moment(0.5, dead))
    torch.stack(list(step.losses.values())).sum().backward()
    optimizer.step(1e-2, 0.5 if len(dead) else 0.0)
    DeadLatents(N_LATENTS, 1000, rows.device).update(step.codes)
    return optimizer


@pytest.mark.parametrize(("name", "settings", "has_dead"), STEPS)
def test_a_training_step_is_that_of_a_cpu_and_does_not_wait(
    name: str, settings: dict[str, Any], has_dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An architecture that selects by a threshold waits, once for each of its selections."""
    rows = torch.randn(7, 9, dtype=torch.float64)
    dead = torch.tensor([0, 3, 7, 20, 26] if has_dead else [], dtype=torch.int64)
    ours, plain = _coder(name, settings), _coder(name, settings).cpu()
    with Waits(raises=name in NEVER_WAIT):
        moments = _step(ours, rows, dead).moments
    monkeypatch.setattr(device, "GPUS", set())
    expected = _step(plain, rows.cpu(), dead.cpu()).moments
    assert all(moment.mean.any() for moment in expected.values()), "no gradient, nothing to compare"
    for key, moment in moments.items():  # a tenth of the gradients; weights of a first step know only their signs
        torch.testing.assert_close(moment.mean.cpu(), expected[key].mean, rtol=1e-6, atol=1e-9)
    for (key, one), other in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-5, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")


def test_a_selection_by_threshold_waits_once() -> None:
    pre = torch.randn(7, 63)
    with Waits(raises=False) as waits:
        select(pre, Above(0.5))
    assert waits.n == 1


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x[x > 0],
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x.long().abs().bincount(),
        lambda x: x.unique(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.index_put((x > 0,), x[0]),
        lambda x: torch.tensor([1.0, 2.0]),
        lambda x: x.repeat_interleave(x.long().abs()),
    ],
    ids=["mask", "item", "nonzero", "bincount", "unique", "bool", "put by mask", "new tensor", "repeat"],
)
def test_the_guard_sees_what_waits(operation: Callable[[Tensor], object]) -> None:
    with Waits(), pytest.raises(AssertionError, match="would wait"):
        operation(torch.ones(7))
