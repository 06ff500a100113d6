"""What groups of latents of a large coder do to the model's loss when they are added to a small one that is spliced in.

Leask, Bussmann et al. 2025 (arXiv 2502.04878) add latents to a small coder and look at the model as well as at the
error. With s(x) what the small coder writes, and f_l d_l what latent l of the large one does, the site holds

    small            s(x)                            reconstruction   s(x) + sum of f_l d_l over the others that fire
    novel            s(x) + sum of f_l d_l over      large            what the large coder writes
                     the novel latents

and the cross-entropy (CE) of the next token and KL(p_clean | p) are measured, in nats per token. Latents that lower the
squared error one by one may overlap, so that together they need not help. Choose them on other text than that on which
the losses are measured.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unweave.analysis.stitching import written_scale
from unweave.coders import Port, SparseCoder
from unweave.metrics.base import Definition, Metric, Sums, blocks_of
from unweave.metrics.next_tokens import NextTokens, ReplacedLosses, TokenLosses
from unweave.models.language_model import LanguageModel
from unweave.types import TokenBatch

VARIANTS = ("small", "large", "novel", "reconstruction")
_KINDS = {"ce": ("Loss", "cross-entropy"), "kl": ("KL", "the divergence from the clean model")}

DEFINITIONS = tuple(
    definition
    for kind, (title, what) in _KINDS.items()
    for definition in (
        Definition(
            f"stitched_{kind}_novel",
            f"{title}, novel latents added",
            f"By how much {what} changes when all novel latents are added to the small coder, in nats per token.",
            "under 0 where the model misses what the small coder lacks",
        ),
        Definition(
            f"stitched_{kind}_reconstruction",
            f"{title}, other latents added",
            f"By how much {what} changes when all other latents that fire are added to the small coder, likewise.",
            "over 0: they repeat what is there",
        ),
        Definition(
            f"stitched_{kind}_small",
            f"{title} added by the small coder",
            f"By how much {what} rises with the small coder's reconstruction at the site, in nats per token.",
            "near 0",
        ),
        Definition(
            f"stitched_{kind}_large",
            f"{title} added by the large coder",
            f"By how much {what} rises with the large coder's reconstruction at the site, in nats per token.",
            "near 0, under that of the small coder",
        ),
    )
)


@final
class StitchedLoss(Metric[ReplacedLosses]):
    """Sums of next-token cross-entropy and of KL under each variant."""

    definitions = DEFINITIONS

    def __init__(self) -> None:
        super().__init__(tokens=(), ce_clean=(), **{f"{kind}_{name}": () for kind in _KINDS for name in VARIANTS})

    def update(self, batch: ReplacedLosses) -> None:
        """Of replacements by the names in ``VARIANTS``."""
        batch.add_to(self)

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        return dict(_figures({name: values / sums["tokens"] for name, values in sums.items() if name != "tokens"}))


@torch.no_grad()
def stitched_losses(
    model: LanguageModel,
    batch: TokenBatch,
    small: SparseCoder,
    large: SparseCoder,
    is_novel_L: Bool[Tensor, " L"],
) -> ReplacedLosses:
    """Five passes of the model: clean, and with each variant at the sites that both coders write.

    Coders read the model's own activations. Special tokens keep theirs. ``is_novel_L`` is of the large coder's latents.
    """
    ports = small.wiring.reads + small.wiring.writes
    seen = model.run(batch.token_ids, list(dict.fromkeys(port.site for port in ports)))
    x_BD = torch.cat([seen.activations[port.site].flatten(0, 1) for port in small.wiring.reads], dim=1)
    x_BD = x_BD.to(small.W_dec.dtype)
    codes = large.encode(x_BD)
    codes = codes.with_values(codes.values * written_scale(large, x_BD)[codes.row_ids])
    is_novel_E = is_novel_L.to(codes.latent_ids.device)[codes.latent_ids]
    base = small(x_BD)
    written = {
        "small": base,
        "large": large(x_BD),
        "novel": base + large.decode(codes.where(is_novel_E)) - large.b_dec,
        "reconstruction": base + large.decode(codes.where(~is_novel_E)) - large.b_dec,
    }
    is_special = ~batch.is_content.to(model.device)[..., None]
    tokens = NextTokens(batch.token_ids, seen.logits, batch.is_padding)
    replaced: dict[str, TokenLosses] = {}
    for name, y_BD in written.items():
        with model.patch(_edits(y_BD, small.wiring.writes, is_special)):
            (replaced[name],) = tokens.losses(model.logits(batch.token_ids))
    return ReplacedLosses(blocks_of(batch.document_ids)[tokens.is_predicted], tokens.ce, replaced)


def _edits(
    y_BD: Float[Tensor, "B D"], ports: tuple[Port, ...], is_special_NT1: Bool[Tensor, "N T 1"]
) -> dict[str, Callable[[Tensor], Tensor]]:
    parts = zip(ports, y_BD.split([port.width for port in ports], dim=1), strict=True)
    return {port.site: lambda x, y=y: torch.where(is_special_NT1, x, y.view_as(x).to(x.dtype)) for port, y in parts}


def _figures(means: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """In the order of the definitions."""
    for kind in _KINDS:
        clean = means["ce_clean"] if kind == "ce" else torch.zeros_like(means["ce_clean"])
        small = means[f"{kind}_small"]
        yield f"stitched_{kind}_novel", means[f"{kind}_novel"] - small
        yield f"stitched_{kind}_reconstruction", means[f"{kind}_reconstruction"] - small
        yield f"stitched_{kind}_small", small - clean
        yield f"stitched_{kind}_large", means[f"{kind}_large"] - clean
