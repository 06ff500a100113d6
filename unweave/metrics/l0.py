"""L0: how many latents are active per row."""

from typing import final

from unweave.metrics.base import CodedRows, Definition, Metric


@final
class L0(Metric[CodedRows]):
    """Mean number of active entries per row."""

    definitions = (
        Definition(
            "l0",
            "L0",
            "Mean number of latents active on a token. Fewer are easier to read, more reconstruct better.",
            "20 to 100; compare coders at equal L0",
        ),
    )

    def __init__(self) -> None:
        self.n_rows = 0
        self.n_active = 0

    def update(self, batch: CodedRows) -> None:
        self.n_rows += batch.codes.n_rows
        self.n_active += batch.codes.values.shape[0]

    def merge(self, other: "L0") -> None:
        self.n_rows += other.n_rows
        self.n_active += other.n_active

    def compute(self) -> dict[str, float]:
        return {"l0": self.n_active / self.n_rows}
