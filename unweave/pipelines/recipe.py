"""A recipe: everything that a run depends on, read from TOML with overrides."""

import importlib.resources
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from unweave.coders import CoderConfig, architecture, architectures
from unweave.config import apply_overrides, build, parse_toml, read_toml
from unweave.errors import UserError, nearest
from unweave.formats.texts import TextConfig
from unweave.models.language_model import EMBEDDED
from unweave.models.tokens import PackingConfig
from unweave.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The language model whose activations are taken apart."""

    name: str = EMBEDDED
    """``builtin:pylm``, a local Hugging Face folder, or a model id of the hub."""
    device: str = "auto"
    """Where model and coder run: auto (a GPU where there is one), cpu, cuda, cuda:1, ..."""
    dtype: str = "float32"
    """Precision of the model: float32, bfloat16 or float16. Coders are float32."""
    sequences: int = 32
    """Sequences per forward pass."""

    def __post_init__(self) -> None:
        if self.sequences < 1:
            raise UserError(f"model.sequences must be at least 1, got {self.sequences}")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a finished coder is measured, on held-out text only."""

    tokens: int = 200_000
    """Tokens for reconstruction, density and the records of all latents."""
    splice_tokens: int = 32_768
    """Tokens for the losses with the reconstruction spliced in; each costs four passes of the whole model."""
    examples: int = 8
    """Examples kept per latent."""
    reach: int = 12
    """Tokens shown to each side of an example's peak."""
    promoted: int = 10
    """Tokens listed as promoted and as suppressed."""

    def __post_init__(self) -> None:
        for name in ("tokens", "splice_tokens", "examples", "promoted"):
            if getattr(self, name) < 1:
                raise UserError(f"evaluation.{name} must be at least 1, got {getattr(self, name)}")
        if self.reach < 0:
            raise UserError(f"evaluation.reach must not be negative, got {self.reach}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The sections of a recipe; the section ``[coder]`` has a ``type`` and that architecture's own settings."""

    site: str | tuple[str, ...] = "layers.2.resid_post"
    """Place in the model whose activations are taken apart; several make a crosscoder, which reads and writes all."""
    target: str = ""
    """Place that the coder writes, where it is another than it reads: that makes a transcoder."""
    skip: bool = False
    """Whether a transcoder also has a linear path from what it reads to what it writes."""
    seed: int = 0
    """Seeds initial weights and the order of rows."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Which model."""
    text: TextConfig = field(default_factory=TextConfig)
    """Which text."""
    packing: PackingConfig = field(default_factory=PackingConfig)
    """How the text is cut into sequences."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How the coder is trained."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """How the coder is measured."""

    def __post_init__(self) -> None:
        if not self.site:
            raise UserError("site must name at least one place in the model")
        if self.target and len(self.sites) > 1:
            raise UserError(f"a coder with a target reads one site, got {len(self.sites)}; leave target empty")
        if self.skip and not self.target:
            raise UserError("skip=true needs a target: a path from a site to itself would explain everything")

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that the coder reads."""
        return (self.site,) if isinstance(self.site, str) else tuple(self.site)


@dataclass(frozen=True)
class Job:
    """A recipe and the coder that it asks for."""

    recipe: Recipe
    coder_type: str
    coder: CoderConfig

    def to_toml(self) -> str:
        """TOML from which ``read_job`` makes an equal job."""
        values = asdict(self.recipe)
        coder = {key: value for key, value in asdict(self.coder).items() if value is not None}
        values["coder"] = {"type": self.coder_type, **coder}
        return tomli_w.dumps(values)


def read_job(recipe: str, overrides: list[str]) -> Job:
    """The job of a TOML file, or of a recipe that comes with the package (``demo``), with dotted overrides."""
    packaged = builtin_recipes()
    if recipe in packaged:
        values = parse_toml(packaged[recipe], recipe)
    elif not Path(recipe).exists() and not recipe.endswith(".toml"):
        raise UserError(
            f"there is no recipe {recipe!r}{nearest(recipe, packaged)}; give a TOML file or {', '.join(packaged)}"
        )
    else:
        values = read_toml(Path(recipe))
    return build_job(apply_overrides(values, overrides))


def build_job(values: dict[str, Any]) -> Job:
    """A job from nested dictionaries, every key checked."""
    values = dict(values)
    coder = values.pop("coder", None)
    if not isinstance(coder, dict) or not isinstance(coder.get("type"), str):
        raise UserError(f"a recipe needs coder.type, one of: {', '.join(architectures())}")
    settings = {key: value for key, value in coder.items() if key != "type"}
    coder_config = build(architecture(coder["type"]).Config, settings, "coder")
    return Job(build(Recipe, values), coder["type"], coder_config)


def builtin_recipes() -> dict[str, str]:
    """Name and text of the recipes that come with the package."""
    folder = importlib.resources.files("unweave") / "recipes"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


def configurable() -> dict[str, type]:
    """Everything that ``unweave describe`` can describe, by name."""
    sections = {
        "recipe": Recipe,
        "model": ModelConfig,
        "text": TextConfig,
        "packing": PackingConfig,
        "training": TrainingConfig,
        "evaluation": EvaluationConfig,
    }
    return sections | {f"coder.{name}": cls.Config for name, cls in architectures().items()}
