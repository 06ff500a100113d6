# pyright: reportMissingImports=false
"""SAELens' training classes under the names that the comparisons use."""

from typing import Any

from prepared import matryoshka_widths
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAE,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)


def new_sae(
    architecture: str, d_in: int, n_latents: int, k: float, coefficient: float, warm_up_steps: int = 0, **settings: Any
) -> Any:
    """A training SAE with SAELens' defaults.

    ``coefficient`` weighs the sparsity loss where there is one, and rises to its value over ``warm_up_steps``.
    """
    size = {"d_in": d_in, "d_sae": n_latents, **settings}
    l1 = {"l1_coefficient": coefficient, "l1_warm_up_steps": warm_up_steps}
    l0 = {"l0_coefficient": coefficient, "l0_warm_up_steps": warm_up_steps}
    match architecture:
        case "relu":
            return StandardTrainingSAE(StandardTrainingSAEConfig(**size, **l1))
        case "gated":
            return GatedTrainingSAE(GatedTrainingSAEConfig(**size, **l1))
        case "jumprelu":
            return JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**size, **l0))
        case "topk":
            return TopKTrainingSAE(TopKTrainingSAEConfig(**size, k=round(k)))
        case "batch_topk":
            return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**size, k=k))
        case "matryoshka":
            widths = matryoshka_widths(n_latents)
            return MatryoshkaBatchTopKTrainingSAE(
                MatryoshkaBatchTopKTrainingSAEConfig(**size, k=k, matryoshka_widths=widths)
            )
        case _:
            raise ValueError(f"SAELens has no counterpart of {architecture!r} here")
