"""End-to-end losses and their gradients are those of the model unrolled by hand, and they train coders."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training import runs, spliced
from unweave.activations.sequences import CONTENT, TOKENS, sequences
from unweave.coders import Moment, SparseCoder, Wiring, trainable_architectures
from unweave.errors import UserError
from unweave.models.language_model import LanguageModel
from unweave.training.end_to_end import Spliced, clean_passes, streams_behind
from unweave.training.loop import new_trainee, train
from unweave.training.objective import Batch, ObjectiveConfig
from unweave.training.step import NotFinite, take_step
from unweave.training.trainee import Trainee
from unweave.types import TokenBatch

KL = ObjectiveConfig(reconstruction=0.0, kl=1.0)
ALL = ObjectiveConfig(reconstruction=0.7, kl=1.3, downstream=0.4)
BALANCED = ObjectiveConfig(reconstruction=1.0, kl=3.0, balance=True)
CASES = [
    ("sae", "relu", {"input_scale": "whiten"}, ALL),
    ("sae", "relu", {"variant": "april_2024", "l1_coefficient": 0.3}, BALANCED),
    ("sae", "topk", {"k": 5}, KL),
    ("stream", "topk", {"k": 5, "input_scale": "whiten"}, ALL),
    ("first", "relu", {}, ALL),
    ("transcoder", "relu", {"input_scale": "sqrt_width"}, ALL),
    ("transcoder", "topk", {"k": 5}, BALANCED),
    ("skip_transcoder", "relu", {"input_scale": "whiten"}, ALL),
    ("crosscoder", "relu", {"input_scale": "whiten"}, ALL),
    ("crosscoder", "topk", {"k": 5}, KL),
]


@pytest.fixture(scope="module")
def model(gpt2: LanguageModel) -> LanguageModel:
    return spliced.double(gpt2)


def _plain_latents(trainee: Trainee, p: dict[str, Tensor], z: Tensor) -> Tensor:
    pre = (z - p["b_dec"] if trainee.coder.config.centre else z) @ p["W_enc"].T + p["b_enc"]
    if trainee.name == "relu":
        return pre.relu()
    largest = pre.detach().topk(5, dim=1).indices
    return (pre * torch.zeros_like(pre).scatter(1, largest, 1.0)).relu()


def _plain_total(trainee: Trainee, model: LanguageModel, batch: Batch, p: dict[str, Tensor]) -> Tensor:
    """The objective by its formula: dense matrices, the model block by block, torch's own KL."""
    config, wiring, keep = trainee.objective.config, trainee.coder.wiring, batch[CONTENT]
    clean, seen = spliced.unrolled(model, batch[TOKENS], lambda _, x: x)

    def scaled(ports: tuple, scalings: list) -> Tensor:
        parts = []
        for port, s in zip(ports, scalings, strict=True):
            x = seen[port.site][keep] - (0.0 if s.mean is None else s.mean)
            parts.append(x * s.factor if s.matrix is None else x @ s.matrix)
        return torch.cat(parts, dim=1)

    z, target = scaled(wiring.reads, trainee.reads), scaled(wiring.writes, trainee.writes)
    f = _plain_latents(trainee, p, z)
    written = f @ p["W_dec"] + p["b_dec"]
    if "W_skip" in p:
        written = written + z @ p["W_skip"].T
    back = {}
    for port, s, part in zip(
        wiring.writes, trainee.writes, written.split([port.width for port in wiring.writes], 1), strict=True
    ):
        raw = part / s.factor if s.matrix is None else torch.linalg.solve(s.matrix.T, part.T).T
        back[port.site] = raw + (0.0 if s.mean is None else s.mean)

    def put(site: str, x: Tensor) -> Tensor:
        return x.masked_scatter(keep[..., None].expand_as(x), back[site]) if site in back else x

    logits, after = spliced.unrolled(model, batch[TOKENS], put)
    kl = F.kl_div(logits[keep].log_softmax(-1), clean[keep].log_softmax(-1), reduction="batchmean", log_target=True)
    error = ((written - target) ** 2).sum(1).mean()
    total = config.reconstruction * error + config.kl * kl
    if config.balance:
        total = (error + 3.0 * kl * (error / kl).detach()) / 4.0
    if config.downstream:
        deepest = 1 if wiring.writes[-1].site.startswith("layers.1") else 0
        behind = [i for i in range(3) if i > deepest or (i == deepest and "resid_post" not in wiring.writes[-1].site)]
        shares = []
        for i in behind:
            a, a_hat = seen[f"layers.{i}.resid_post"][keep], after[f"layers.{i}.resid_post"][keep]
            shares.append(((a - a_hat) ** 2).sum() / ((a - a.mean(0)) ** 2).sum())
        total = total + config.downstream * sum(shares) / len(shares)
    if trainee.name == "relu":
        norms = sum(part.norm(dim=1) for part in p["W_dec"].split([port.width for port in wiring.writes], 1))
        size = f * norms if trainee.coder.config.variant == "april_2024" else f
        total = total + trainee.coder.config.l1_coefficient * size.sum(1).mean()
    return total


