"""The other optimizers against torch's and against signs worked by hand; decoder rows and refusals hold for all."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training import runs
from tests.training.test_optimizer import _coder, _give, _gradients
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.training.config import TrainingConfig
from unweave.training.loop import finish, new_trainee
from unweave.training.muon import orthogonal
from unweave.training.optimizer import CoderOptimizer
from unweave.training.trainee import Trainee

LR, BETAS, DECAY = 0.02, (0.9, 0.99), 0.3
NEW: list[dict[str, Any]] = [
    {"optimizer": "adamw", "weight_decay": DECAY, "beta2": 0.99},
    {"optimizer": "sign_sgd"},
    {"optimizer": "muon", "beta2": 0.99},
]
IDS = [settings["optimizer"] for settings in NEW]


def _optimizer(coder: SparseCoder, settings: dict[str, Any]) -> CoderOptimizer:
    return Trainee("a", coder, TrainingConfig(**settings), [], []).optimizer


def _twins(decoder_norm: str) -> tuple[SparseCoder, SparseCoder]:
    torch.manual_seed(7)
    ours = _coder(decoder_norm)
    torch.manual_seed(7)
    return ours, _coder(decoder_norm)


def _to_unit_rows(W_dec: Tensor) -> None:
    with torch.no_grad():
        W_dec /= W_dec.norm(dim=1, keepdim=True)


def _projected(W_dec: Tensor) -> None:
    assert W_dec.grad is not None
    W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec.detach()


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_adamw_is_that_of_torch(clip: float) -> None:
    ours, plain = _twins("free")
    optimizer = _optimizer(ours, NEW[0])
    adamw = torch.optim.AdamW(plain.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY)
    for _ in range(20):
        gradients = _gradients(ours, 1.0)
        _give(ours, gradients), _give(plain, gradients)
        optimizer.step(LR, clip)
        torch.nn.utils.clip_grad_norm_(plain.parameters(), clip or math.inf)
        adamw.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_decoder_rows_of_unit_norm_are_not_decayed() -> None:
    ours, plain = _twins("unit")
    optimizer, adam = _optimizer(ours, NEW[0]), _optimizer(plain, {"beta2": 0.99})
    for _ in range(5):
        gradients = _gradients(ours, 1.0)
        _give(ours, gradients), _give(plain, gradients)
        optimizer.step(LR, 0.0), adam.step(LR, 0.0)
    assert torch.equal(ours.W_dec, plain.W_dec)
    assert (ours.W_enc.abs().sum() < plain.W_enc.abs().sum()).item()


@pytest.mark.parametrize("decoder_norm", ["free", "unit"])
def test_sign_sgd_moves_every_number_by_the_rate_and_remembers_nothing(decoder_norm: str) -> None:
    ours, plain = _twins(decoder_norm)
    optimizer = _optimizer(ours, NEW[1])
    for _ in range(3):
        gradients = _gradients(ours, 1.0)
        gradients["W_enc"][7] = 0.0
        _give(ours, gradients), _give(plain, gradients)
        optimizer.step(LR, 1.0)
        if decoder_norm == "unit":
            _projected(plain.W_dec)
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter -= LR * parameter.grad.sign()
        if decoder_norm == "unit":
            _to_unit_rows(plain.W_dec)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert torch.equal(ours.W_enc[7], _twins(decoder_norm)[0].W_enc[7]), "where there is no gradient, nothing moves"
    assert optimizer.state().keys() == {"n_steps"}


@pytest.mark.parametrize("decoder_norm", ["free", "unit"])
def test_muon_is_that_of_torch_for_matrices_and_adam_for_the_rest(decoder_norm: str) -> None:
    ours, plain = _twins(decoder_norm)
    optimizer = _optimizer(ours, NEW[2])
    matrices = [p for p in plain.parameters() if p.ndim == 2]
    settings = {"lr": LR, "momentum": 0.9, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}
    muon = torch.optim.Muon(matrices, **settings)
    adam = torch.optim.Adam([p for p in plain.parameters() if p.ndim != 2], lr=LR, betas=BETAS)
    assert len(matrices) == 3
    for _ in range(10):
        gradients = _gradients(ours, 0.01)
        _give(ours, gradients), _give(plain, gradients)
        optimizer.step(LR, 0.0)
        if decoder_norm == "unit":
            _projected(plain.W_dec)
        muon.step(), adam.step()
        if decoder_norm == "unit":
            _to_unit_rows(plain.W_dec)
    for (name, a), b in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("shape", [(63, 7), (7, 63), (7, 7), (1, 9)])
def test_orthogonalisation_keeps_singular_vectors_and_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, dtype=torch.float64) * 1e3
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ orthogonal(matrix).double() @ right.T
    found = inside.diagonal()
    assert values[0] / values[-1] > 1 or shape[0] == 1
    assert (found > 0.5).all() and (found < 1.3).all(), found
    torch.testing.assert_close(inside, found.diag(), rtol=0, atol=0.05)


def test_muon_leaves_rows_alone_that_never_had_a_gradient() -> None:
    coder = _coder()
    optimizer, before = _optimizer(coder, NEW[2]), coder.W_enc.detach().clone()
    gradients = _gradients(coder, 1.0)
    gradients["W_enc"][[3, 62]] = 0.0
    _give(coder, gradients)
    optimizer.step(LR, 1.0)
    still = (coder.W_enc == before).all(1).nonzero().flatten()
    assert still.tolist() == [3, 62]


@pytest.mark.parametrize("settings", NEW, ids=IDS)
@pytest.mark.parametrize("decoder_norm", ["unit", "at_most_one", "free"])
def test_decoder_rows_keep_their_norm(settings: dict[str, Any], decoder_norm: str) -> None:
    coder = _coder(decoder_norm)
    optimizer = _optimizer(coder, settings)
    for _ in range(20):
        _give(coder, _gradients(coder, 1.0))
        optimizer.step(0.1, 1.0)
    lengths = coder.W_dec.norm(dim=1)
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-9) == (decoder_norm == "unit")
    assert (lengths <= 1 + 1e-9).all() == (decoder_norm != "free")


@pytest.mark.parametrize("settings", NEW, ids=IDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_a_gradient_that_is_not_finite_changes_nothing_but_the_count_of_steps(
    bad: float, settings: dict[str, Any]
) -> None:
    coder = _coder()
    optimizer = _optimizer(coder, settings)
    _give(coder, _gradients(coder, 1.0))
    optimizer.step(LR, 1.0)
    for name in dict(coder.named_parameters()):
        before = {key: tensor.clone() for key, tensor in (coder.state_dict() | optimizer.state()).items()}
        gradients = _gradients(coder, 1.0)
        gradients[name].view(-1)[5] = bad
        _give(coder, gradients)
        assert not optimizer.step(LR, 1.0).isfinite()
        for key, tensor in (coder.state_dict() | optimizer.state()).items():
            assert torch.equal(tensor, before[key]) == (key != "n_steps"), (name, key)


@pytest.mark.parametrize("settings", [*NEW, {"optimizer": "adam"}], ids=[*IDS, "adam"])
def test_sixty_steps_learn_in_single_and_in_half_precision(settings: dict[str, Any]) -> None:
    lr = 5e-3 if settings["optimizer"] == "sign_sgd" else 2e-2
    decay = {"weight_decay": 1e-3} if "weight_decay" in settings else {}
    for dtype in (torch.float32, torch.bfloat16):
        config = TrainingConfig(**{**vars(runs.CONFIG), "lr": lr} | settings | decay)
        sample = {site: rows.to(dtype) for site, rows in runs.sample().items()}
        trainee = new_trainee("a", runs.new_coder().to(dtype), sample, config)
        figures = runs.run(trainee, config=config)[-1].metrics["a"]
        assert figures["explained_variance"] > 0.7, (dtype, figures)
        assert finish(trainee).W_dec.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_decay": 0.1}, r'weight_decay needs training\.optimizer="adamw", got "adam"'),
        ({"weight_decay": -0.1}, r"weight_decay must not be negative"),
        ({"optimizer": "adamw"}, r"needs training\.weight_decay above 0"),
        ({"optimizer": "sign_sgd", "beta1": 0.5}, r'beta1=0\.5 has no effect with training\.optimizer="sign_sgd"'),
        ({"optimizer": "sign_sgd", "beta2": 0.5}, r"beta2=0\.5 has no effect"),
        ({"optimizer": "sign_sgd", "clip": 0.0}, r"clip=0\.0 has no effect"),
    ],
)
def test_settings_that_an_optimizer_does_not_read_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainingConfig(**settings)
