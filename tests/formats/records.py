"""Records that are hard to write down elsewhere: hostile tokens, a dead latent, one without logits."""

from unweave.latent_record import (
    Example,
    ExampleGroup,
    Histogram,
    LatentRecord,
    NeuronWeight,
    Partner,
    Similar,
    TokenWeight,
)

VOCABULARY = ["", "\0", "\n", "</script><b>", "\u202eevil", " the", "naïve", '"\\', "😀", " cat"]


def full_record() -> LatentRecord:
    """A latent of which everything that dashboards hold is known."""
    strong = Example([5, 9, 2, 3], [0.0, 6.0, 0.0, 1.5], 1, "a.txt", place=33)
    weak = Example([0, 1, 4], [0.0, 0.0, 1.0], 2, "b.txt", place=7)
    return LatentRecord(
        latent=7,
        density=0.04,
        n_fires=20,
        max_activation=6.0,
        mean_activation=2.9,
        examples=[strong],
        promoted=[TokenWeight(9, 2.5), TokenWeight(1, 1.25)],
        suppressed=[TokenWeight(3, -2.0)],
        groups=[ExampleGroup(3.0, 6.0, 0.5, [strong]), ExampleGroup(1.0, 3.0, 0.5, [weak, weak])],
        quantiles=[(0.0, 1.0), (1.0, 6.0)],
        histogram=Histogram(1.0, 6.0, [10, 5, 0, 2, 3]),
        logits=Histogram(-2.0, 2.5, [4, 1, 5]),
        partners=[Partner(3, 0.5, 1.0)],
        similar=[Similar(2, 0.75), Similar(0, 0.5)],
        neurons=[NeuronWeight(11, -0.9, 0.3), NeuronWeight(4, 0.5, 0.2), NeuronWeight(6, 0.25, 0.1)],
    )


def dead_record() -> LatentRecord:
    return LatentRecord(3, 0.0, 0, 0.0, 0.0, [], [], [])
