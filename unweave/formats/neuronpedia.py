"""Neuronpedia's files, out: the tree that its importer reads, and bodies of its ``/api/feature/upload-batch``.

Identifiers of activations are made from what they identify, so a second import of a tree adds nothing. The database is
PostgreSQL, whose texts hold no NUL, and an upload takes no empty token: both are written as the signs that stand for
them.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from unweave.errors import UserError
from unweave.formats.neuronpedia_rows import Activation, Feature, Model, Release, Source, SourceSet
from unweave.formats.saedashboard import Activation as Stretch
from unweave.formats.saedashboard import Feature as Dashboard
from unweave.formats.saedashboard import Prompts
from unweave.latent_record import LatentRecord

CREATOR = "clkht01d40000jv08hvalcvly"
"""The user to whom a local Neuronpedia, as it comes, gives what it imports."""
PER_UPLOAD = 128
"""Latents of one upload."""
_MOST_TOKENS = 1024
_MOST_LOGITS = 20
_LONGEST_TEXT = 512
_LARGEST_BOUND = 99_999_999
_EMPTY, _NUL = "∅", "␀"
_AUTHOR = "unweave"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a coder's latents are on Neuronpedia, and who says so."""

    model: str
    layer: int
    source_set: str
    """Name of a family of coders, such as ``res-16k``; there is at most one of each layer."""
    created: str
    """When, as 2020-01-31T12:00:00.000Z."""
    creator: str = CREATOR
    """Identifier of a user."""

    def __post_init__(self) -> None:
        for what, name in (("model", self.model), ("source set", self.source_set)):
            if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) or "__" in name:
                raise UserError(
                    f"Neuronpedia's names have small letters, digits, - and single _; got {what} {name!r}, "
                    f"try {slug(name)!r}"
                )

    @property
    def source(self) -> str:
        """Name of the coder."""
        return f"{self.layer}-{self.source_set}"


_Token = Annotated[str, Field(min_length=1)]
_Bound = Annotated[float, Field(le=_LARGEST_BOUND)]


@checked(frozen=True, kw_only=True)
class UploadLogit:
    """A token that a latent promotes or suppresses."""

    token: _Token
    value: float


@checked(frozen=True, kw_only=True)
class UploadExplanation:
    """What a latent stands for, in words; Neuronpedia must know the method and the model by these names."""

    text: Annotated[str, Field(min_length=1, max_length=_LONGEST_TEXT)]
    methodName: str | None = None
    modelName: str | None = None


@checked(frozen=True, kw_only=True)
class UploadActivation:
    """An example; the strongest have no interval."""

    tokens: Annotated[list[_Token], Field(min_length=1, max_length=_MOST_TOKENS)]
    values: Annotated[list[float], Field(min_length=1, max_length=_MOST_TOKENS)]
    quantileMin: _Bound | None = None
    quantileMax: _Bound | None = None
    quantileFraction: Annotated[float, Field(ge=0, le=1)] | None = None

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.values):
            raise ValueError(f"an example has {len(self.tokens)} tokens and {len(self.values)} values")


@checked(frozen=True, kw_only=True)
class UploadFeature:
    """One latent."""

    index: Annotated[int, Field(ge=0, le=10_000_000)]
    density: Annotated[float, Field(ge=0, le=1)]
    topLogits: Annotated[list[UploadLogit], Field(max_length=_MOST_LOGITS)]
    bottomLogits: Annotated[list[UploadLogit], Field(max_length=_MOST_LOGITS)]
    explanations: list[UploadExplanation]
    activations: Annotated[list[UploadActivation], Field(min_length=1)]


@checked(frozen=True, kw_only=True)
class UploadBatch:
    """The body of one request."""

    modelId: str
    source: str
    features: Annotated[list[UploadFeature], Field(min_length=1, max_length=PER_UPLOAD)]

    def __post_init__(self) -> None:
        if len({feature.index for feature in self.features}) < len(self.features):
            raise ValueError("an upload has a latent twice")


def slug(name: str) -> str:
    """The nearest to a name that Neuronpedia takes as one."""
    return re.sub(r"[-_]*_[-_]*", "_", re.sub(r"[^a-z0-9_.]+", "-", name.lower())).strip("-_.") or "unnamed"


def about_rows(at: Address, prompts: Prompts, description: str) -> dict[str, Release | Model | SourceSet | Source]:
    """The one line of each of the four files, by name, that say what the latents are of."""
    release = Release(
        name=at.source_set,
        description=description,
        descriptionShort=at.source_set,
        creatorName=_AUTHOR,
        creatorNameShort=_AUTHOR,
        creatorId=at.creator,
        createdAt=at.created,
    )
    model = Model(
        id=at.model,
        displayName=at.model,
        displayNameShort=at.model,
        creatorId=at.creator,
        createdAt=at.created,
        updatedAt=at.created,
    )
    source_set = SourceSet(
        modelId=at.model,
        name=at.source_set,
        releaseName=at.source_set,
        description=description,
        creatorName=_AUTHOR,
        creatorId=at.creator,
        createdAt=at.created,
    )
    source = Source(
        id=at.source,
        modelId=at.model,
        setName=at.source_set,
        creatorId=at.creator,
        createdAt=at.created,
        num_prompts=prompts.n_prompts,
        num_tokens_in_prompt=prompts.n_tokens,
        dataset=prompts.dataset,
    )
    return {"release": release, "model": model, "sourceset": source_set, "source": source}