@pytest.mark.parametrize(("wiring", "name", "settings", "objective"), CASES)
def test_loss_and_gradients_are_those_of_the_model_unrolled(
    model: LanguageModel, wiring: str, name: str, settings: dict, objective: ObjectiveConfig
) -> None:
    trainee, batch = spliced.case(model, spliced.SITES[wiring], objective, name, **settings)
    coder = trainee.coder
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    leaves = {key: p.detach().clone().requires_grad_() for key, p in coder.named_parameters()}
    expected = _plain_total(trainee, model, batch, leaves)
    expected.backward()
    step = coder.loss(*trainee.rows(batch), Moment(0.5, trainee.dead.ids))
    ours = trainee.objective.losses(trainee, batch, step)
    ours.total.backward()
    torch.testing.assert_close(ours.total, expected, rtol=1e-9, atol=0)
    for key, parameter in coder.named_parameters():
        largest = leaves[key].grad.abs().max().item()
        assert largest > 0, key
        torch.testing.assert_close(
            parameter.grad, leaves[key].grad, rtol=0, atol=1e-8 * largest, msg=lambda m, k=key: f"{k}: {m}"
        )
    assert all(p.grad is None and not p.requires_grad for p in model.model.parameters())


def test_the_model_unrolled_is_the_model(model: LanguageModel) -> None:
    ids = spliced.tokens(model)[TOKENS]
    logits, seen = spliced.unrolled(model, ids, lambda _, x: x)
    captured = model.capture(ids, list(seen))
    torch.testing.assert_close(logits, model.logits(ids), rtol=1e-10, atol=1e-10)
    for site, x in seen.items():
        torch.testing.assert_close(x, captured[site], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("wiring", ["sae", "stream", "first", "crosscoder"])
def test_a_coder_without_error_has_no_divergence(model: LanguageModel, wiring: str) -> None:
    """Latents come in pairs that read and write an axis and its opposite, so what is written is what was read."""
    wires = spliced.SITES[wiring]
    trainee, batch = spliced.case(model, wires, ALL, n_latents=2 * wires.d_read)
    with torch.no_grad():
        axes = torch.eye(wires.d_read, dtype=torch.float64)
        for weights in (trainee.coder.W_enc, trainee.coder.W_dec):
            weights.copy_(torch.cat([axes, -axes]))
        trainee.coder.b_enc.zero_()
        trainee.coder.b_dec.zero_()
    step = trainee.coder.loss(*trainee.rows(batch), Moment(0.5, trainee.dead.ids))
    terms = trainee.objective.losses(trainee, batch, step).terms
    assert abs(terms["kl"].item()) < 1e-12
    assert terms["downstream"].item() < 1e-24
    assert terms["mse"].item() < 1e-24


def _after_a_step(model: LanguageModel, name: str, accumulate: int, **settings: float) -> tuple[Trainee, dict]:
    config = replace(spliced.CONFIG, accumulate=accumulate)
    objective = ObjectiveConfig(reconstruction=0.5, kl=1.0)
    trainee, batch = spliced.case(model, spliced.SITES["sae"], objective, name, config, **settings)
    return trainee, take_step(trainee, batch, 5, is_logged=True)


@pytest.mark.parametrize(("name", "settings"), [("relu", {}), ("topk", {"k": 5}), ("jumprelu", {})])
@pytest.mark.parametrize("count", [2, 5])
def test_parts_of_a_batch_train_as_the_whole(model: LanguageModel, name: str, settings: dict, count: int) -> None:
    """Sequences hold other numbers of content tokens, so the parts have other weights."""
    whole, figures = _after_a_step(model, name, 1, **settings)
    parts, others = _after_a_step(model, name, count, **settings)
    assert others == pytest.approx(figures, rel=1e-9)
    for a, b in zip(parts.coder.parameters(), whole.coder.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("objective", [KL, BALANCED, ObjectiveConfig(reconstruction=0.0, downstream=1.0)])
def test_what_is_asked_for_falls(gpt2: LanguageModel, objective: ObjectiveConfig) -> None:
    config = replace(spliced.CONFIG, rows=30 * 45)
    trainee, batch = spliced.case(gpt2, spliced.SITES["sae"], objective, "topk", config, k=8)
    reports = list(train([trainee], clean_passes([trainee.objective], [spliced.tokens(gpt2)] * 30), config))
    name = "kl" if objective.kl else "downstream"
    first, last = (report.metrics["topk"][name] for report in (reports[0], reports[-1]))
    assert last < 0.5 * first
    assert [report.rows for report in reports] == [45 * (i + 1) for i in range(30)]
    assert batch[TOKENS].shape == (5, 9)


@pytest.mark.parametrize("name", sorted(trainable_architectures()))
def test_every_architecture_takes_a_step(gpt2: LanguageModel, name: str) -> None:
    objective = ObjectiveConfig(kl=1.0, balance=True, downstream=0.1)
    trainee, batch = spliced.case(gpt2, spliced.SITES["sae"], objective, name, n_latents=96)
    before = trainee.coder.b_dec.detach().clone()
    figures = take_step(trainee, batch, 3, is_logged=True)
    assert not torch.equal(before, trainee.coder.b_dec)
    assert set(trainee.coder.reconstruction_losses) & set(figures)
    assert {"kl", "downstream"} <= set(figures)
    assert not any("mse" in key and key not in trainee.coder.reconstruction_losses for key in figures)


def test_dead_latents_are_resampled_from_content_rows(gpt2: LanguageModel) -> None:
    config = replace(spliced.CONFIG, resample_at=(0.5,), resample_rows=100, dead_window=30)
    trainee, _ = spliced.case(gpt2, spliced.SITES["sae"], KL, "relu", config)
    with torch.no_grad():
        trainee.coder.b_enc[:9] -= 1e3
    stream = runs.Counted(clean_passes([trainee.objective], [spliced.tokens(gpt2)] * 20))
    list(train([trainee], stream, config))
    assert stream.n_taken == 10 + 3
    assert trainee.resampled == 0.5
    assert (trainee.coder.b_enc[:9] > -1.0).all()


def test_coders_of_one_pass_come_out_as_if_alone(gpt2: LanguageModel) -> None:
    def two() -> list[Trainee]:
        wirings = [spliced.SITES["sae"], spliced.SITES["transcoder"]]
        found = [spliced.case(gpt2, wiring, ALL).trainee for wiring in wirings]
        found[1].name = "other"
        return found

    together, alone = two(), two()
    feed = [spliced.tokens(gpt2, seed=i) for i in range(10)]
    list(train(together, clean_passes([t.objective for t in together], feed), spliced.CONFIG))
    for one, twin in zip(alone, together, strict=True):
        list(train([one], clean_passes([one.objective], feed), spliced.CONFIG))
        for a, b in zip(runs.weights_of(one.coder), runs.weights_of(twin.coder), strict=True):
            assert torch.equal(a, b)


def test_rows_are_the_content_tokens_and_massive_ones_are_none(model: LanguageModel) -> None:
    objective = spliced.case(model, spliced.SITES["sae"], KL).trainee.objective
    feed = spliced.tokens(model)
    (whole,), (usual,) = (list(clean_passes([objective], [feed], max_norm=limit)) for limit in (0.0, 1.2))
    site = objective.sites[0]
    captured = model.capture(feed[TOKENS], site)[site]
    assert torch.equal(objective.rows(whole)[site], captured[feed[CONTENT]])
    norms = captured[feed[CONTENT]].norm(dim=1)
    is_usual = norms <= 1.2 * norms.median()
    assert 0 < objective.n_rows(usual) == int(is_usual.sum()) < objective.n_rows(whole) == len(norms)
    assert torch.equal(objective.rows(usual)[site], captured[feed[CONTENT]][is_usual])


def test_sequences_without_content_are_left_out() -> None:
    ids = torch.arange(12).view(3, 4)
    is_content = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]).bool()
    (found,) = sequences([TokenBatch(ids, ids, is_content)])
    assert found.columns[TOKENS].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert found.columns[CONTENT].tolist() == is_content[[0, 2]].tolist()


