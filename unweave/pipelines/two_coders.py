"""Two coders that are compared, with the models and the text that they are given."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from unweave.activations.coded import encoded, rows_at
from unweave.activations.harvest import rows_of
from unweave.coders import SparseCoder
from unweave.config import apply_overrides
from unweave.errors import UserError
from unweave.metrics import blocks_of
from unweave.models.language_model import LanguageModel
from unweave.pipelines.load import load
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_job
from unweave.pipelines.workbench import MEASURING, SEQUENCES, Workbench, bench_of, device_of, set_up
from unweave.storage.run_folder import Run
from unweave.types import Codes, Rows, TokenBatch

_WITHOUT_RUN = (*MEASURING, "model.", "packing.")
"""What may be set where no run says it."""


class RowsOfBoth(NamedTuple):
    """Rows of the same tokens: what each coder reads, and what each should write."""

    reads: tuple[Float[Tensor, "B _"], Float[Tensor, "B _"]]
    writes: tuple[Float[Tensor, "B _"], Float[Tensor, "B _"]]
    blocks: Int[Tensor, " B"]


@dataclass(frozen=True)
class TwoCoders:
    """Two coders; models and text are loaded when a comparison first asks for them."""

    names: tuple[str, str]
    coders: tuple[SparseCoder, SparseCoder]
    runs: tuple[Run, ...]
    """Those of the two that are runs; the first of them says which text is read."""
    overrides: tuple[str, ...]
    watch: Watch

    @cached_property
    def bench(self) -> Workbench:
        """The text, and the model of the first coder, on whose device both coders are from now on."""
        with self.watch.waiting("loading the model and the text"):
            bench = bench_of(self.runs[0], self.overrides) if self.runs else self._bench_without_run()
            for coder in self.coders:
                coder.to(bench.model.device)
        return bench

    @cached_property
    def models(self) -> tuple[LanguageModel, LanguageModel]:
        """The model of each coder; one object where it is the same. Raises ``UserError`` for other tokens."""
        recipe, loaded = self.bench.recipe, {self.bench.model.name: self.bench.model}
        names = [_model_of(name, coder) for name, coder in zip(self.names, self.coders, strict=True)]
        for name in names:
            if name not in loaded:
                with self.watch.waiting(f"loading {name}"):
                    loaded[name] = LanguageModel.load(name, device=device_of(recipe), dtype=recipe.model.dtype)
                _check_tokens(self.bench.model, loaded[name])
        return loaded[names[0]], loaded[names[1]]

    @property
    def share_a_model(self) -> bool:
        return _model_of(self.names[0], self.coders[0]) == _model_of(self.names[1], self.coders[1])

    @property
    def n_tokens(self) -> int:
        return self.bench.recipe.evaluation.tokens

    def batches(self, title: str, n_tokens: int, *, odd: bool = False) -> Iterator[TokenBatch]:
        """Every other batch of held-out text until it has so many tokens, with a bar; ``odd``: the batches between."""
        n_done = 0
        with self.watch.bar(title, n_tokens) as bar:
            for number, batch in enumerate(self.bench.token_batches(self.bench.corpus.held_out, SEQUENCES)):
                if number % 2 != odd:
                    continue
                # of a long document, each batch counts as another one for the errors
                yield batch._replace(document_ids=batch.document_ids + number // 2)
                n_done += int(batch.is_content.sum())
                bar.at(min(n_done, n_tokens))
                if n_done >= n_tokens:
                    return
            if not n_done:
                raise UserError("the held-out text fills a single batch, which cannot be learned from and measured on")

    def rows(self, batch: TokenBatch) -> RowsOfBoth:
        """What both read and should write; a row that ``packing.max_norm`` leaves out for one is in neither."""
        captured, kept = self._captured(batch)
        places = _places(kept, batch)
        (x, y), (other_x, other_y) = (
            tuple(rows_at(coder, own, ports, places) for ports in (coder.wiring.reads, coder.wiring.writes))
            for coder, own in zip(self.coders, captured, strict=True)
        )
        return RowsOfBoth((x, other_x), (y, other_y), blocks_of(kept.document_ids))

    def codes(self, batch: TokenBatch) -> tuple[Codes, Codes]:
        """What both make of these rows."""
        captured, kept = self._captured(batch)
        places = _places(kept, batch)
        first, second = (encoded(coder, own, places) for coder, own in zip(self.coders, captured, strict=True))
        return first, second

    def _captured(self, batch: TokenBatch) -> tuple[list[dict[str, Tensor]], Rows]:
        """The activations at the sites of each coder, and which rows of both count."""
        sites = [{port.site for port in coder.wiring.reads + coder.wiring.writes} for coder in self.coders]
        models = self.models
        if models[0] is models[1]:
            captured = [models[0].capture(batch.token_ids, sorted(sites[0] | sites[1]))] * 2
        else:
            captured = [model.capture(batch.token_ids, sorted(own)) for model, own in zip(models, sites, strict=True)]
        joined = {f"{number} {site}": x for number, own in enumerate(captured) for site, x in own.items()}
        return captured, rows_of(batch, joined, max_norm=self.bench.recipe.packing.max_norm)

    def _bench_without_run(self) -> Workbench:
        if wrong := [override for override in self.overrides if not override.startswith(_WITHOUT_RUN)]:
            raise UserError(f"{wrong[0]!r} is no setting of a comparison; give {', '.join(_WITHOUT_RUN)} settings")
        coder = self.coders[0]
        prepend_bos = coder.origin is None or coder.origin.prepend_bos
        values = {
            "site": [port.site for port in coder.wiring.reads],
            "model": {"name": _model_of(self.names[0], coder)},
            "packing": {"prepend_bos": prepend_bos},
            "coder": {"type": "topk"},
        }
        return set_up(build_job(apply_overrides(values, list(self.overrides))).recipe)


def two_coders(first: str, second: str, watch: Watch, *, model: str = "", overrides: Sequence[str] = ()) -> TwoCoders:
    """Load whatever ``load`` reads; ``model`` is that of coders that are not runs.

    Of two runs the first says which text both are given.
    """
    coders: list[SparseCoder] = []
    runs: list[Run] = []
    with watch.waiting("loading"):
        for source in (first, second):
            if _is_run(source):
                runs.append(Run(source))
                coders.append(runs[-1].coder)
            else:
                coders.append(load(source, model=model))
    return TwoCoders((first, second), (coders[0], coders[1]), tuple(runs), tuple(overrides), watch)


def _places(rows: Rows, batch: TokenBatch) -> Int[Tensor, " B"]:
    """Of rows in the batch's joined sequences."""
    return rows.sequences * batch.token_ids.shape[1] + rows.positions


def _is_run(source: str) -> bool:
    path = Path(source).expanduser()
    return (path / "config.toml").is_file() and (path / "coder").is_dir()


def _model_of(name: str, coder: SparseCoder) -> str:
    if coder.origin is None or not coder.origin.model:
        raise UserError(f"the files of {name!r} do not say which model it belongs to; give --model")
    return coder.origin.model


def _check_tokens(model: LanguageModel, other: LanguageModel) -> None:
    """Rows of two models can be compared where both read the same tokens."""
    tokens = [None if m.tokenizer is None else m.tokenizer.get_vocab() for m in (model, other)]
    if tokens[0] is None or tokens[0] != tokens[1]:
        raise UserError(f"{model.name} and {other.name} have other tokens, so their rows cannot be paired")
