"""What is known of every latent after one pass over a text: density, strongest examples, promoted tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.types import Codes, Rows, TokenBatch


@dataclass(frozen=True)
class Example:
    """A stretch of text around a token on which a latent fires."""

    token_ids: list[int]
    activations: list[float]
    """The latent's activation on each of these tokens."""
    peak: int
    """Index of the token for which the example was chosen."""
    document: str


@dataclass(frozen=True)
class TokenWeight:
    """A token and how strongly a latent pushes its logit up or down."""

    token_id: int
    weight: float


@dataclass(frozen=True)
class LatentRecord:
    """One latent, as the pages and the index show it."""

    latent: int
    density: float
    """Share of tokens on which it fires."""
    n_fires: int
    max_activation: float
    mean_activation: float
    """Mean over the tokens on which it fires."""
    examples: list[Example]
    """Strongest first, each from another sequence."""
    promoted: list[TokenWeight]
    """Strongest first; empty where the site does not write to the residual stream."""
    suppressed: list[TokenWeight]


class LatentRecorder:
    """Collects all latents at once; memory is that of the examples kept, whatever the length of the text."""

    def __init__(self, n_latents: int, *, n_examples: int = 8, reach: int = 12) -> None:
        """Keep ``n_examples`` per latent, each with ``reach`` tokens to the left and to the right."""
        self.n_latents = n_latents
        self.n_examples = n_examples
        self.reach = reach
        self.n_rows = 0
        self.n_fires = torch.zeros(n_latents, dtype=torch.int64)
        self.total = torch.zeros(n_latents, dtype=torch.float64)
        width = 2 * reach + 1
        self.peaks = torch.full((n_latents, n_examples), -torch.inf)
        self.windows = torch.full((n_latents, n_examples, width), -1, dtype=torch.int32)
        self.activations = torch.zeros(n_latents, n_examples, width)
        self.documents = torch.full((n_latents, n_examples), -1, dtype=torch.int64)

    def update(self, batch: TokenBatch, rows: Rows, codes: Codes) -> None:
        """Add the codes of one token batch's rows."""
        codes = Codes(codes.values.cpu(), codes.latent_ids.cpu(), codes.row_offsets.cpu(), codes.n_latents)
        self.n_rows += codes.n_rows
        self.n_fires += torch.bincount(codes.latent_ids, minlength=self.n_latents)
        self.total.index_add_(0, codes.latent_ids, codes.values.double())
        if codes.values.shape[0] == 0:
            return
        entries, ranks = self._strongest(rows, codes)
        latents = codes.latent_ids[entries]
        better = codes.values[entries] > self.peaks[latents, -1]
        if better.any():
            self._insert(entries[better], ranks[better], batch, rows, codes)

    def records(
        self,
        document_names: Sequence[str],
        promoted: tuple[Int[Tensor, "L P"], Float[Tensor, "L P"]] | None,
        suppressed: tuple[Int[Tensor, "L P"], Float[Tensor, "L P"]] | None,
    ) -> list[LatentRecord]:
        """One record per latent; the token weights come from the logit lens."""
        return [
            LatentRecord(
                latent=latent,
                density=self.n_fires[latent].item() / max(1, self.n_rows),
                n_fires=int(self.n_fires[latent]),
                max_activation=max(0.0, self.peaks[latent, 0].item()),
                mean_activation=self.total[latent].item() / max(1, int(self.n_fires[latent])),
                examples=self._examples(latent, document_names),
                promoted=_token_weights(promoted, latent),
                suppressed=_token_weights(suppressed, latent),
            )
            for latent in range(self.n_latents)
        ]

    def _strongest(self, rows: Rows, codes: Codes) -> tuple[Tensor, Tensor]:
        """Entries that are the strongest of their latent and sequence, with their rank within the latent (best n)."""
        n_sequences = int(rows.sequences.max()) + 1
        by_value = codes.values.argsort(descending=True)
        group = codes.latent_ids[by_value] * n_sequences + rows.sequences[codes.row_ids[by_value]]
        by_group = group.argsort(stable=True)
        is_first = torch.ones(by_group.shape[0], dtype=torch.bool)
        is_first[1:] = group[by_group[1:]] != group[by_group[:-1]]
        entries = by_value[by_group[is_first]]

        entries = entries[codes.values[entries].argsort(descending=True)]
        entries = entries[codes.latent_ids[entries].argsort(stable=True)]
        counts = torch.bincount(codes.latent_ids[entries], minlength=self.n_latents)
        starts = counts.cumsum(0) - counts
        ranks = torch.arange(entries.shape[0]) - starts[codes.latent_ids[entries]]
        kept = ranks < self.n_examples
        return entries[kept], ranks[kept]

    def _insert(self, entries: Tensor, ranks: Tensor, batch: TokenBatch, rows: Rows, codes: Codes) -> None:
        """Merge new candidates into the examples of the latents that they belong to."""
        touched, place = codes.latent_ids[entries].unique(return_inverse=True)
        shape = (touched.shape[0], self.n_examples)
        peaks = torch.full(shape, -torch.inf)
        peaks[place, ranks] = codes.values[entries]
        tokens, activations, documents = _windows(entries, self.reach, batch, rows, codes)
        new_windows = self.windows.new_full((*shape, tokens.shape[1]), -1)
        new_windows[place, ranks] = tokens
        new_activations = self.activations.new_zeros(*shape, tokens.shape[1])
        new_activations[place, ranks] = activations
        new_documents = self.documents.new_full(shape, -1)
        new_documents[place, ranks] = documents

        best = torch.cat([self.peaks[touched], peaks], 1).topk(self.n_examples, dim=1)
        self.peaks[touched] = best.values
        self.documents[touched] = torch.cat([self.documents[touched], new_documents], 1).gather(1, best.indices)
        chosen = best.indices[..., None].expand(-1, -1, tokens.shape[1])
        self.windows[touched] = torch.cat([self.windows[touched], new_windows], 1).gather(1, chosen)
        self.activations[touched] = torch.cat([self.activations[touched], new_activations], 1).gather(1, chosen)

    def _examples(self, latent: int, document_names: Sequence[str]) -> list[Example]:
        examples = []
        for i in range(self.n_examples):
            inside = self.windows[latent, i] >= 0
            if not inside[self.reach]:
                break
            examples.append(
                Example(
                    token_ids=self.windows[latent, i][inside].tolist(),
                    activations=[round(a, 4) for a in self.activations[latent, i][inside].tolist()],
                    peak=int(inside[: self.reach].sum()),
                    document=document_names[int(self.documents[latent, i])],
                )
            )
        return examples


