# pyright: reportMissingImports=false
"""SAELens' own SAEs as cases: every architecture, finished or as a checkpoint of a run, and configs of old versions."""

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cases import LATENTS, WIDTH, Found, Library, batches, main, rows, save_expected, stir
from sae_lens import SAE, TrainingSAE
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file, save_file
from torch import Tensor

HOOK = {"model_name": "gpt2-small", "hook_name": "blocks.3.hook_resid_pre", "model_class_name": "HookedTransformer"}
FINISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "standard": ("standard", {}),
    "standard_not_centred": ("standard", {"apply_b_dec_to_input": False}),
    "standard_layer_norm": ("standard", {"normalize_activations": "layer_norm"}),
    "gated": ("gated", {}),
    "gated_not_centred": ("gated", {"apply_b_dec_to_input": False}),
    "topk": ("topk", {"k": 4}),
    "topk_rescaled": ("topk", {"k": 4, "rescale_acts_by_decoder_norm": True}),
    "topk_constant_norm": ("topk", {"k": 4, "normalize_activations": "constant_norm_rescale"}),
    "abstopk": ("abstopk", {"k": 4}),
    "abstopk_rescaled": ("abstopk", {"k": 4, "rescale_acts_by_decoder_norm": True}),
    "jumprelu": ("jumprelu", {}),
    "jumprelu_not_centred": ("jumprelu", {"apply_b_dec_to_input": False}),
    "matching_pursuit": ("matching_pursuit", {}),
    "matching_pursuit_repeats": (
        "matching_pursuit",
        {"max_iterations": 9, "residual_threshold": 0.0, "stop_on_duplicate_support": False},
    ),
    "matching_pursuit_threshold": (
        "matching_pursuit",
        {"max_iterations": 9, "residual_threshold": 1.5, "apply_b_dec_to_input": False},
    ),
    "matching_pursuit_layer_norm": ("matching_pursuit", {"normalize_activations": "layer_norm"}),
    "transcoder": ("transcoder", {"d_out": 5}),
    "skip_transcoder": ("skip_transcoder", {"d_out": 5}),
    "jumprelu_transcoder": ("jumprelu_transcoder", {"d_out": 5}),
    "jumprelu_skip_transcoder": ("jumprelu_skip_transcoder", {"d_out": 5}),
}
TRAINING: dict[str, tuple[str, dict[str, Any]]] = {
    "training_standard": ("standard", {}),
    "training_gated": ("gated", {}),
    "training_topk": ("topk", {"k": 4}),
    "training_abstopk": ("abstopk", {"k": 4}),
    "training_jumprelu": ("jumprelu", {}),
    "training_batchtopk": ("batchtopk", {"k": 2.5}),
    "training_batchtopk_not_rescaled": ("batchtopk", {"k": 4, "rescale_acts_by_decoder_norm": False}),
    "training_matryoshka": ("matryoshka_batchtopk", {"k": 3, "matryoshka_widths": [4, 9, 13]}),
    "training_matching_pursuit": ("matching_pursuit", {"max_iterations": 5}),
}
SCALED = {"normalize_activations": "expected_average_only_in"}
WHITENED = {"normalize_activations": "covariance_whitening"}
SCALAR = {"normalize_activations": "constant_scalar_rescale", "activation_normalization_factor": 0.3}
TEMPORAL: dict[str, dict[str, Any]] = {
    "temporal": {"kval_topk": 3},
    "temporal_scaled": {"kval_topk": 3, "n_attn_layers": 2, **SCALAR},
    "temporal_not_tied": {"sae_diff_type": "relu", "tied_weights": False},
    "temporal_not_tied_scaled": {"kval_topk": 4, "n_attn_layers": 2, "tied_weights": False, **SCALAR},
    "temporal_not_centred": {"sae_diff_type": "relu", "n_attn_layers": 2, "apply_b_dec_to_input": False},
    "temporal_not_tied_not_centred": {"kval_topk": 3, "tied_weights": False, "apply_b_dec_to_input": False, **SCALAR},
    "temporal_layer_norm": {"kval_topk": None, "normalize_activations": "layer_norm"},
}
"""SAEs that read rows as two sequences; SAELens does not train them."""
UNFOLDED: dict[str, tuple[str, dict[str, Any]]] = {
    "scaled_standard": ("standard", SCALED),
    "scaled_topk": ("topk", {"k": 4} | SCALED),
    "scaled_jumprelu": ("jumprelu", SCALED),
    "scaled_batchtopk": ("batchtopk", {"k": 4} | SCALED),
    "scaled_batchtopk_not_rescaled": ("batchtopk", {"k": 4, "rescale_acts_by_decoder_norm": False} | SCALED),
    "scaled_matching_pursuit": ("matching_pursuit", {"max_iterations": 5, "residual_threshold": 0.7} | SCALED),
    "whitened_standard": ("standard", {"apply_b_dec_to_input": False} | WHITENED),
    "whitened_gated": ("gated", {"apply_b_dec_to_input": False} | WHITENED),
    "whitened_topk": ("topk", {"k": 4} | WHITENED),
    "whitened_batchtopk": ("batchtopk", {"k": 4} | WHITENED),
}
"""Checkpoints of runs whose scale or whitening of rows is still beside the weights."""


