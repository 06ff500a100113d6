"""Rows of Neuronpedia's database, as lines of the files that its importer reads.

Fields are named as columns are. Columns that are not here get the database's defaults: those of attention heads, of
maps and of its own users.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Release:
    """The line of ``release.jsonl``: sets of sources that were published together."""

    name: str
    description: str
    descriptionShort: str
    creatorName: str
    creatorNameShort: str
    creatorId: str
    createdAt: str
    visibility: str = "PUBLIC"
    isNewUi: bool = False
    featured: bool = False
    urls: list[str] = field(default_factory=list)
    creatorEmail: str | None = None
    defaultSourceSetName: str | None = None
    defaultSourceId: str | None = None
    defaultUmapSourceIds: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Model:
    """The line of ``model.jsonl``."""

    id: str
    displayName: str
    displayNameShort: str
    creatorId: str
    createdAt: str
    updatedAt: str
    instruct: bool = False
    layers: int = 0
    neuronsPerLayer: int = 0
    owner: str = ""
    visibility: str = "PUBLIC"
    inferenceEnabled: bool = False


@dataclass(frozen=True, kw_only=True)
class SourceSet:
    """The line of ``sourceset.jsonl``."""

    modelId: str
    name: str
    releaseName: str
    description: str
    creatorName: str
    creatorId: str
    createdAt: str
    type: str = ""
    urls: list[str] = field(default_factory=list)
    hasDashboards: bool = True
    visibility: str = "PUBLIC"
    defaultRange: int = 1
    defaultShowBreaks: bool = True
    showDfa: bool = False
    showCorrelated: bool = False
    showHeadAttribution: bool = False
    showUmap: bool = False


@dataclass(frozen=True, kw_only=True)
class Source:
    """The line of ``source.jsonl``: one coder."""

    id: str
    modelId: str
    setName: str
    creatorId: str
    createdAt: str
    num_prompts: int
    num_tokens_in_prompt: int
    dataset: str
    hasDashboards: bool = True
    inferenceEnabled: bool = False
    visibility: str = "PUBLIC"
    saelensConfig: str | None = None
    saelensRelease: str | None = None
    saelensSaeId: str | None = None
    hfRepoId: str | None = None
    hfFolderId: str | None = None
    hasUmap: bool = False
    hasUmapLogSparsity: bool = False
    hasUmapClusters: bool = False
    notes: str | None = None


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A line of ``features/``: one latent."""

    modelId: str
    layer: str
    """Name of the source."""
    index: str
    sourceSetName: str
    creatorId: str
    createdAt: str
    maxActApprox: float
    frac_nonzero: float
    hookName: str | None = None
    """Where the vector steers."""
    hasVector: bool = False
    vector: list[float] = field(default_factory=list)
    vectorLabel: str | None = None
    vectorDefaultSteerStrength: float = 10
    topkCosSimIndices: list[int] = field(default_factory=list)
    topkCosSimValues: list[float] = field(default_factory=list)
    neuron_alignment_indices: list[int] = field(default_factory=list)
    neuron_alignment_values: list[float] = field(default_factory=list)
    neuron_alignment_l1: list[float] = field(default_factory=list)
    correlated_neurons_indices: list[int] = field(default_factory=list)
    correlated_neurons_pearson: list[float] = field(default_factory=list)
    correlated_neurons_l1: list[float] = field(default_factory=list)
    correlated_features_indices: list[int] = field(default_factory=list)
    correlated_features_pearson: list[float] = field(default_factory=list)
    correlated_features_l1: list[float] = field(default_factory=list)
    neg_str: list[str] = field(default_factory=list)
    neg_values: list[float] = field(default_factory=list)
    pos_str: list[str] = field(default_factory=list)
    pos_values: list[float] = field(default_factory=list)
    freq_hist_data_bar_heights: list[float] = field(default_factory=list)
    freq_hist_data_bar_values: list[float] = field(default_factory=list)
    logits_hist_data_bar_heights: list[float] = field(default_factory=list)
    logits_hist_data_bar_values: list[float] = field(default_factory=list)
    decoder_weights_dist: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A line of ``activations/``: one example of a latent."""

    id: str
    modelId: str
    layer: str
    """Name of the source."""
    index: str
    tokens: list[str]
    values: list[float]
    maxValue: float
    maxValueTokenIndex: int
    minValue: float
    creatorId: str
    createdAt: str
    binMin: float
    binMax: float
    binContains: float
    qualifyingTokenIndex: int
    dataSource: str | None = None
    """Name of the document."""
    dataIndex: str | None = None
    """Number of the token in the text."""
    dfaValues: list[float] = field(default_factory=list)
    dfaTargetIndex: int | None = None
    dfaMaxValue: float | None = None
    lossValues: list[float] = field(default_factory=list)
    logitContributions: str | None = None