def _windows(
    entries: Tensor, reach: int, batch: TokenBatch, rows: Rows, codes: Codes
) -> tuple[Int[Tensor, "C W"], Float[Tensor, "C W"], Int[Tensor, " C"]]:
    """Tokens around each entry (-1 beyond the sequence), the latent's activations there, and the document."""
    n_sequences, length = batch.token_ids.shape
    row, latent = codes.row_ids[entries], codes.latent_ids[entries]
    sequence, position = rows.sequences[row], rows.positions[row]
    around = position[:, None] + torch.arange(-reach, reach + 1)
    inside = (around >= 0) & (around < length)
    flat = sequence[:, None] * length + around.clamp(0, length - 1)
    tokens = batch.token_ids.flatten()[flat].masked_fill(~inside, -1).int()

    row_at = torch.full((n_sequences * length,), -1, dtype=torch.int64)
    row_at[rows.sequences * length + rows.positions] = torch.arange(len(rows))
    near = row_at[flat]
    keys = codes.row_ids * codes.n_latents + codes.latent_ids
    wanted = near * codes.n_latents + latent[:, None]
    found = torch.searchsorted(keys, wanted).clamp(max=keys.shape[0] - 1)
    fires = (keys[found] == wanted) & inside & (near >= 0)
    return tokens, codes.values[found] * fires, rows.document_ids[row]


def _token_weights(table: tuple[Tensor, Tensor] | None, latent: int) -> list[TokenWeight]:
    if table is None:
        return []
    ids, weights = table
    return [TokenWeight(i, round(w, 4)) for i, w in zip(ids[latent].tolist(), weights[latent].tolist(), strict=True)]