def make(folder: Path) -> None:
    for number, (name, (architecture, settings)) in enumerate(FINISHED.items()):
        sae = _new(get_sae_class(architecture), settings, number)
        sae.save_model(folder / name)
        _tell(folder / name, SAE.load_from_disk(folder / name))
    for number, (name, (architecture, settings)) in enumerate({**TRAINING, **UNFOLDED}.items()):
        sae = _new(get_sae_training_class(architecture), settings, 50 + number)
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(0.8)
        sae.save_model(folder / name)
        scaler = _scaler(sae)
        if name in UNFOLDED:
            scaler.save(str(folder / name / "activation_scaler.json"))
        _fold(sae, scaler)
        _tell(folder / name, _finished(sae))
    _make_old(folder)
    sae = _new(get_sae_class("standard"), {"reshape_activations": "hook_z"}, 90, hook_name="blocks.2.attn.hook_z")
    sae.save_model(folder / "hook_z")
    _tell(folder / "hook_z", SAE.load_from_disk(folder / "hook_z"))
    centred = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    _new(get_sae_class("standard"), {}, 91, **centred).save_model(folder / "centred")
    _tell(folder / "centred", SAE.load_from_disk(folder / "centred"))
    _make_temporal(folder)


def train(folder: Path, steps: int) -> None:
    """SAEs that SAELens' own trainer trained: a checkpoint from half way, and what is saved at the end."""
    for name, (architecture, settings) in {**TRAINING, **UNFOLDED}.items():
        torch.manual_seed(0)
        sae_class, config_class = get_sae_training_class(architecture)
        sae = sae_class(config_class(d_in=WIDTH, d_sae=LATENTS, metadata=SAEMetadata(**HOOK), **settings))
        checkpoints = folder / f"{name}_checkpoints"
        config = SAETrainerConfig(
            total_training_samples=steps * 128,
            train_batch_size_samples=128,
            lr=3e-3,
            lr_end=3e-3,
            dead_feature_window=20,
            n_checkpoints=1,
            checkpoint_path=str(checkpoints),
            n_batches_for_norm_estimate=20,
        )
        SAETrainer(cfg=config, sae=sae, data_provider=iter(batches(steps + 20, WIDTH))).fit()
        sae.save_inference_model(folder / f"{name}_finished")
        _tell(folder / f"{name}_finished", SAE.load_from_disk(folder / f"{name}_finished"))
        (checkpoint,) = checkpoints.iterdir()
        checkpoint.rename(folder / name)
        checkpoints.rmdir()
        half_way = TrainingSAE.load_from_disk(folder / name)
        scaler = ActivationScaler()
        scaler.load(folder / name / "activation_scaler.json")
        _fold(half_way, scaler)
        _tell(folder / name, _finished(half_way))
    _make_temporal(folder)


def run(case: Path, x_BD: Tensor) -> Found:
    return _run(SAE.load_from_disk(case), x_BD)


def _new(classes: tuple[Any, Any], settings: Mapping[str, Any], seed: int, **metadata: Any) -> Any:
    sae_class, config_class = classes
    about = HOOK | ({"hook_name_out": "blocks.3.hook_mlp_out"} if "d_out" in settings else {}) | metadata
    defaults = {"apply_b_dec_to_input": False} if "d_out" in settings else {}
    sizes = {"d_in": WIDTH, "d_sae": LATENTS}
    config = config_class(metadata=SAEMetadata(**about), **(sizes | defaults | dict(settings)))
    sae = sae_class(config)
    stir(sae, seed)
    return sae


