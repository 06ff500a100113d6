"""The core evaluation on tiny models, against figures worked out by other means."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unweave.activations.harvest import rows_of
from unweave.coders import Port, SparseCoder, Wiring, architecture
from unweave.evals.core import CoreMeasures, Measured
from unweave.models.language_model import LanguageModel
from unweave.types import TokenBatch

SITE, LATER = "layers.1.resid_post", "layers.2.resid_post"
READ, WRITTEN = "layers.1.mlp_in", "layers.1.mlp_out"


def _batches(model: LanguageModel) -> list[TokenBatch]:
    generator = torch.Generator().manual_seed(5)
    batches = []
    for _ in range(3):
        tokens = torch.randint(1, model.n_vocabulary, (4, 9), generator=generator)
        tokens[:, 0] = 0
        batches.append(TokenBatch(tokens, torch.zeros_like(tokens), tokens != 0))
    return batches


def _ports(model: LanguageModel, *sites: str) -> list[Port]:
    return [Port(site, model.width(site)) for site in sites]


def _linear_coder(wiring: Wiring, matrix: Tensor) -> SparseCoder:
    """relu(x) - relu(-x) = x: a real coder that writes ``x @ matrix``, to the last bit where that is the identity."""
    cls = architecture("relu")
    coder = cls(cls.Config(n_latents=2 * wiring.d_read, centre=False), wiring)
    with torch.no_grad():
        coder.W_enc.copy_(torch.cat([torch.eye(wiring.d_read), -torch.eye(wiring.d_read)]))
        coder.W_dec.copy_(torch.cat([matrix, -matrix]))
    return coder.requires_grad_(False)


def _identity_coder(model: LanguageModel, *sites: str) -> SparseCoder:
    wiring = Wiring.crosscoder(*_ports(model, *sites))
    return _linear_coder(wiring, torch.eye(wiring.d_read))


def _zero_coder(model: LanguageModel, *sites: str) -> SparseCoder:
    wiring = Wiring.crosscoder(*_ports(model, *sites))
    return _linear_coder(wiring, torch.zeros(wiring.d_read, wiring.d_read))


def _measured(
    model: LanguageModel, coders: Mapping[str, SparseCoder], means: Mapping[str, Tensor], **options: Any
) -> dict[str, Measured]:
    measures = CoreMeasures(model, coders, means, **options)
    for batch in _batches(model):
        measures.update(batch, splice=True)
    return measures.compute()


def _spliced(model: LanguageModel, coder: SparseCoder, mean: Tensor) -> Measured:
    ports = coder.wiring.writes
    parts = mean.split([port.width for port in ports])
    means = {port.site: part for port, part in zip(ports, parts, strict=True)}
    return _measured(model, {"coder": coder}, means)["coder"]


def _blocks(model: LanguageModel) -> Any:
    return model.model.model.layers if hasattr(model.model, "model") else model.model.transformer.h


def _loss(model: LanguageModel, changes: Mapping[torch.nn.Module, Callable[[Tensor, Tensor], Tensor]]) -> float:
    """By plain hooks that change what modules put out, given what went in; special positions left alone."""
    tokens = torch.cat([batch.token_ids for batch in _batches(model)])
    content = (tokens != 0)[..., None]

    def hook(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
        def overwrite(_: Any, arguments: Any, output: Any) -> Any:
            x = output if isinstance(output, Tensor) else output[0]
            new = torch.where(content, change(arguments[0], x).expand_as(x), x)
            return new if isinstance(output, Tensor) else (new, *output[1:])

        return overwrite

    handles = [module.register_forward_hook(hook(change)) for module, change in changes.items()]
    with torch.no_grad():
        logits = model.model(tokens).logits
    for handle in handles:
        handle.remove()
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).item()


@pytest.mark.parametrize("sites", [(SITE,), (SITE, LATER), (WRITTEN, SITE, "layers.2.attn.z")], ids=len)
def test_the_identity_coder_changes_nothing_at_all(lm: LanguageModel, sites: tuple[str, ...]) -> None:
    coder = _identity_coder(lm, *sites)
    measured = _spliced(lm, coder, torch.ones(coder.wiring.d_write))
    assert measured.figures["ce_spliced"] == measured.figures["ce_clean"]
    assert measured.figures["kl"] == 0.0
    assert measured.figures["loss_recovered_zero"] == 1.0
    assert measured.figures["loss_recovered_mean"] == 1.0


def test_ablations_equal_a_model_whose_site_is_overwritten(lm: LanguageModel) -> None:
    mean = torch.randn(lm.width(SITE))
    figures = _spliced(lm, _zero_coder(lm, SITE), mean).figures
    block = _blocks(lm)[1]
    assert figures["ce_clean"] == pytest.approx(_loss(lm, {}), rel=1e-6)
    assert figures["ce_zero_ablated"] == pytest.approx(_loss(lm, {block: lambda _, x: torch.zeros(1)}), rel=1e-6)
    assert figures["ce_spliced"] == figures["ce_zero_ablated"]
    assert figures["ce_mean_ablated"] == pytest.approx(_loss(lm, {block: lambda _, x: mean}), rel=1e-6)
    assert figures["loss_recovered_zero"] == pytest.approx(0.0, abs=1e-12)


def test_ablating_does_damage_on_a_site_that_matters(lm: LanguageModel) -> None:
    figures = _spliced(lm, _zero_coder(lm, SITE), torch.zeros(lm.width(SITE))).figures
    assert figures["kl"] > 0.01


@pytest.mark.parametrize("path", ["latents", "skip"])
def test_a_transcoder_stands_in_for_the_module_between_its_sites(lm: LanguageModel, path: str) -> None:
    read, written = _ports(lm, READ, WRITTEN)
    matrix, mean = 0.3 * torch.randn(read.width, written.width), torch.randn(written.width)
    if path == "latents":
        coder = _linear_coder(Wiring.transcoder(read, written), matrix)
    else:
        coder = _linear_coder(Wiring.transcoder(read, written, skip=True), torch.zeros_like(matrix))
        assert coder.W_skip is not None
        coder.W_skip.copy_(matrix.T)
    figures = _spliced(lm, coder, mean).figures
    mlp = _blocks(lm)[1].mlp
    assert figures["ce_spliced"] == pytest.approx(_loss(lm, {mlp: lambda x, _: x @ matrix}), rel=1e-5)
    assert figures["ce_zero_ablated"] == pytest.approx(_loss(lm, {mlp: lambda _, y: torch.zeros(1)}), rel=1e-6)
    assert figures["ce_mean_ablated"] == pytest.approx(_loss(lm, {mlp: lambda _, y: mean}), rel=1e-6)
    assert figures["ce_spliced"] != figures["ce_clean"]


def test_a_crosscoder_writes_all_its_sites_from_the_models_own_activations(lm: LanguageModel) -> None:
    """What it reads at the later site is not yet changed by what it writes at the earlier one."""
    wiring = Wiring.crosscoder(*_ports(lm, SITE, LATER))
    coder = _linear_coder(wiring, 0.5 * torch.eye(wiring.d_read))
    mean = torch.randn(wiring.d_write)
    figures = _spliced(lm, coder, mean).figures
    tokens = torch.cat([batch.token_ids for batch in _batches(lm)])
    clean = lm.capture(tokens, [SITE, LATER])
    first, second = _blocks(lm)[1:3]
    halves = {first: lambda _, x: 0.5 * clean[SITE], second: lambda _, x: 0.5 * clean[LATER]}
    assert figures["ce_spliced"] == pytest.approx(_loss(lm, halves), rel=1e-5)
    means = dict(zip((first, second), mean.split([port.width for port in wiring.writes]), strict=True))
    by_hand = _loss(lm, {block: lambda _, x, m=m: m for block, m in means.items()})
    assert figures["ce_mean_ablated"] == pytest.approx(by_hand, rel=1e-6)


def test_coders_measured_together_have_the_figures_that_each_has_alone(lm: LanguageModel) -> None:
    coders = {
        "zero": _zero_coder(lm, SITE),
        "identity": _identity_coder(lm, SITE),
        "later": _zero_coder(lm, LATER),
    }
    means = {site: torch.randn(lm.width(site)) for site in (SITE, LATER)}
    together = _measured(lm, coders, means)
    alone = {name: _measured(lm, {name: coder}, means)[name].figures for name, coder in coders.items()}
    drawn = {"loss_recovered_resample", "kl_recovered_resample", "ce_resample_ablated", "kl_resample_ablated"}
    for name, figures in alone.items():
        same = {key: value for key, value in figures.items() if key not in drawn or name != "later"}
        assert together[name].figures == pytest.approx(together[name].figures | same, nan_ok=True)
    assert together["zero"] != together["later"]


def test_resampling_puts_the_row_of_another_content_token_at_the_site(lm: LanguageModel) -> None:
    """Where all content tokens have the same row, exchanging them changes nothing."""
    batch = _batches(lm)[0]
    coder = _zero_coder(lm, SITE)
    means = {SITE: torch.zeros(lm.width(SITE))}
    measures = CoreMeasures(lm, {"coder": coder}, means)
    one_row = torch.randn(lm.width(SITE))
    content = batch.is_content[..., None]
    with lm.patch({SITE: lambda x: torch.where(content, one_row, x)}):
        measures.update(batch, splice=True)
    figures = measures.compute()["coder"].figures
    assert figures["kl_resample_ablated"] == pytest.approx(0.0, abs=1e-7)
    drawn = _measured(lm, {"coder": coder}, means)["coder"].figures
    assert drawn["kl_resample_ablated"] > 1e-3
    assert drawn == pytest.approx(_measured(lm, {"coder": coder}, means)["coder"].figures, nan_ok=True)
    assert drawn != _measured(lm, {"coder": coder}, means, seed=1)["coder"].figures


def test_special_and_massive_rows_are_measured_apart(gpt2: LanguageModel) -> None:
    coder = _zero_coder(gpt2, SITE)
    batch = _batches(gpt2)[0]
    measures = CoreMeasures(gpt2, {"coder": coder}, {SITE: torch.zeros(gpt2.width(SITE))})
    factor = torch.ones(4, 9, 1)
    factor[2, 5] = 1000.0
    with gpt2.patch({SITE: lambda x: x * factor}):
        x = gpt2.capture(batch.token_ids, SITE)[SITE]
        measures.update(batch, splice=False)
    figures = measures.compute()["coder"].figures
    energy = x.double().square().sum(-1)
    assert figures["special_rows"] == pytest.approx(4 / 36)
    assert figures["massive_rows"] == pytest.approx(1 / 36)
    assert figures["special_energy"] == pytest.approx((energy[:, 0].sum() / energy.sum()).item())
    assert figures["massive_energy"] == pytest.approx((energy[2, 5] / energy.sum()).item())
    assert figures["special_error"] == figures["massive_error"] == 1.0, "this coder writes zeros"


def test_rows_that_are_left_out_for_their_length_are_still_told(gpt2: LanguageModel) -> None:
    batch = _batches(gpt2)[0]
    coder = _zero_coder(gpt2, SITE)
    measures = CoreMeasures(gpt2, {"coder": coder}, {SITE: torch.zeros(gpt2.width(SITE))}, max_norm=20.0)
    factor = torch.ones(4, 9, 1)
    factor[2, 5] = 1000.0
    with gpt2.patch({SITE: lambda x: x * factor}):
        measures.update(batch, splice=False)
    assert measures.coders["coder"].reconstruction.n_rows == 31
    assert measures.compute()["coder"].figures["massive_rows"] == pytest.approx(1 / 36)


@pytest.mark.parametrize(
    ("reads", "writes", "skip"),
    [((SITE,), (SITE,), False), ((READ,), (WRITTEN,), True), ((SITE, LATER), (SITE, LATER), False)],
    ids=["sae", "skip transcoder", "crosscoder"],
)
def test_row_figures_are_those_of_all_rows_together(
    gpt2: LanguageModel, reads: tuple[str, ...], writes: tuple[str, ...], skip: bool
) -> None:
    batches = _batches(gpt2)
    cls = architecture("relu")
    wiring = Wiring(tuple(_ports(gpt2, *reads)), tuple(_ports(gpt2, *writes)), skip)
    coder = cls(cls.Config(n_latents=63), wiring).requires_grad_(False)
    coder.b_dec.normal_()
    if coder.W_skip is not None:
        coder.W_skip.normal_()
    sites = list(dict.fromkeys(reads + writes))
    rows = [rows_of(batch, gpt2.capture(batch.token_ids, sites)) for batch in batches]
    measures = CoreMeasures(gpt2, {"coder": coder}, {port.site: torch.zeros(port.width) for port in wiring.writes})
    codes = [measures.update(batch, splice=False)["coder"].codes for batch in batches]
    its = measures.coders["coder"]

    whole = {site: torch.cat([batch.activations[site] for batch in rows]) for site in sites}
    x, y = (torch.cat([whole[site] for site in side], dim=1) for side in (reads, writes))
    dense = F.relu((x if skip else x - coder.b_dec) @ coder.W_enc.T + coder.b_enc)
    written = dense @ coder.W_dec + coder.b_dec
    if coder.W_skip is not None:
        written = written + x @ coder.W_skip.T
    error = y - written
    figures = measures.compute()["coder"].figures
    assert its.reconstruction.n_rows == 96
    assert figures["l0"] == pytest.approx((dense > 0).sum().item() / 96)
    assert figures["mse"] == pytest.approx(error.square().sum(1).mean().item(), rel=1e-5)
    expected = 1 - (error.square().sum() / (y - y.mean(0)).square().sum()).item()
    assert figures["explained_variance"] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    torch.testing.assert_close(its.density.density_L, (dense > 0).double().mean(0), check_dtype=False)
    torch.testing.assert_close(torch.cat([part.dense() for part in codes]), dense)
    assert math.isnan(figures["ce_clean"]), "nothing was spliced"


def _temporal(model: LanguageModel, **settings: Any) -> SparseCoder:
    cls = architecture("temporal")
    small = {"n_latents": 63, "n_heads": 3, "d_key": 9, "k": 7} | settings
    return cls(cls.Config(**small), Wiring.sae(model.width(SITE), SITE)).requires_grad_(False)


def test_a_coder_of_sequences_is_measured_at_the_rows_that_count(gpt2: LanguageModel) -> None:
    batches, coder = _batches(gpt2), _temporal(gpt2)
    measures = CoreMeasures(gpt2, {"coder": coder}, {SITE: torch.zeros(gpt2.width(SITE))})
    codes = [measures.update(batch, splice=True)["coder"].codes for batch in batches]
    tokens = torch.cat([batch.token_ids for batch in batches])
    x, counts = gpt2.capture(tokens, SITE)[SITE], (tokens != 0).flatten()
    error = (x.flatten(0, 1) - coder(x)).square().sum(1)
    whole = coder.encode(x).dense()
    torch.testing.assert_close(torch.cat([part.dense() for part in codes]), whole[counts], rtol=1e-4, atol=1e-5)
    figures = measures.compute()["coder"].figures
    assert figures["mse"] == pytest.approx(error[counts].mean().item(), rel=1e-4)
    assert figures["l0"] == pytest.approx((whole[counts] > 0).sum().item() / 96)
    special = error[~counts].sum() / x.flatten(0, 1)[~counts].square().sum()
    assert figures["special_error"] == pytest.approx(special.item(), rel=1e-4)
    is_content = (tokens != 0)[..., None]
    with gpt2.patch({SITE: lambda x: torch.where(is_content, coder(x).view_as(x), x)}):
        spliced = F.cross_entropy(gpt2.logits(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert figures["ce_spliced"] == pytest.approx(spliced.item(), rel=1e-4)