def safe_texts(vocabulary: Sequence[str]) -> list[str]:
    """The text of each token id, as Neuronpedia takes it."""
    return [text.replace("\0", _NUL) or _EMPTY for text in vocabulary]


def feature_row(record: LatentRecord, dashboard: Dashboard, at: Address) -> Feature:
    """A latent's line of ``features/``; ``dashboard`` is what SAEDashboard has of it, made with safe texts."""
    shared = {name: value for name, value in vars(dashboard).items() if name in Feature.__dataclass_fields__}
    return Feature(
        modelId=at.model,
        layer=at.source,
        index=str(record.latent),
        sourceSetName=at.source_set,
        creatorId=at.creator,
        createdAt=at.created,
        maxActApprox=record.max_activation,
        topkCosSimIndices=[similar.latent for similar in record.similar],
        topkCosSimValues=[similar.cosine for similar in record.similar],
        **shared,
    )


def activation_rows(record: LatentRecord, dashboard: Dashboard, at: Address) -> Iterator[Activation]:
    """A latent's lines of ``activations/``: the strongest examples, then those of each group."""
    examples = [*record.examples, *(example for group in record.groups for example in group.examples)]
    for number, (example, stretch) in enumerate(zip(examples, dashboard.activations, strict=True)):
        largest = max(stretch.values)
        yield Activation(
            id=_identifier(at.model, at.source, record.latent, number),
            modelId=at.model,
            layer=at.source,
            index=str(record.latent),
            tokens=stretch.tokens,
            values=stretch.values,
            maxValue=largest,
            maxValueTokenIndex=stretch.values.index(largest),
            minValue=min(stretch.values),
            creatorId=at.creator,
            createdAt=at.created,
            binMin=stretch.bin_min,
            binMax=stretch.bin_max,
            binContains=stretch.bin_contains,
            qualifyingTokenIndex=stretch.qualifying_token_index,
            dataSource=example.document.replace("\0", _NUL) or None,
            dataIndex=str(example.place) if example.place >= 0 else None,
        )


def upload_feature(dashboard: Dashboard, explanations: Sequence[str] = ()) -> UploadFeature | None:
    """A latent as it is uploaded, longer explanations cut; None for one without examples, which is not taken."""
    if not dashboard.activations:
        return None
    return UploadFeature(
        index=dashboard.feature_index,
        density=dashboard.frac_nonzero,
        topLogits=_logits(dashboard.pos_str, dashboard.pos_values),
        bottomLogits=_logits(dashboard.neg_str, dashboard.neg_values),
        explanations=[UploadExplanation(text=_cut(text)) for text in explanations if text],
        activations=[_upload_activation(stretch) for stretch in dashboard.activations],
    )


def row_json(row: Any) -> bytes:
    """A row or an upload as one line of JSON."""
    return _adapter(type(row)).dump_json(row)


def parse_row(kind: type, line: str | bytes) -> Any:
    """A row or an upload from its JSON; raises ``ValueError`` where it is not one."""
    return _adapter(kind).validate_json(line)


def _upload_activation(stretch: Stretch) -> UploadActivation:
    start = max(0, min(stretch.qualifying_token_index - _MOST_TOKENS // 2, len(stretch.tokens) - _MOST_TOKENS))
    shown = slice(start, start + _MOST_TOKENS)
    is_drawn = stretch.bin_min >= 0 and stretch.bin_max <= _LARGEST_BOUND
    return UploadActivation(
        tokens=stretch.tokens[shown],
        values=stretch.values[shown],
        quantileMin=stretch.bin_min if is_drawn else None,
        quantileMax=stretch.bin_max if is_drawn else None,
        quantileFraction=stretch.bin_contains if is_drawn else None,
    )


def _logits(texts: Sequence[str], values: Sequence[float]) -> list[UploadLogit]:
    pairs = list(zip(texts, values, strict=True))[:_MOST_LOGITS]
    return [UploadLogit(token=text, value=value) for text, value in pairs]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _identifier(model: str, source: str, latent: int, number: int) -> str:
    """25 letters and digits, the form of the database's own identifiers."""
    return "c" + hashlib.sha256(f"{model}/{source}/{latent}/{number}".encode()).hexdigest()[:24]


@cache
def _adapter(kind: type) -> Any:
    return TypeAdapter(kind)
