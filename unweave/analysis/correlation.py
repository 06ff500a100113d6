"""Which latents of two coders are the same where their directions cannot be compared: by what they do on the same rows.

Coders of other sites or other models have other widths. Given the same tokens, two latents are alike where their
activations are correlated (Pearson, over all rows; Bricken et al. 2023, Lan et al. 2024, arXiv 2410.06981):

    correlation_best      mean over the first coder's latents that fired of the largest correlation with any other's
    correlation_matched   mean correlation of the one-to-one matching with the largest sum of positive correlations
    correlation_partners  share of the first coder's latents that fired which have a partner in it

Latents whose best match is that of others too say little of which is the same; ``unique_best`` leaves them out, as Lan
et al. do. Both may also be given which latents to keep, for example those that do not fire on punctuation. For a floor,
give ``CoFiring`` the second coder's codes with rows in another order (``cofiring.shuffled_rows``).
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from unweave.analysis.cofiring import CoFiring
from unweave.analysis.cosines import Pairs
from unweave.analysis.matching import match_edges
from unweave.errors import UserError
from unweave.metrics.base import Definition

DEFINITIONS = (
    Definition(
        "correlation_best",
        "Best correlation",
        "Largest correlation of each latent's activations with those of any latent of the other coder, averaged over "
        "the latents that fired.",
        "over 0.5 between seeds; far above that of shuffled rows",
    ),
    Definition(
        "correlation_matched",
        "Matched correlation",
        "Correlation of activations under the best one-to-one matching of two coders' latents, averaged over pairs.",
        "over 0.4 between seeds; far above that of shuffled rows",
    ),
    Definition(
        "correlation_partners",
        "Latents with a partner",
        "Share of the first coder's latents that fired which got a partner in the one-to-one matching.",
        "near 1",
    ),
)


def correlated(
    fired: CoFiring,
    *,
    min_count: int = 5,
    keep_first: Bool[Tensor, " L"] | None = None,
    keep_second: Bool[Tensor, " M"] | None = None,
) -> Pairs:
    """Pairs with a positive correlation that were active together on at least so many rows.

    Latents that never fire together are correlated a little below 0, so they are nobody's best.
    """
    pairs = fired.together(min_count).pairs("correlation")
    chosen = pairs.strength > 0
    for keep, ids, n in ((keep_first, pairs.first, fired.n_first), (keep_second, pairs.second, fired.n_second)):
        if keep is not None:
            if len(keep) != n:
                raise UserError(f"which latents to keep must be said of all {n}, got {len(keep)}")
            chosen &= keep.cpu()[ids]
    return Pairs(*(part[chosen] for part in pairs))


def match_by_correlation(pairs: Pairs, fired: CoFiring) -> Pairs:
    """The one-to-one matching of correlated pairs with the largest sum; latents without one are left out."""
    return match_edges(pairs, fired.n_first, fired.n_second)


def best(pairs: Pairs) -> Pairs:
    """The strongest pair of each latent of the first that has any."""
    order = pairs.strength.argsort(descending=True, stable=True)
    order = order[pairs.first[order].argsort(stable=True)]
    first = pairs.first[order]
    is_best = torch.ones(len(first), dtype=torch.bool)
    is_best[1:] = first[1:] != first[:-1]
    return Pairs(*(part[order[is_best]] for part in pairs))


def unique_best(pairs: Pairs) -> Pairs:
    """The same without those whose partner is the best of another latent too."""
    chosen = best(pairs)
    _, inverse, counts = chosen.second.unique(return_inverse=True, return_counts=True)
    alone = counts[inverse] == 1
    return Pairs(*(part[alone] for part in chosen))


def correlation_figures(pairs: Pairs, fired: CoFiring) -> dict[str, float]:
    """The figures above; a latent without a positive correlation counts as 0 in the best."""
    has_fired = fired.powers[0][0] > 0
    strongest = torch.zeros(fired.n_first, dtype=torch.float64)
    chosen = best(pairs)
    strongest[chosen.first] = chosen.strength
    matched = match_by_correlation(pairs, fired)
    return {
        "correlation_best": strongest[has_fired].mean().item(),
        "correlation_matched": matched.strength.mean().item(),
        "correlation_partners": len(matched.first) / max(1, int(has_fired.sum())),
    }
