"""Take a neural network's activations apart into sparse, interpretable latents."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unweave.errors import UserError
    from unweave.models.language_model import LanguageModel, LatentEdit
    from unweave.pipelines.load import load, load_all
    from unweave.pipelines.train import train
    from unweave.storage.run_folder import Run
    from unweave.web.notebook import show_latent, show_latents

__version__ = "0.1.0"
__all__ = [
    "LanguageModel",
    "LatentEdit",
    "Run",
    "UserError",
    "__version__",
    "load",
    "load_all",
    "show_latent",
    "show_latents",
    "train",
]

_HOMES = {
    "LanguageModel": "unweave.models.language_model",
    "LatentEdit": "unweave.models.language_model",
    "Run": "unweave.storage.run_folder",
    "UserError": "unweave.errors",
    "load": "unweave.pipelines.load",
    "load_all": "unweave.pipelines.load",
    "show_latent": "unweave.web.notebook",
    "show_latents": "unweave.web.notebook",
    "train": "unweave.pipelines.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import unweave`` itself is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unweave' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
