"""Several processes train one coder: its latents in parts, and each batch's rows in parts, on a mesh of both.

Process number ``r`` of ``rows x latents`` sees part ``r // latents`` of the rows and holds part ``r % latents`` of the
latents. A step costs, over the parts of the latents, a sum of the reconstruction and of the gradient of ``b_dec``, and
for TopK the k largest candidates of every part; over the parts of the rows, a sum of all gradients, and for BatchTopK
all candidates. Every process then takes the same step on what it holds.
"""

from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unweave.coders import SparseCoder
from unweave.coders.peers import Peers
from unweave.errors import UserError
from unweave.kernels.selection import Rule, TopKOfBatch, TopKOfRow, largest
from unweave.types import Codes

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

PATIENCE = timedelta(seconds=60)
"""How long a process waits for the others before it gives them up, where nobody says otherwise."""


@final
class Ranks(Peers):
    """The processes of ``torch.distributed``, which must be initialised; every one of them makes this at once."""

    def __init__(self, n_latent_parts: int = 1, patience: timedelta = PATIENCE) -> None:
        """Raise ``UserError`` where the number of processes is no multiple of the parts of the latents."""
        self.count, self.rank = dist.get_world_size(), dist.get_rank()
        if n_latent_parts < 1 or self.count % n_latent_parts:
            raise UserError(
                f"training.latent_parts={n_latent_parts} must divide the number of processes, which is {self.count}"
            )
        self.n_latent_parts = n_latent_parts
        self.n_row_parts = self.count // n_latent_parts
        self.row_part, self.latent_part = divmod(self.rank, n_latent_parts)
        grid = torch.arange(self.count).view(self.n_row_parts, n_latent_parts)
        self._everyone = _new_group(list(range(self.count)), patience)
        # every process has to make every group, also those that it is not in
        same_rows = [_new_group(ranks.tolist(), patience) for ranks in grid]
        same_latents = [_new_group(ranks.tolist(), patience) for ranks in grid.T]
        self._same_rows, self._same_latents = same_rows[self.row_part], same_latents[self.latent_part]

    def over_latents(self, x: Tensor) -> Tensor:
        return x if self.n_latent_parts == 1 else _SumOfParts.apply(x, self._same_rows)

    def shared(self, parameter: Tensor) -> Tensor:
        return parameter if self.n_latent_parts == 1 else _SharedByParts.apply(parameter, self._same_rows)

    @torch.no_grad()
    def mean_of_rows(self, x: Tensor) -> Tensor:
        return x if self.n_row_parts == 1 else _reduced(x, dist.ReduceOp.SUM, self._same_latents) / self.n_row_parts

    @torch.no_grad()
    def least(self, x: Float[Tensor, ""]) -> Float[Tensor, ""]:
        return _reduced(x, dist.ReduceOp.MIN, self._everyone)

    def any_of_rows(self, marks: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
        if self.n_row_parts == 1:
            return marks
        return _reduced(marks.byte(), dist.ReduceOp.MAX, self._same_latents).bool()

    def total_latents(self, count: int) -> int:
        return int(_reduced(torch.tensor(count), dist.ReduceOp.SUM, self._same_rows))

    def own_rule(self, rule: Rule, n_latents: int) -> Rule:
        match rule:
            case TopKOfRow(k):
                return replace(rule, k=min(k, n_latents))
            case TopKOfBatch(k):
                return TopKOfBatch(min(k * self.n_row_parts, n_latents))
        return rule

    def choose(self, codes: Codes, rule: Rule) -> Codes:
        match rule:
            case TopKOfRow() if self.n_latent_parts > 1:
                return codes.where(self._largest_of_rows(codes, rule))
            case TopKOfBatch(k):
                return codes.where(self._largest_of_batch(codes, int(codes.n_rows * self.n_row_parts * k)))
        return codes

    def average_gradients(self, coder: nn.Module) -> None:
        if self.n_row_parts > 1:
            for parameter in coder.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad, group=self._same_latents)
                    parameter.grad /= self.n_row_parts

    def rows_of_part(self, rows_BD: Float[Tensor, "b D"]) -> Float[Tensor, "B D"]:
        """The rows of all processes that see this part of the rows, each of which brings as many."""
        return torch.cat(_gathered(rows_BD, self._same_rows)) if self.n_latent_parts > 1 else rows_BD

    def rows_of_all(self, rows_BD: Float[Tensor, "b D"]) -> Float[Tensor, "B D"]:
        """The rows of all processes, each of which brings as many."""
        return torch.cat(_gathered(rows_BD, self._everyone))

    def parts_of_latents(self, x: Float[Tensor, "L_part _"]) -> list[Float[Tensor, "L_part _"]]:
        """A tensor of each part of the latents, in order."""
        return _gathered(x, self._same_rows)

    def all_of(self, things: list[Any]) -> list[Any]:
        """The things of all processes, in their order."""
        lists: list[Any] = [None] * self.count
        dist.all_gather_object(lists, things, self._everyone)
        return [thing for each in lists for thing in each]

    def of_others(self, thing: Any) -> list[Any]:
        """What all other processes bring, in their order, at the first process; nothing at the others."""
        things: list[Any] | None = [None] * self.count if self.rank == 0 else None
        dist.gather_object(thing, things, 0, self._everyone)
        return things[1:] if things else []

    def wait(self) -> None:
        """Until all processes are here."""
        dist.barrier(self._everyone)

    @cached_property
    def mesh(self) -> "DeviceMesh":
        """The parts of rows times the parts of latents, for tensors on the CPU that know their place."""
        from torch.distributed.device_mesh import DeviceMesh

        return DeviceMesh("cpu", torch.arange(self.count).view(self.n_row_parts, self.n_latent_parts))

    @cached_property
    def mesh_of_latents(self) -> "DeviceMesh":
        """The processes that have the same rows, for a model that is spread over them."""
        from torch.distributed.device_mesh import DeviceMesh

        device = "cuda" if torch.cuda.is_available() else "cpu"
        grid = torch.arange(self.count).view(self.n_row_parts, self.n_latent_parts)
        return DeviceMesh(device, grid, mesh_dim_names=("rows", "latents"))["latents"]

    def rows_of_row_parts(self, rows_BD: Float[Tensor, "b D"]) -> Float[Tensor, "B D"]:
        """The rows of all parts, of which each has as many; processes of one part bring the same."""
        return torch.cat(_gathered(rows_BD, self._same_latents))

    def agree(self, wish: bool) -> bool:
        """Whether any process has this wish."""
        return bool(_reduced(torch.tensor([wish]).byte(), dist.ReduceOp.MAX, self._everyone))

    @torch.no_grad()
    def take_part(self, coder: SparseCoder) -> None:
        """Keep this process' part of a coder that all processes have whole; the first one's weights count."""
        for tensor in coder.state_dict().values():
            dist.broadcast(tensor, 0, self._everyone)
        if self.n_latent_parts > 1:
            self._take_latents(coder)
        coder.peers = self

    def _take_latents(self, coder: SparseCoder) -> None:
        if not coder.splits_latents:
            kind = type(coder).__module__.rpartition(".")[2]
            raise UserError(f"the latents of {kind} cannot be spread over processes; set training.latent_parts=1")
        if coder.n_latents % self.n_latent_parts:
            raise UserError(
                f"coder.n_latents={coder.n_latents} must be a multiple of training.latent_parts={self.n_latent_parts}"
            )
        names = [name for name, x in coder.state_dict().items() if coder.has_row_per_latent(name, x)]
        for name in names:
            whole = getattr(coder, name)
            part = whole.detach().chunk(self.n_latent_parts)[self.latent_part].clone()
            setattr(coder, name, nn.Parameter(part) if isinstance(whole, nn.Parameter) else part)

    def _largest_of_rows(self, codes: Codes, rule: TopKOfRow) -> Bool[Tensor, " E"]:
        """Marks entries that are among the k largest of their row in all parts; ties go to the first latent."""
        score = codes.values.detach().abs() if rule.signed else codes.values.detach()
        places = torch.arange(score.shape[0], device=score.device) - codes.row_offsets[:-1][codes.row_ids]
        own_BK = score.new_zeros(codes.n_rows, rule.k).index_put((codes.row_ids, places), score)
        all_BC = torch.cat(_gathered(own_BK, self._same_rows), dim=1)
        order_BK = all_BC.argsort(dim=1, descending=True, stable=True)[:, : rule.k]
        marks_BC = torch.zeros_like(all_BC, dtype=torch.bool).scatter_(1, order_BK, True)
        return marks_BC[codes.row_ids, places + rule.k * self.latent_part]

    def _largest_of_batch(self, codes: Codes, count: int) -> Bool[Tensor, " E"]:
        """Marks entries that are among the ``count`` largest of all processes; ties go to the first process."""
        values = codes.values.detach()
        sizes = torch.cat(_gathered(torch.tensor([values.shape[0]], device=values.device), self._everyone)).tolist()
        padded = values.new_zeros(max(sizes)).index_put((torch.arange(len(values), device=values.device),), values)
        every = torch.cat([x[:n] for x, n in zip(_gathered(padded, self._everyone), sizes, strict=True)])
        return largest(every, count).split(sizes)[self.rank]


class _SumOfParts(torch.autograd.Function):
    """Every part's loss is computed from the same sum, so each part's gradient is that of the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        return _reduced(x, dist.ReduceOp.SUM, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _SharedByParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _reduced(grads[0], dist.ReduceOp.SUM, ctx.group), None


def _new_group(ranks: list[int], patience: timedelta) -> Any:
    return dist.new_group(ranks, timeout=patience)


def _reduced(x: Tensor, operation: Any, group: Any) -> Tensor:
    x = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, operation, group)
    return x


def _gathered(x: Tensor, group: Any) -> list[Tensor]:
    """This tensor of every process in the group; all have the same shape."""
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(group.size())]
    dist.all_gather(parts, x.contiguous(), group)
    return parts