def _scaler(sae: Any) -> ActivationScaler:
    """What a run would have done to rows."""
    if sae.cfg.normalize_activations == "expected_average_only_in":
        return ActivationScaler(scaling_factor=0.6)
    if sae.cfg.normalize_activations == "covariance_whitening":
        matrix = torch.eye(WIDTH).double() + 0.2 * torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1))
        mean = torch.linspace(-0.5, 0.5, WIDTH).double()
        return ActivationScaler(whitening=ActivationWhitening(mean, matrix, matrix.inverse()))
    return ActivationScaler()


def _fold(sae: Any, scaler: ActivationScaler) -> None:
    """What the end of a run does."""
    if scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if scaler.whitening is not None:
        white = scaler.whitening
        sae.fold_activation_whitening(white.mean, white.matrix, white.inverse_matrix)


def _finished(sae: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        return SAE.load_from_disk(folder)


def _make_temporal(folder: Path) -> None:
    for number, (name, settings) in enumerate(TEMPORAL.items()):
        sizes = {"d_sae": 12, "n_heads": 2, "bottleneck_factor": 3}
        _new(get_sae_class("temporal"), sizes | settings, 100 + number).save_model(folder / name)
        _tell(folder / name, SAE.load_from_disk(folder / name))


def _make_old(folder: Path) -> None:
    """Finished SAEs with the configs that versions before 6 wrote."""
    flat = {"model_name": "gpt2-small", "prepend_bos": True, "context_size": 128, "dataset_path": "some/text"}
    flat |= {"d_in": WIDTH, "d_sae": LATENTS, "dtype": "torch.float32", "device": "cpu"}
    old: dict[str, tuple[str, dict[str, Any]]] = {
        "old_standard": ("standard", {"hook_point": "blocks.5.hook_resid_pre", "normalize_activations": False}),
        "old_topk": (
            "topk",
            {
                "hook_name": "blocks.5.hook_mlp_out",
                "activation_fn_str": "topk",
                "activation_fn_kwargs": {"k": 4},
                "apply_b_dec_to_input": False,
                "normalize_activations": "layer_norm",
                "sae_lens_training_version": "3.12.0",
            },
        ),
        "old_gated": ("gated", {"hook_name": "blocks.5.hook_resid_post", "architecture": "gated"}),
        "old_jumprelu": (
            "jumprelu",
            {"hook_name": "blocks.5.hook_resid_post", "architecture": "jumprelu", "normalize_activations": "none"},
        ),
    }
    for number, (name, (architecture, settings)) in enumerate(old.items()):
        sae = _new(get_sae_class(architecture), {"k": 4} if architecture == "topk" else {}, 80 + number)
        sae.save_model(folder / name)
        (folder / name / "cfg.json").write_text(json.dumps(flat | settings))
        _tell(folder / name, SAE.load_from_disk(folder / name))
    # a scaling factor of ones, which versions before 3.9 left in
    weights = folder / "old_standard" / "sae_weights.safetensors"
    save_file({**load_file(weights), "scaling_factor": torch.ones(LATENTS)}, weights)
    _tell(folder / "old_standard", SAE.load_from_disk(folder / "old_standard"))
    shutil.copytree(folder / "training_jumprelu", folder / "old_training_jumprelu")
    weights = folder / "old_training_jumprelu" / "sae_weights.safetensors"
    tensors = load_file(weights)
    tensors["log_threshold"] = tensors.pop("threshold").abs().log()
    save_file(tensors, weights)
    _tell(folder / "old_training_jumprelu", _finished(TrainingSAE.load_from_disk(weights.parent)))


def _tell(case: Path, sae: Any) -> None:
    x_BD = rows(sae.cfg.d_in)
    save_expected(case, x_BD, _run(sae, x_BD))


@torch.no_grad()
def _run(sae: Any, x_BD: Tensor) -> Found:
    """Codes, and what is written for them."""
    n_rows = len(x_BD)
    if sae.cfg.reshape_activations == "hook_z":
        x_BD = x_BD.unflatten(1, (2, -1))
    if sae.cfg.architecture() == "temporal":
        x_BD = x_BD.unflatten(0, (2, -1))
    return Found(sae.encode(x_BD).reshape(n_rows, -1), sae(x_BD).reshape(n_rows, -1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Library(make, train, run))
