"""What is known of one latent, as pages, notebooks and files show it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """A stretch of text around a token on which a latent fires."""

    token_ids: list[int]
    activations: list[float]
    """The latent's activation on each of these tokens."""
    peak: int
    """Index of the token for which the example was chosen."""
    document: str
    place: int = -1
    """Number of that token in the indexed text, special tokens and padding counted."""


@dataclass(frozen=True)
class ExampleGroup:
    """Examples drawn from one share of a latent's fires."""

    low: float
    """The smallest activation of the share."""
    high: float
    share: float
    """Of all fires."""
    examples: list[Example]


@dataclass(frozen=True)
class TokenWeight:
    """A token and how strongly a latent pushes its logit up or down."""

    token_id: int
    weight: float


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width."""

    low: float
    high: float
    counts: list[int]


@dataclass(frozen=True)
class Partner:
    """Another latent that fires at the same tokens."""

    latent: int
    jaccard: float
    """Tokens at which both fire, over those at which either does."""
    pmi: float
    """Logarithm of how many times as often both fire as they would by chance."""


@dataclass(frozen=True)
class Similar:
    """Another latent that writes in nearly the same direction."""

    latent: int
    cosine: float


@dataclass(frozen=True)
class NeuronWeight:
    """A coordinate of the site, and what the latent's direction has there."""

    neuron: int
    value: float
    share: float
    """Of the direction's sum of absolute values."""


@dataclass(frozen=True)
class TokenCount:
    """Tokens at which a latent fires, and how often."""

    token_ids: list[int]
    count: int


@dataclass(frozen=True)
class Telling:
    """How much one variable tells of when a latent fires; see ``analysis.token_statistics``."""

    share: float
    """Of the uncertainty that goes away when it is known, on documents from which it was not learned."""
    entropy: float
    """In bits, where the latent fires."""
    top: list[TokenCount]
    """The most frequent; positions have their number in the place of a token."""


@dataclass(frozen=True)
class TokenRule:
    """Tokens that name the latent's fires, on documents from which they were not learned."""

    variable: str
    """``token``, ``previous``, ``bigram`` or ``trigram``."""
    token_ids: list[list[int]]
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class LatentRecord:
    """One latent."""

    latent: int
    density: float
    """Share of tokens on which it fires."""
    n_fires: int
    max_activation: float
    mean_activation: float
    """Mean over the tokens on which it fires."""
    examples: list[Example]
    """Strongest first, each of another document while there are so many."""
    promoted: list[TokenWeight]
    """Strongest first; empty where the site does not write to the residual stream."""
    suppressed: list[TokenWeight]
    groups: list[ExampleGroup] = field(default_factory=list)
    """Examples drawn from equal shares of the fires, the strongest share first."""
    quantiles: list[tuple[float, float]] = field(default_factory=list)
    """Shares of the fires, and the activation that so large a share does not exceed."""
    histogram: Histogram | None = None
    """Of the activations where it fires."""
    logits: Histogram | None = None
    """Of what it adds to the logits of all tokens."""
    partners: list[Partner] = field(default_factory=list)
    similar: list[Similar] = field(default_factory=list)
    neurons: list[NeuronWeight] = field(default_factory=list)
    """The largest coordinates of what it writes."""
    telling: dict[str, Telling] = field(default_factory=dict)
    """By variable: token, previous, next, position, bigram, trigram."""
    rule: TokenRule | None = None

    @property
    def is_dead(self) -> bool:
        """Whether it never fires."""
        return self.n_fires == 0
