"""A recipe: everything that a run depends on, read from TOML with overrides."""

import importlib.resources
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from unweave.analysis.latent_facts import IndexConfig
from unweave.coders import CoderConfig, architecture, trainable_architectures
from unweave.config import apply_overrides, build, parse_toml, read_toml
from unweave.errors import UserError, nearest
from unweave.formats.texts import SourceConfig, TextConfig
from unweave.models.language_model import EMBEDDED
from unweave.models.tokens import PackingConfig
from unweave.pipelines.grid import cells
from unweave.training.config import TrainingConfig
from unweave.training.objective import ObjectiveConfig


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
    """Sequences that are read at once; a CPU takes them through the model a few at a time."""
    spread: Literal["no", "devices", "processes"] = "no"
    """For a model that is larger than one device: over all devices of this machine, or over the processes that have the
    same rows, of which there are ``training.latent_parts``."""

    def __post_init__(self) -> None:
        if self.sequences < 1:
            raise UserError(f"model.sequences must be at least 1, got {self.sequences}")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a finished coder is measured, on held-out text only."""

    tokens: int = 200_000
    """Tokens for reconstruction, sparsity and density."""
    splice_tokens: int = 32_768
    """Tokens for the losses with the reconstruction spliced in; each costs four passes of the whole model."""
    floor_tokens: int = 16_384
    """Of those, tokens on which a random coder, principal directions and the identity are measured too; 0: on none."""

    def __post_init__(self) -> None:
        for name in ("tokens", "splice_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"evaluation.{name} must be at least 1, got {getattr(self, name)}")
        if self.floor_tokens < 0:
            raise UserError(f"evaluation.floor_tokens must not be negative, got {self.floor_tokens}")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state of a training is written, so that it can go on from there with the same bits."""

    every_minutes: float = 10.0
    """Minutes between two checkpoints; the last two are there while the run trains. 0: none but on Ctrl-C."""
    kept: int = 0
    """Checkpoints at equal distances over the run that stay when it has ended."""

    def __post_init__(self) -> None:
        if not self.every_minutes >= 0:
            raise UserError(f"checkpoints.every_minutes must not be negative, got {self.every_minutes}")
        if self.kept < 0:
            raise UserError(f"checkpoints.kept must not be negative, got {self.kept}")


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """Services that get the figures of the training, besides ``metrics.jsonl``."""

    wandb: str = ""
    """Project of Weights & Biases; WANDB_MODE=offline keeps the figures on this machine."""
    tensorboard: bool = False
    """Whether event files for TensorBoard are written into the run."""


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
    """Seeds initial weights."""
    data_seed: int = 0
    """Seeds the order of rows."""
    cache: str = ""
    """Address of activations that ``unweave harvest`` wrote: training reads them and not the model."""
    start: str = ""
    """Folder of a finished run or coder, of the same type, size and sites, from whose weights the coder starts."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Which model."""
    text: TextConfig = field(default_factory=TextConfig)
    """Which text."""
    packing: PackingConfig = field(default_factory=PackingConfig)
    """How the text is cut into sequences."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How the coder is trained."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What the coder is trained for."""
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When the state of the training is written."""
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    """Which services get the figures of the training."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """How the coder is measured."""
    index: IndexConfig = field(default_factory=IndexConfig)
    """What the index keeps of each latent."""

    def __post_init__(self) -> None:
        if not self.site:
            raise UserError("site must name at least one place in the model")
        if self.target and len(self.sites) > 1:
            raise UserError(f"a coder with a target reads one site, got {len(self.sites)}; leave target empty")
        if self.skip and not self.target:
            raise UserError("skip=true needs a target: a path from a site to itself would explain everything")
        if self.model.spread == "processes" and self.training.latent_parts == 1:
            raise UserError(
                'model.spread="processes" spreads the model over those that have parts of the latents; '
                "set training.latent_parts to their number"
            )
        if self.objective.needs_model:
            self._check_sequences()

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that the coder reads."""
        return (self.site,) if isinstance(self.site, str) else tuple(self.site)

    @property
    def shares_model(self) -> bool:
        """Whether the model is spread over processes, so that none can run it alone."""
        return not self.cache and self.model.spread == "processes"

    @property
    def row_length(self) -> int:
        """Tokens that are shuffled and batched as one: 1, or a sequence where the objective runs the model."""
        return self.packing.context if self.objective.needs_model else 1

    def _check_sequences(self) -> None:
        if self.cache:
            raise UserError(
                "objective.kl and objective.downstream run the model, which a cache has not; leave cache empty"
            )
        count = self.training.batch // self.row_length
        if count < 1:
            raise UserError(
                f"objective.kl and objective.downstream take whole sequences of packing.context={self.row_length} "
                f"tokens, training.batch={self.training.batch} has not even one"
            )
        if self.training.accumulate > count:
            raise UserError(
                f"training.accumulate={self.training.accumulate} is more than the sequences of a step: {count} of "
                f"packing.context={self.row_length} in training.batch={self.training.batch}"
            )


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