def test_bad_activations_are_named_with_their_site(gpt2: LanguageModel) -> None:
    trainee, batch = spliced.case(gpt2, spliced.SITES["transcoder"], ALL)
    batch["layers.1.mlp_out"][0, 3] = float("nan")
    n = int(batch[CONTENT].sum())
    with pytest.raises(NotFinite, match=f"activations at layers.1.mlp_out hold NaN or infinity in 1 of {n} rows"):
        take_step(trainee, batch, 3, is_logged=True)


@pytest.mark.parametrize(
    ("writes", "behind"),
    [
        (["layers.0.resid_post"], [1, 2]),
        (["layers.1.resid_pre"], [1, 2]),
        (["layers.2.mlp_out"], [2]),
        (["layers.1.resid_post", "layers.0.attn.z"], [2]),
    ],
)
def test_streams_behind_the_deepest_site_are_compared(
    gpt2: LanguageModel, writes: list[str], behind: list[int]
) -> None:
    assert streams_behind(gpt2, writes) == tuple(f"layers.{i}.resid_post" for i in behind)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("layers.2.resid_post", "objective.downstream has no effect: no block ends behind layers.2.resid_post"),
        ("transformer.ln_f:out", "objective.downstream needs a named site, to know what is behind it, got transformer"),
    ],
)
def test_a_site_with_nothing_behind_it_is_refused(gpt2: LanguageModel, site: str, message: str) -> None:
    coder = runs.new_coder("relu", Wiring.sae(spliced.WIDTH, site))
    with pytest.raises(UserError, match=message):
        Spliced(ALL, gpt2, coder)


def test_gates_need_errors_of_their_own_to_learn(gpt2: LanguageModel) -> None:
    coder: SparseCoder = runs.new_coder("gated", spliced.SITES["sae"])
    with pytest.raises(UserError, match=r"gates learn from its own errors; set objective\.reconstruction above 0"):
        Spliced(KL, gpt2, coder)
    assert new_trainee("gated", coder, {spliced.SITES["sae"].reads[0].site: torch.randn(99, 28)}, spliced.CONFIG)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reconstruction": 0.0}, "objective has no weight above 0: set reconstruction, kl or downstream"),
        ({"reconstruction": 0.5}, r"objective\.reconstruction=0\.5 weighs it against kl and downstream"),
        ({"kl": -1.0}, r"objective\.kl is a weight of at least 0, got -1\.0"),
        ({"downstream": float("nan")}, r"objective\.downstream is a weight of at least 0, got nan"),
        ({"kl": float("inf")}, r"objective\.kl is a weight of at least 0, got inf"),
        ({"balance": True}, r"objective\.balance=true needs objective\.kl and objective\.reconstruction above 0"),
        ({"balance": True, "kl": 1.0, "reconstruction": 0.0}, r"objective\.balance=true needs"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ObjectiveConfig(**settings)
