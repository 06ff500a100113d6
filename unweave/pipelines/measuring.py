"""One pass over held-out text for several coders and their controls, whole or every n-th batch of it.

Of n processes each takes every n-th batch, with the blocks and the draws that it has in a single process. So what they
have counted together is what one process would have, up to the order of sums.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from unweave.coders import SparseCoder
from unweave.evals.controls import Kind
from unweave.evals.core import CoderMeasures, CoreMeasures
from unweave.pipelines.floors import FirstRows
from unweave.pipelines.progress import Bar
from unweave.pipelines.workbench import Workbench
from unweave.training.ranks import Ranks
from unweave.types import Part, TokenBatch

RESAMPLING_SEED = 0
"""Draws the rows of resample ablation."""
_TOGETHER = 16
"""Batches of each process after which they wait for each other, so that none is far ahead in the end."""


class Extent(NamedTuple):
    """How much of the text was read."""

    n_tokens: int = 0
    n_documents: int = 0

    def and_batch(self, batch: TokenBatch) -> "Extent":
        n_documents = max(self.n_documents, int(batch.document_ids.max()) + 1)
        return Extent(self.n_tokens + int(batch.is_content.sum()), n_documents)


class Measuring:
    """What is counted of coders, and of their controls on the first part of what is spliced."""

    def __init__(self, coders: Mapping[str, SparseCoder], bench: Workbench, first: FirstRows) -> None:
        self._config = bench.recipe.evaluation
        controls = {str(kind): control for kind, control in first.controls.items()}
        self._measures = CoreMeasures(
            bench.model,
            {**coders, **controls},
            first.means,
            max_norm=bench.recipe.packing.max_norm,
            seed=RESAMPLING_SEED,
        )
        self.coders = {name: self._measures.coders[name] for name in coders}
        self.controls: dict[Kind, CoderMeasures] = {kind: self._measures.coders[str(kind)] for kind in first.controls}
        self.whole, self.spliced, self.controlled = Extent(), Extent(), Extent()

    def read(self, batches: Iterable[TokenBatch], bar: Bar, ranks: Ranks | None = None) -> None:
        """Count a text, shared among processes."""
        part = Part() if ranks is None else Part(ranks.rank, ranks.count)
        for number, batch in enumerate(batches):
            self.add(batch, is_own=number % part.of == part.number)
            bar.at(min(self.whole.n_tokens, self._config.tokens))
            if ranks is not None and number % (_TOGETHER * part.of) == 0:
                ranks.wait()

    def add(self, batch: TokenBatch, *, is_own: bool = True) -> None:
        """Count the next batch of the text, or leave it to another process."""
        splice = self.whole.n_tokens < self._config.splice_tokens
        control = splice and self.whole.n_tokens < self._config.floor_tokens
        if not control:
            self._measures.coders = self.coders
        if is_own:
            self._measures.update(batch, splice=splice)
        else:
            self._measures.skip(batch)
        self.whole = self.whole.and_batch(batch)
        self.spliced = self.spliced.and_batch(batch) if splice else self.spliced
        self.controlled = self.controlled.and_batch(batch) if control else self.controlled

    def merge(self, ranks: Ranks) -> None:
        """Bring what all processes have counted to the first."""
        for measures in [*self.coders.values(), *self.controls.values()]:
            for others in ranks.of_others(measures.metrics):
                for metric, other in zip(measures.metrics, others, strict=True):
                    metric.merge(other)
