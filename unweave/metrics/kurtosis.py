"""Kurtosis: how far activations are from a normal distribution, in the neuron basis, within rows, and of latents.

With k(a) = E a^4 / (E a^2)^2, a normal distribution has 3 and a value that is nearly always 0 has much more. Neurons
and rows are centred first, each neuron about its mean over tokens and each row about its mean over neurons; codes are
not, as 0 is what a latent has when it is off. A basis in which activations are far from normal is a privileged one
(Elhage et al. 2023, "Privileged Bases in the Transformer Residual Stream").
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.metrics.base import CodedRows, Definition, Metric, Sums, ratio


@final
class Kurtosis(Metric[CodedRows]):
    """Power sums of neurons about a given mean, the kurtosis of rows, and power sums of codes."""

    definitions = (
        Definition(
            "kurtosis_of_neurons",
            "Kurtosis of neurons",
            "Kurtosis of each coordinate of the site over tokens, averaged over coordinates; normally distributed: 3.",
            "a property of the site",
        ),
        Definition(
            "kurtosis_of_rows",
            "Kurtosis of rows",
            "Kurtosis of each row over its coordinates, averaged over tokens; normally distributed: 3.",
            "a property of the site",
        ),
        Definition(
            "kurtosis_of_codes",
            "Kurtosis of codes",
            "Kurtosis about 0 of each latent over all tokens; the median over latents that fired.",
            "far above that of neurons",
        ),
    )

    def __init__(self, mean_D: Float[Tensor, " D"], n_latents: int) -> None:
        self._mean_D = mean_D.double()
        powers = {f"x{power}": mean_D.shape for power in (1, 2, 3, 4)}
        super().__init__(rows=(), of_rows=(), f2=(n_latents,), f4=(n_latents,), **powers)

    def update(self, batch: CodedRows) -> None:
        x = batch.x.double()
        about = x - self._mean_D.to(x)
        self.add("rows", batch.blocks, torch.ones(x.shape[0]))
        square = about.square()
        for power, values in enumerate((about, square, square * about, square.square()), 1):
            self.add(f"x{power}", batch.blocks, values)
        square = (x - x.mean(1, keepdim=True)).square()
        of_rows = ratio(square.square().mean(1), square.mean(1).square())
        self.add("of_rows", batch.blocks, of_rows.nan_to_num(0.0))
        values = batch.codes.values.detach().double()
        blocks_E = batch.blocks.to(values.device)[batch.codes.row_ids]
        square = values.square()
        self.add_at("f2", blocks_E, batch.codes.latent_ids, square)
        self.add_at("f4", blocks_E, batch.codes.latent_ids, square.square())

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        rows = sums["rows"][:, None]
        m1, m2, m3, m4 = (sums[f"x{power}"] / rows for power in (1, 2, 3, 4))
        variance = m2 - m1.square()
        fourth = m4 - 4 * m1 * m3 + 6 * m1.square() * m2 - 3 * m1.pow(4)
        codes = ratio(rows * sums["f4"], sums["f2"].square())
        return {
            "kurtosis_of_neurons": ratio(fourth, variance.square()).nanmean(1),
            "kurtosis_of_rows": sums["of_rows"] / sums["rows"],
            "kurtosis_of_codes": codes.nanmedian(1).values,
        }
