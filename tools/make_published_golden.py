"""Write tests/formats/dictionaries/golden: tiny dictionaries as other libraries publish them, and what those compute.

python tools/make_published_golden.py files             # in any environment with torch, safetensors and yaml
python tools/make_published_golden.py formulas          # the same
python tools/make_published_golden.py saelens           # where sae-lens is installed
python tools/make_published_golden.py circuit-tracer    # where circuit-tracer is installed

``expected.safetensors`` in the folder that is read has rows x, dense codes, and what is written: ``reconstruction``, or
for several layers, as the first axis of all, ``outputs``. Its metadata says what computed it.
"""

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published_more  # noqa: F401  (its cases are known because it is imported)
import torch
from published_files import CASES, ROWS, D, L, rows
from published_formulas import FORMULAS, Expected
from safetensors import safe_open
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "formats" / "dictionaries" / "golden"
_LOADERS = {
    "gemma_scope/gemma-scope-2b-pt-transcoders": "gemma_2_transcoder_huggingface_loader",
    "gemma_scope": "gemma_2_sae_huggingface_loader",
    "gemma_scope_2": "gemma_3_sae_huggingface_loader",
    "goodfire": "get_goodfire_huggingface_loader",
    "deepseek": "deepseek_r1_sae_huggingface_loader",
    "qwen_scope": "qwen_scope_sae_huggingface_loader",
    "hook_z": "connor_rob_hook_z_huggingface_loader",
    "temporal_saes": "temporal_sae_huggingface_loader",
}
_OWNERS = {"goodfire": "Goodfire"}


def folder_of(name: str) -> Path:
    """Where a case lies: below its format what the library wrote is apart from what unweave wrote."""
    format, _, rest = name.partition("/")
    return GOLDEN / format / "theirs" / rest


def main() -> None:
    what = sys.argv[1]
    if what == "files":
        write_files()
        return
    compute = {"formulas": by_formula, "saelens": by_saelens, "circuit-tracer": by_circuit_tracer}[what]
    for name in CASES:
        if (expected := compute(name)) is not None:
            tensors = {key: tensor.detach().float().contiguous() for key, tensor in expected.items()}
            save_file(tensors, folder_of(name) / "expected.safetensors", {"source": what})
            print(f"{name}: {float((tensors['codes'] != 0).float().mean()):.2f} of codes are active")


def write_files() -> None:
    for name, write in CASES.items():
        shutil.rmtree(folder_of(name), ignore_errors=True)
        folder_of(name).mkdir(parents=True)
        write(folder_of(name))


def by_formula(name: str) -> Expected | None:
    return _first(FORMULAS, name, lambda compute: compute(folder_of(name)))


def by_saelens(name: str) -> Expected | None:
    """SAELens' own loader, where its downloads are replaced by local files and the widths that it knows by ours."""
    if by_formula(name) is not None:
        return None
    return _first(_LOADERS, name, lambda loader: _saelens(name, loader))


def _saelens(name: str, loader: str) -> Expected:
    format, repository, *inner = name.split("/")
    module: Any = importlib.import_module("sae_lens.loading.pretrained_sae_loaders")
    folder = folder_of(f"{format}/{repository}")

    def local(repo_id: str, filename: str = "", subfolder: str = "", **_: Any) -> str:
        assert repo_id.endswith(repository), repo_id
        return str(folder / subfolder / filename)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        with safe_open(local(repo_id, filename), "pt") as file:
            return {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118

    module.hf_hub_download, module.get_safetensors_tensor_shapes = local, shapes
    path = "/".join(inner) or next(file.name for file in folder.iterdir() if file.suffix in (".pt", ".pth"))
    overrides = {"d_in": D, "d_sae": L, "device": "cpu", "dtype": "float32"}
    if "transcoder" in name:
        overrides |= {"d_out": D}
    is_temporal = format == "temporal_saes"
    if is_temporal:
        del overrides["d_sae"]
    config, tensors, _ = getattr(module, loader)(
        f"{_OWNERS.get(format, 'x')}/{repository}", path, "cpu", False, overrides
    )
    base: Any = importlib.import_module("sae_lens").SAE
    config = module.handle_config_defaulting(config)
    sae_config = base.get_sae_config_class_for_architecture(config["architecture"]).from_dict(config)
    sae = base.get_sae_class_for_architecture(sae_config.architecture())(sae_config)
    sae.process_state_dict_for_loading(tensors)
    sae.load_state_dict(tensors)
    if sae.cfg.reshape_activations == "hook_z":
        sae.turn_off_forward_pass_hook_z_reshaping()
    x = rows(sum(map(ord, name)), *((2, 5, D) if is_temporal else ()))
    codes = sae.encode(x)
    written = sae(x) if is_temporal or "affine" in name else sae.decode(codes)
    if is_temporal:
        codes, written = codes.flatten(0, 1), written.flatten(0, 1)
    return {"x": x, "codes": codes, "reconstruction": written}


def by_circuit_tracer(name: str) -> Expected | None:
    """circuit-tracer's own classes, which read the files."""
    if not name.startswith("circuit_tracer/"):
        return None
    folder, x = folder_of(name), rows(sum(map(ord, name)), 3 if "cross_layer" in name else 2, ROWS, D)
    if "cross_layer" in name:
        module: Any = importlib.import_module("circuit_tracer.transcoder.cross_layer_transcoder")
        model = module.load_clt(str(folder), device=torch.device("cpu"), dtype=torch.float32, lazy_decoder=False)
        codes = model.encode(x)
        return {"x": x, "codes": codes, "outputs": model.decode(codes)}
    module = importlib.import_module("circuit_tracer.transcoder.single_layer_transcoder")
    paths = {layer: str(folder / f"layer_{layer}.safetensors") for layer in range(2)}
    hooks = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out"}
    model = module.load_transcoder_set(paths, "x", **hooks, device=torch.device("cpu"))
    codes = model.encode(x)
    return {"x": x, "codes": codes, "outputs": model.decode(codes, x)}


def _first(table: dict[str, Any], name: str, compute: Callable[[Any], Expected]) -> Expected | None:
    """What the entry with the longest beginning of the name computes."""
    starts = [start for start in table if name.startswith(start)]
    return compute(table[max(starts, key=len)]) if starts else None


if __name__ == "__main__":
    main()
