"""What is known of a model's named sites, shown on the model itself: the stream adds up, edits do what they say.

Checked on one sequence of random tokens, or an image of noise:

- What enters the first block, and all that the blocks add, sum to what leaves the last one (in a model whose norms are
  not on the stream), and each block's additions to what it changes.
- Edits at all sites at once that change nothing leave the output bit for bit.
- Zeros at a site, or at the same point of all experts of a block, change the output: ``|output with zeros - output| /
  |output|``, in Euclidean norm over all positions.
- ``attn.z`` times the output projection's weight, and its bias, is what the projection writes.

Errors are the largest of any element, relative to the largest of the tensor.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unweave.errors import UserError
from unweave.models.inputs import Inputs, last_of, random_inputs
from unweave.models.language_model import LanguageModel
from unweave.models.norms import whole
from unweave.models.site import Site

_TOKENS = 7
_LARGE = 100
"""An error of more roundings than this is no rounding."""
_LARGE_SUM = 0.3
"""Nor is this, in the lowest precisions."""


class PointProof(NamedTuple):
    """One point in all blocks where it lies alike."""

    name: str
    """As ``layers.*.attn_out``, or ``layers.0,2.attn_out`` for some of the layers; experts are put together too."""
    module: str
    """Path of the module, with * for the layer."""
    side: str
    width: int
    """Of a row; where there are numbers for pairs of tokens, how many for each pair."""
    effect: float | None
    """Relative change of the output for zeros in the first of these blocks; None where there is no edit."""


class Proof(NamedTuple):
    """What was found, and how well it holds."""

    points: tuple[PointProof, ...]
    block_errors: tuple[float | None, ...]
    """Of what each block adds; None where that was not found."""
    stream_error: float | None
    """Of the sum over all blocks; None where there is no such sum."""
    projection_error: float | None
    """Of ``attn.z`` through the output projection, the largest of all blocks; None where no block has it."""
    is_exact: bool
    """Edits that change nothing leave the output bit for bit."""
    problems: tuple[str, ...]
    """What does not hold, each as a sentence."""


@torch.no_grad()
def prove(model: LanguageModel, done: Callable[[int, int], None] = lambda at, of: None) -> Proof:
    """Check the named sites of a model; ``done`` hears how many of how many passes are over."""
    layout = model.sites.layout
    if layout.problem:
        raise UserError(f"{model.name} has no named sites, as {layout.problem}")
    inputs = random_inputs(model.model, _TOKENS, torch.Generator().manual_seed(101))
    groups = _groups(model)
    read = [name for name in model.sites.names() if ".experts." not in name]
    clean = model.run(inputs, [*read, *(sites[0].name for sites in groups.values())])
    output = last_of(clean.output)
    points = []
    for i, (name, sites) in enumerate(groups.items()):
        zeros: dict[str, Callable[[Tensor], Tensor]] = {site.name: torch.zeros_like for site in sites}
        effect = None if sites[0].is_read_only else _change(model, inputs, output, zeros)
        width = clean.activations[sites[0].name].shape[-1 if sites[0].has_rows else 1]
        points.append(PointProof(name, _pattern(sites[0]), sites[0].side, width, effect))
        done(i + 1, len(groups))
    edited = [name for name in model.sites.names() if not model.sites.resolve(name).is_read_only]
    is_exact = _change(model, inputs, output, dict.fromkeys(edited, torch.clone)) == 0
    blocks = tuple(_block_error(model, layer, clean.activations) for layer in range(model.sites.n_layers))
    projected = [_projection_error(model, layer, clean.activations) for layer in range(model.sites.n_layers)]
    found = Proof(
        points=tuple(points),
        block_errors=blocks,
        stream_error=_stream_error(model, clean.activations),
        projection_error=max((error for error in projected if error is not None), default=None),
        is_exact=is_exact,
        problems=(),
    )
    return found._replace(problems=tuple(_problems(found, torch.finfo(output.dtype).eps)))


def _groups(model: LanguageModel) -> dict[str, list[Site]]:
    """By what they are called in the table, where a point of all blocks in which it lies alike is one, the sites in the
    first of these blocks: one, or one of each expert."""
    layout = model.sites.layout
    alike: dict[tuple[str, Site], dict[int, list[str]]] = {}
    for layer in range(len(layout.blocks)):
        for point, site in layout.points(layer).items():
            common = re.sub(r"experts\.\d+", "experts.*", point)
            inside = site._replace(name=common, inner="", block="", module=site.module.removeprefix(site.block))
            alike.setdefault((common, inside), {}).setdefault(layer, []).append(f"layers.{layer}.{point}")
    named = {name: [name] for name in layout.first}
    for (point, _), layers in alike.items():
        which = "*" if len(layers) == len(layout.blocks) else ",".join(map(str, layers))
        named[f"layers.{which}.{point}"] = next(iter(layers.values()))
    named |= {name: [name] for name in layout.last}
    return {name: [model.sites.resolve(one) for one in sites] for name, sites in named.items()}


def _pattern(site: Site) -> str:
    if not site.block:
        return site.module
    return f"{site.block.rpartition('.')[0]}.*{site.module.removeprefix(site.block)}"


def _change(
    model: LanguageModel, inputs: Inputs, output: Tensor, edits: dict[str, Callable[[Tensor], Tensor]]
) -> float:
    with model.patch(edits):
        edited = last_of(model.run(inputs).output)
    return float((edited.double() - output.double()).norm() / output.double().norm())


def _block_error(model: LanguageModel, layer: int, seen: dict[str, Tensor]) -> float | None:
    """Of a block that adds to the stream: of its sum. Of a post-norm block: of what its norms read."""
    kind = model.sites.layout.kinds[layer]
    if kind is None:
        return None
    x, attn, mlp, y = (seen[f"layers.{layer}.{point}"] for point in ("resid_pre", "attn_out", "mlp_out", "resid_post"))
    if kind == "parallel":
        return _error(y, x + attn + mlp)
    middle = seen.get(f"layers.{layer}.resid_mid", x + attn)
    if kind == "sequential":
        return max(_error(middle, x + attn), _error(y, middle + mlp))
    site = model.sites.layout.blocks[layer]["resid_mid"]
    norm = model.model.get_submodule(site.module)
    return _error(middle, norm(x + attn))


def _stream_error(model: LanguageModel, seen: dict[str, Tensor]) -> float | None:
    layout = model.sites.layout
    if not all(kind in ("sequential", "parallel") for kind in layout.kinds):
        return None
    total = seen["layers.0.resid_pre"].double()
    for layer in range(len(layout.blocks)):
        total = total + seen[f"layers.{layer}.attn_out"].double() + seen[f"layers.{layer}.mlp_out"].double()
    return _error(seen[f"layers.{len(layout.blocks) - 1}.resid_post"], total)


def _projection_error(model: LanguageModel, layer: int, seen: dict[str, Tensor]) -> float | None:
    site = model.sites.layout.blocks[layer].get("attn.z")
    if site is None:
        return None
    module = model.model.get_submodule(site.module)
    weight, z = whole(module.weight).double(), seen[f"layers.{layer}.attn.z"].double()
    by_hand = z @ (weight.T if isinstance(module, nn.Linear) else weight)
    return _error(module(seen[f"layers.{layer}.attn.z"]), by_hand if module.bias is None else by_hand + module.bias)


def _error(is_: Tensor, should_be: Tensor) -> float:
    return float((is_.double() - should_be.double()).abs().max() / is_.double().abs().max())


def _problems(proof: Proof, epsilon: float) -> list[str]:
    most = min(_LARGE * epsilon, _LARGE_SUM)
    said = []
    if unsolved := [str(layer) for layer, error in enumerate(proof.block_errors) if error is None]:
        said.append(f"What attention and MLP add was not found in layers {', '.join(unsolved)}.")
    wrong = [str(layer) for layer, error in enumerate(proof.block_errors) if error is not None and not error <= most]
    if wrong:
        said.append(f"What layers {', '.join(wrong)} add is not what they change: do not trust their sites.")
    if proof.stream_error is not None and not proof.stream_error <= most:
        said.append("What all layers add does not sum to the stream: do not trust these sites.")
    if proof.projection_error is not None and not proof.projection_error <= most:
        said.append("attn.z through the output projection is not what the projection writes.")
    if not proof.is_exact:
        said.append("Edits that change nothing change the output.")
    without = [point.name for point in proof.points if point.effect is not None and not point.effect > 0]
    if without:
        said.append(f"Zeros change nothing at {', '.join(without)}.")
    return said
