"""JumpReLU: each latent has its own threshold, learnt through the jump by a straight-through estimator.

With h = x W_enc^T + b_enc and thresholds theta_i > 0, f = h where h > theta, else 0; y_hat = f W_dec + b_dec. The jump
has no useful gradient, so thresholds get the estimate of a rectangle kernel of width ``bandwidth`` (epsilon): with
K = 1 where |h - theta| < epsilon / 2, else 0,

    df/dh = 1[h > theta]    df/dtheta = -(theta / epsilon) K    d1[h > theta]/dtheta = -K / epsilon

so entries a little below their threshold count too. theta and epsilon are in units of scaled rows (``input_scale``);
a bandwidth that suits one scale is far off at another. L = |y - y_hat|^2 + sparsity_coefficient * penalty + pre_act,
the first summed over D, all averaged over B. The penalty rises linearly from 0 over the first ``sparsity_warm_up`` of
the run. It is one of

    step         sum_i 1[h_i > theta_i]                  whose gradient reaches the thresholds alone
    target_l0    (sum_i 1[h_i > theta_i] / target - 1)^2, which aims at a number of active latents of each row
    tanh         sum_i tanh(tanh_scale * f_i |w_i|)      whose gradient reaches all that f depends on

(dictionary_learning squares the mean over rows). pre_act, pre_act_coefficient * sum_i relu(theta_i - h_i) |w_i|, pulls
silent latents towards their threshold; with ``pre_act_dead_only`` dead ones alone, as in SAELens.

``gdm`` (Rajamanoharan et al. 2024, arXiv 2407.14435): step penalty, theta from 0.001 and epsilon 0.001 for rows of mean
square norm 1. The penalty does not depend on decoder norms, so rows are free here and start small, which found more
features than the paper's unit rows. Pre-activations of such rows fall with the width d as 1/sqrt(d), so the defaults
here are 0.05/sqrt(d), which is 0.001 at the paper's widths; at width 32 a window of 0.001 sees so few entries that
thresholds wander. theta itself is trained, not below 0; as exp(t) it would hardly move in a short run.

``anthropic`` (Conerly et al., Circuits Updates, January 2025): tanh penalty with scale 4, rising over the whole run,
pre_act with 3e-6, theta = 0.1 exp(t) with t from 0, epsilon 2 for rows of mean norm sqrt(D), free decoder norms. Here
df/dt = -(theta / epsilon) K as published; the chain rule would have theta squared. W_dec starts uniform in +-1/sqrt(d),
W_enc as W_dec d/m (where widths differ, uniform in +-1/sqrt(d) times d/m), with d the width and m the number of
latents; ``decoder_init_norm`` and ``encoder_init_gain`` rescale them. b_enc starts so that each latent fires on a share
``start_l0`` / m of the first sample; the update has 10,000 / m, which is for many more latents than that. About the
threshold tanh costs tanh_scale * |w| for each unit of f, so entries with f |w| under half of sparsity_coefficient *
tanh_scale go: the weight is in units of activations, and has to grow with the root of the width.

Thresholds learn from all entries within epsilon / 2, so a step costs those too. With epsilon 2 they are nearly all of
B x L for much of a run, so that a step costs as much as a dense one or more.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unweave.coders.base import PUBLISHED, CoderConfig, CoderStep, Moment, SparseCoder, mean_squared_error, warm_up
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.latent_values import latent_values, row_sum
from unweave.kernels.selection import Above
from unweave.types import Codes

_GDM_WINDOW = 0.05
"""Start of thresholds and bandwidth of gdm, for rows whose entries have a root mean square of 1."""


@dataclass(frozen=True, kw_only=True)
class JumpReluConfig(CoderConfig):
    """Settings of a JumpReLU coder. Where a default is None, it becomes what the variant has."""

    variant: Literal["gdm", "anthropic"] = "gdm"
    """Which published recipe the other defaults are from."""
    penalty: Literal["step", "target_l0", "tanh"] = PUBLISHED
    """What is penalised: the number of active latents (step), its distance from a target (target_l0), or tanh."""
    sparsity_coefficient: float = PUBLISHED
    """Weight of the penalty; higher means fewer active latents. Default 0.003 (gdm), 0.5 (anthropic), 0.1 (target)."""
    sparsity_warm_up: float = PUBLISHED
    """Share of the run over which the penalty rises from 0."""
    target_l0: float | None = None
    """Active latents per row that penalty="target_l0" aims at; 32 if not given."""
    tanh_scale: float | None = None
    """How steeply penalty="tanh" rises with an activation."""
    threshold_start: float | None = None
    """Where thresholds start, in units of scaled rows. Default: 0.1 (anthropic), or 0.05 over the root of the width."""
    bandwidth: float | None = None
    """Width of the window about a threshold in which entries move it, in those units. Default: 2 (anthropic), or 0.05
    over the root of the width."""
    pre_act_coefficient: float = PUBLISHED
    """Weight of the loss that pulls silent latents towards their threshold; 0 turns it off."""
    pre_act_dead_only: bool = False
    """Whether that loss is for dead latents alone."""
    start_l0: int = PUBLISHED
    """b_enc starts so that so many latents fire per row, each equally often; 0 leaves it as it is. Default 0 (gdm), or
    a quarter of the latents, at most 10,000 (anthropic)."""

    def __post_init__(self) -> None:
        self._fill(penalty="tanh" if self.variant == "anthropic" else "step")
        if self.penalty == "target_l0":
            self._fill(target_l0=32.0, sparsity_coefficient=0.1)
        if self.penalty == "tanh":
            self._fill(tanh_scale=4.0)
        if self.variant == "anthropic":
            self._fill(sparsity_coefficient=0.5, sparsity_warm_up=1.0, threshold_start=0.1, bandwidth=2.0)
            self._fill(pre_act_coefficient=3e-6, start_l0=min(10_000, self.n_latents // 4))
            self._fill(decoder_norm="free", input_scale="sqrt_width", decoder_init_norm=3**-0.5)
        self._fill(sparsity_coefficient=3e-3, sparsity_warm_up=0.1)
        self._fill(pre_act_coefficient=0.0, start_l0=0)
        self._fill(input_scale="unit_square", centre=False)
        self._fill(decoder_norm="free", encoder_init_gain=1.0)
        self._fill(decoder_init_norm=0.1 if self.decoder_norm == "free" else 1.0)
        super().__post_init__()
        self._check()

    def _check(self) -> None:
        for name in ("sparsity_coefficient", "pre_act_coefficient", "start_l0"):
            if getattr(self, name) < 0:
                raise UserError(f"coder.{name} must not be negative, got {getattr(self, name)}")
        for name in ("threshold_start", "bandwidth", "target_l0", "tanh_scale"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"coder.{name} must be more than 0, got {value}")
        if not 0 <= self.sparsity_warm_up <= 1:
            raise UserError(f"coder.sparsity_warm_up is a share of the run in [0, 1], got {self.sparsity_warm_up}")
        for name, penalty in (("target_l0", "target_l0"), ("tanh_scale", "tanh")):
            if getattr(self, name) is not None and self.penalty != penalty:
                raise UserError(f'coder.{name} needs coder.penalty="{penalty}", got penalty="{self.penalty}"')
        if self.pre_act_dead_only and self.pre_act_coefficient == 0:
            raise UserError("coder.pre_act_dead_only has no effect with coder.pre_act_coefficient=0")
        if self.start_l0 >= self.n_latents:
            raise UserError(f"coder.start_l0 must be less than n_latents={self.n_latents}, got {self.start_l0}")


@final
class JumpRelu(SparseCoder):
    """See the module's docstring for the maths."""

    Config = JumpReluConfig
    sparsity = "sparsity_coefficient"
    splits_latents = True
    config: JumpReluConfig
    in_activation_units = ("b_enc", "threshold")
    per_latent = ("W_enc", "b_enc", "threshold")
    threshold: Tensor

    def __init__(self, config: JumpReluConfig, wiring: Wiring) -> None:
        # the root mean square of an entry of a scaled row
        unit = 1.0 if config.input_scale == "sqrt_width" else wiring.d_read**-0.5
        first = _GDM_WINDOW * unit if config.threshold_start is None else config.threshold_start
        bandwidth = _GDM_WINDOW * unit if config.bandwidth is None else config.bandwidth
        super().__init__(replace(config, threshold_start=first, bandwidth=bandwidth), wiring)
        self.bandwidth = bandwidth
        start = torch.full((config.n_latents,), first)
        if config.variant == "gdm":
            self.threshold = nn.Parameter(start)
            self.log_growth = None
        else:
            self.register_buffer("threshold", start)
            self.log_growth = nn.Parameter(torch.zeros(config.n_latents))
            self._start_uniform()

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self.active(x_BD, Above(self.thresholds()))

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        if self.log_growth is None:
            with torch.no_grad():
                self.threshold.clamp_(min=0.0)
        theta = self.thresholds()
        bandwidth = self.bandwidth
        # one selection for all: entries below their threshold are 0 as activations but still move it
        near = self.active(x_BD, Above(theta.detach() - bandwidth / 2))
        theta_E = latent_values(near, theta)
        height_E = theta_E.detach() if self.log_growth is None else None
        codes = near.with_values(_Jump.apply(near.values, theta_E, height_E, bandwidth))
        y_hat_BD = self.reconstruct(codes, x_BD)
        coefficient = self.config.sparsity_coefficient * warm_up(moment.progress, self.config.sparsity_warm_up)
        losses = {
            "mse": mean_squared_error(y_hat_BD, y_BD),
            "sparsity": coefficient * self._penalty(near, theta_E, codes) / x_BD.shape[0],
        }
        losses |= self._pre_act_losses(x_BD, near, theta, theta_E, moment)
        return CoderStep(losses, codes, y_hat_BD)

    def thresholds(self) -> Float[Tensor, " L"]:
        """The threshold of each latent, differentiable."""
        if self.log_growth is None:
            return self.threshold.clamp(min=0.0)
        return self.threshold * self.log_growth.exp()

    @torch.no_grad()
    def start_from(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"]) -> None:
        super().start_from(x_BD, y_BD)
        if self.config.variant == "anthropic" and self.config.active_subspace:
            self._follow_decoder()
        if self.config.start_l0:
            centred = x_BD if self.centre is None else x_BD - self.centre
            rank = round((1.0 - self.config.start_l0 / self.n_latents) * x_BD.shape[0])
            # a block of latents at a time: the sample times all latents would be large
            blocks = [(centred @ W.T).kthvalue(max(1, rank), dim=0).values for W in self.W_enc.split(1024)]
            self.b_enc.copy_(self.thresholds() - torch.cat(blocks))

    def _penalty(self, near: Codes, theta_E: Float[Tensor, " E"], codes: Codes) -> Float[Tensor, ""]:
        """The sparsity penalty summed over rows."""
        scale, target = self.config.tanh_scale, self.config.target_l0
        if scale is not None:
            sizes = codes.values * latent_values(codes, self.decoder_norms())
            return self.peers.over_latents(torch.tanh(scale * sizes).sum())
        fired = _Step.apply(near.values, theta_E, self.bandwidth)
        if target is None:
            return self.peers.over_latents(fired.sum())
        return (self.peers.over_latents(row_sum(near, fired)) / target - 1.0).square().sum()

    def _pre_act_losses(
        self,
        x_BD: Float[Tensor, "B D_read"],
        near: Codes,
        theta: Float[Tensor, " L"],
        theta_E: Float[Tensor, " E"],
        moment: Moment,
    ) -> dict[str, Float[Tensor, ""]]:
        """The sum over all entries at the cost of the active ones.

        relu(theta - h) = theta - h + relu(h - theta). The first part is linear, so it needs only the mean row.
        """
        dead_only = self.config.pre_act_dead_only
        if self.config.pre_act_coefficient == 0 or (dead_only and moment.n_dead == 0):
            return {}
        weight = self.decoder_norms()
        if dead_only:
            weight = weight * torch.zeros_like(theta).index_fill_(0, moment.dead, 1.0)
        mean_D = x_BD.mean(0) if self.centre is None else x_BD.mean(0) - self.centre
        below = (weight * (theta - self.W_enc @ mean_D - self.b_enc)).sum()
        above = (latent_values(near, weight) * torch.relu(near.values - theta_E)).sum() / x_BD.shape[0]
        return {"pre_act": self.config.pre_act_coefficient * self.peers.over_latents(below + above)}

    @torch.no_grad()
    def _start_uniform(self) -> None:
        width = self.wiring.d_write
        self.W_dec.uniform_(-1.0, 1.0).mul_(self.config.decoder_init_norm * (3 / width) ** 0.5)
        if self.wiring.d_read != width:
            read = self.wiring.d_read
            self.W_enc.uniform_(-1.0, 1.0).mul_(self.config.encoder_init_gain * read**0.5 / self.n_latents)
        self._follow_decoder()

    @torch.no_grad()
    def _follow_decoder(self) -> None:
        if self.wiring.d_read == self.wiring.d_write:
            self.W_enc.copy_(self.config.encoder_init_gain * self.wiring.d_read / self.n_latents * self.W_dec)


class _Jump(torch.autograd.Function):
    """``h * 1[h > theta]``, with the kernel's estimate for theta; ``height`` is the factor of that, if it has one."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, theta: Tensor, height: Tensor | None, bandwidth: float) -> Tensor:
        ctx.save_for_backward(h, theta, height)
        ctx.bandwidth = bandwidth
        return torch.where(h > theta, h, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        h, theta, height = ctx.saved_tensors
        grad_theta = _estimate(h, theta, ctx.bandwidth, grads[0] if height is None else grads[0] * height)
        return torch.where(h > theta, grads[0], 0.0), grad_theta, None, None


class _Step(torch.autograd.Function):
    """``1[h > theta]``, with the kernel's estimate for theta and no gradient for h."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(h, theta)
        ctx.bandwidth = bandwidth
        return (h > theta).to(h.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        h, theta = ctx.saved_tensors
        return None, _estimate(h, theta, ctx.bandwidth, grads[0]), None


def _estimate(h: Tensor, theta: Tensor, bandwidth: float, weight: Tensor) -> Tensor:
    """Minus the rectangle kernel of each entry, times its weight."""
    return torch.where((h - theta).abs() < bandwidth / 2, weight, 0.0).mul_(-1.0 / bandwidth)
