"""How a model is called: token ids or images by the name that its own class gives them, or the only argument."""

import inspect
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.errors import UserError
from unweave.models.hooks import written_activations

Inputs = Int[Tensor, "N T"] | Float[Tensor, "N C H W"]
"""Token ids, or pixels."""


def forward(model: Any, inputs: Inputs) -> Any:
    """One pass without a cache of keys and values; what the model itself returns."""
    if not hasattr(model, "config"):
        return model(inputs)
    generates = hasattr(model, "can_generate") and model.can_generate()
    options = {"use_cache": False} if generates or "use_cache" in _parameters(type(model)) else {}
    return model(**{model.main_input_name: inputs}, **options)


def logits_of(output: Any, name: str) -> Float[Tensor, "N *T V"]:
    """The logits in what a model has returned."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None:
        raise UserError(f"{name} has no logits, it ends with hidden states; capture them, or load a model with a head")
    return logits


def last_of(output: Any) -> Tensor:
    """The logits in what a model has returned, or else its last hidden states."""
    last = getattr(output, "logits", None)
    last = written_activations(output) if last is None else last
    assert last is not None, f"the model returned a {type(output).__name__}"
    return last


def reads_tokens(model: Any) -> bool:
    """Whether the model reads token ids, and so has a row for each of them."""
    return not hasattr(model, "config") or model.main_input_name == "input_ids"


def blank_inputs(model: Any, n_tokens: int) -> Inputs:
    """One sequence of token 0, or one black image."""
    if reads_tokens(model):
        return torch.zeros(1, n_tokens, dtype=torch.int64)
    return torch.zeros(_image_shape(model), dtype=model.dtype)


def random_inputs(model: Any, n_tokens: int, generator: torch.Generator) -> Inputs:
    """One sequence of random tokens, or one image of noise."""
    if reads_tokens(model):
        return torch.randint(n_vocabulary(model) or n_tokens, (1, n_tokens), generator=generator)
    return torch.randn(_image_shape(model), generator=generator).to(model.dtype)


def n_vocabulary(model: Any) -> int | None:
    """Number of tokens that the model knows, or None for a module that has no config to say so."""
    if not hasattr(model, "config"):
        return None
    return getattr(model.config.get_text_config(), "vocab_size", None)


def _image_shape(model: Any) -> tuple[int, ...]:
    size, config = getattr(model.config, "image_size", None), model.config
    if model.main_input_name != "pixel_values" or size is None:
        raise UserError(f"a {config.model_type} model reads {model.main_input_name}, not tokens or images of one size")
    height, width = (size, size) if isinstance(size, int) else size
    return (1, config.num_channels, height, width)


def _parameters(cls: type[nn.Module]) -> Any:
    return inspect.signature(cls.forward).parameters
