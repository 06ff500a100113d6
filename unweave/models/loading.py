"""Load a model and its tokenizer from the package, a folder or the hub; safetensors weights only."""

import importlib.resources
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from unweave.errors import UserError, nearest

_EMBEDDED_FOLDERS = {"builtin:pylm": "embedded"}


if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Spread = Union[Literal["devices"], "DeviceMesh"]
"""All devices of this machine, block by block, or processes, each with a part of every matrix."""


def load_model_and_tokenizer(name: str, dtype: str, spread: Spread | None = None) -> tuple[Any, Any]:
    """The model (in ``dtype``, on the CPU unless it is spread) and its tokenizer.

    The tokenizer is ``None`` for a folder that has none.
    """
    import torch
    from huggingface_hub.utils import logging as hub_logging
    from safetensors import SafetensorError
    from transformers.utils import logging

    if dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"dtype must be float32, bfloat16 or float16, got {dtype!r}")
    source = _source(name)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    try:
        loaded: Any = _model_class(source).from_pretrained(
            source, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **_placed(spread)
        )
    except SafetensorError as error:
        raise UserError(f"the weights of {name!r} are damaged ({error}); fetch or copy the model again") from error
    except (OSError, ValueError, RuntimeError) as error:
        hint = "" if Path(source).is_dir() else "; with no network, give a local folder"
        raise UserError(f"cannot load a language model from {name!r}: {_first_line(error)}{hint}") from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"the weights of {name!r} lack {', '.join(missing[:3])}; fetch or copy the model again")
    return model, _tokenizer(source)


def _model_class(source: str) -> Any:
    """That of a causal language model where there is one for the weights, or else the class that the config names."""
    import transformers
    from transformers.models.auto import modeling_auto

    causal, masked = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    config = transformers.AutoConfig.from_pretrained(source)
    named = (config.architectures or [""])[0]
    may_be_causal = config.model_type in causal and config.model_type not in masked
    if not named or may_be_causal or named in causal.values():
        return transformers.AutoModelForCausalLM
    return getattr(transformers, named, transformers.AutoModelForCausalLM)


def check_device(name: str) -> None:
    """Raise ``UserError`` for a device that this machine's torch cannot use."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used here; choose auto or cpu") from error


def _placed(spread: Spread | None) -> dict[str, Any]:
    """How transformers is told to spread a model; it needs accelerate for that."""
    if spread is None:
        return {}
    if importlib.util.find_spec("accelerate") is None:
        raise UserError("model.spread needs accelerate; pip install 'unweave[large]'")
    if spread == "devices":
        return {"device_map": "auto"}
    from transformers.distributed.configuration_utils import DistributedConfig

    return {"distributed_config": DistributedConfig(tp_plan="auto"), "device_mesh": spread}


def _source(name: str) -> str:
    if name.startswith("builtin:"):
        if name not in _EMBEDDED_FOLDERS:
            raise UserError(f"there is no embedded model {name!r}{nearest(name, _EMBEDDED_FOLDERS)}")
        return str(importlib.resources.files("unweave.models") / _EMBEDDED_FOLDERS[name])
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"folder {name!r} has no config.json; give the folder of a Hugging Face model")
        return str(path)
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"there is no model folder {name!r}; give an existing folder, a hub id, or builtin:pylm")
    return name


def _tokenizer(source: str) -> Any:
    from transformers import AutoTokenizer

    if Path(source).is_dir() and not list(Path(source).glob("tokenizer*")):
        return None
    try:
        return AutoTokenizer.from_pretrained(source, model_max_length=10**9)  # packing checks the length
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot load the tokenizer of {source!r}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