@dataclass(frozen=True)
class Plan:
    """All coders of one pass: one, or a grid of them."""

    values: dict[str, Any]
    """The recipe as it was written, with its overrides."""
    jobs: dict[str, Job]
    """Name of each coder to what it asks for."""

    @property
    def recipe(self) -> Recipe:
        """What the coders share: everything but their sites, seeds and own settings."""
        return next(iter(self.jobs.values())).recipe

    @property
    def is_grid(self) -> bool:
        return len(self.jobs) > 1

    def to_toml(self) -> str:
        """TOML from which ``read_plan`` makes an equal plan; that of a single job has all defaults written out."""
        return tomli_w.dumps(self.values) if self.is_grid else next(iter(self.jobs.values())).to_toml()


def read_plan(recipe: str, overrides: list[str]) -> Plan:
    """The plan of a TOML file, or of a recipe that comes with the package (``demo``), with dotted overrides."""
    packaged = builtin_recipes()
    if recipe in packaged:
        values = parse_toml(packaged[recipe], recipe)
    elif not Path(recipe).exists() and not recipe.endswith(".toml"):
        raise UserError(
            f"there is no recipe {recipe!r}{nearest(recipe, packaged)}; give a TOML file or {', '.join(packaged)}"
        )
    else:
        values = read_toml(Path(recipe))
    return build_plan(apply_overrides(values, overrides))


def build_plan(values: dict[str, Any]) -> Plan:
    """A plan from nested dictionaries, every key checked."""
    return Plan(values, {cell.name: _job(cell.values) for cell in cells(values, Recipe)})


def read_job(recipe: str, overrides: list[str]) -> Job:
    """The job of a recipe that asks for one coder."""
    plan = read_plan(recipe, overrides)
    if plan.is_grid:
        raise UserError(f"{recipe} asks for {len(plan.jobs)} coders; choose one, such as {next(iter(plan.jobs))}")
    return next(iter(plan.jobs.values()))


def build_job(values: dict[str, Any]) -> Job:
    """The job of nested dictionaries that ask for one coder."""
    (job,) = build_plan(values).jobs.values()
    return job


def _job(values: dict[str, Any]) -> Job:
    coder = dict(values["coder"])
    name = coder.pop("type")
    config = build(architecture(name).Config, coder, "coder")
    return Job(build(Recipe, {key: value for key, value in values.items() if key != "coder"}), name, config)


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
        "text.mix": SourceConfig,
        "packing": PackingConfig,
        "training": TrainingConfig,
        "objective": ObjectiveConfig,
        "checkpoints": CheckpointConfig,
        "logging": LoggingConfig,
        "evaluation": EvaluationConfig,
        "index": IndexConfig,
    }
    return sections | {f"coder.{name}": cls.Config for name, cls in trainable_architectures().items()}
