"""Switch: a router sends each row to one of E experts, each a TopK coder (Mudide et al. 2024, arXiv 2410.08201).

The router's shares are p = softmax((x - b_dec) W_router^T + b_router); a row goes to the expert e with the largest. Of
its n_latents / E latents, h = (x - b_dec) W_enc^T + b_enc, the k largest positive ones are kept and multiplied by p_e,
and y_hat = f W_dec + b_dec. The router learns through p_e, while the choice of e has no gradient. Other experts are not
computed, so a row costs 1/E of a TopK encoder. Latent i of expert e has the id e * n_latents / E + i.

Loss: |y - y_hat|^2 summed over D and averaged over B, plus balance_coefficient * E * sum_e F_e P_e with F_e the share
of rows sent to e, which is held fixed, and P_e the mean of p_e; the sum times E is 1 where rows are spread evenly.

The paper has no b_enc, and centres the router's input by a vector of its own, which is to b_router as b_dec is to
b_enc. Its weight of 3 D on the balance is for activations of GPT-2 as they are; here rows have a spread of 1.
"""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.coders.base import CoderConfig, CoderStep, Moment, SparseCoder, mean_squared_error
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.encode import encode
from unweave.kernels.selection import TopKOfRow
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class SwitchConfig(CoderConfig):
    """Settings of a Switch coder."""

    k: int = 32
    """Active latents per row, all of one expert."""
    n_experts: int = 8
    """Experts among which the latents are split evenly."""
    balance_coefficient: float = 0.1
    """Weight of the loss that spreads rows over experts."""

    def __post_init__(self) -> None:
        self._fill(encoder_init_gain=1.0)
        super().__post_init__()
        if self.n_experts < 1 or self.n_latents % self.n_experts:
            raise UserError(
                f"coder.n_experts must divide n_latents, got n_experts={self.n_experts} with n_latents={self.n_latents}"
            )
        if not 0 < self.k <= self.n_latents // self.n_experts:
            size = self.n_latents // self.n_experts
            raise UserError(f"coder.k needs 0 < k <= n_latents / n_experts = {size}, got k={self.k}")
        if self.balance_coefficient < 0:
            raise UserError(f"coder.balance_coefficient must not be negative, got {self.balance_coefficient}")


@final
class Switch(SparseCoder):
    """See the module's docstring for the maths."""

    Config = SwitchConfig
    config: SwitchConfig
    unitless_readers = ("W_router",)
    per_latent = ()  # rescaling one latent would change which are the largest of its expert

    def __init__(self, config: SwitchConfig, wiring: Wiring) -> None:
        super().__init__(config, wiring)
        self.W_router = nn.Parameter(F.normalize(torch.randn(config.n_experts, wiring.d_read), dim=1))
        self.b_router = nn.Parameter(torch.zeros(config.n_experts))

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self._route(x_BD)[0]

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        codes, p_BE, experts_B = self._route(x_BD)
        y_hat_BD = self.reconstruct(codes, x_BD)
        every_E = torch.arange(self.config.n_experts, device=experts_B.device)
        sent_E = (experts_B[:, None] == every_E).to(p_BE).mean(0)
        balance = self.config.n_experts * (sent_E * p_BE.mean(0)).sum()
        losses = {"mse": mean_squared_error(y_hat_BD, y_BD), "balance": self.config.balance_coefficient * balance}
        return CoderStep(losses, codes, y_hat_BD)

    @torch.no_grad()
    def start_from(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"]) -> None:
        super().start_from(x_BD, y_BD)
        # a spread of 1, so that whatever the scale of rows no expert is sure of them, and none is out of reach
        self.W_router.div_((x_BD @ self.W_router.T).std(0)[:, None].clamp(min=1e-12))

    @torch.no_grad()
    def shift_input(self, offset_D: Float[Tensor, " D_read"]) -> None:
        super().shift_input(offset_D)
        self.b_router.sub_(self.W_router @ offset_D)

    def _route(self, x_BD: Float[Tensor, "B D"]) -> tuple[Codes, Float[Tensor, "B E"], Int[Tensor, " B"]]:
        """Codes of each row's expert times its share, the router's shares, and the chosen experts."""
        self.check_rows(x_BD)
        centred = x_BD if self.centre is None else x_BD - self.centre
        p_BE = F.linear(centred, self.W_router, self.b_router).softmax(dim=1)
        chosen_B, experts_B = p_BE.max(dim=1)
        codes = self._ask_experts(x_BD, experts_B)
        shares_E = chosen_B.index_select(0, codes.row_ids)
        return codes.with_values(codes.values * shares_E), p_BE, experts_B

    def _ask_experts(self, x_BD: Tensor, experts_B: Int[Tensor, " B"]) -> Codes:
        """One encoder product per expert, on its rows and its latents; the codes in the order of the rows."""
        n_experts, size = self.config.n_experts, self.n_latents // self.config.n_experts
        order_B = experts_B.argsort(stable=True)
        n_rows = torch.bincount(experts_B, minlength=n_experts).tolist()
        x, W_enc, b_enc = x_BD[order_B].split(n_rows), self.W_enc.split(size), self.b_enc.split(size)
        rule = TopKOfRow(self.config.k)
        experts = [e for e in range(n_experts) if n_rows[e]] or [0]
        answers = [encode(x[e], W_enc[e], b_enc[e], rule, centre=self.centre) for e in experts]
        values = torch.cat([codes.values for codes in answers])
        latents = torch.cat([codes.latent_ids + e * size for e, codes in zip(experts, answers, strict=True)])
        counts = torch.cat([codes.row_offsets.diff() for codes in answers])
        rows = order_B.repeat_interleave(counts, output_size=len(latents))
        back = rows.argsort(stable=True)
        offsets = F.pad(torch.empty_like(counts).index_copy_(0, order_B, counts).cumsum(0), (1, 0))
        return Codes(values.index_select(0, back), latents[back], offsets, self.n_latents, {"row_ids": rows[back]})
