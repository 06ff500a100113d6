"""Places in a model by name: `layers.6.resid_pre`, `layers.3.mlp_out`, TransformerLens names, or bare module paths.

`attn_out` and `mlp_out` are what is added to the residual stream, `attn.z` is the concatenated head outputs before the
output projection, `mlp.pre`, `mlp.pre_linear` and `mlp.post` the hidden activations before the activation function (of
the gate, in gated MLPs), of the other branch, and before the down projection, and `mlp_in` what the MLP module reads.
`ln1.normalized` and `ln2.normalized` are what attention and MLP read, before the weight and bias of their norms.
`attn.q`, `attn.k` and `attn.v` are rows of all heads as they meet in attention, behind any rotary embedding, in front
of which are `attn.q_before_rotary` and `attn.k_before_rotary`; `attn.scores` and `attn.pattern` are [N, H, T, T]. In a
mixture of experts, `mlp.router` holds the router's logits, `mlp.routing` the weight of each expert, and
`mlp.experts.3.pre`, `.pre_linear`, `.post` and `.out` what one expert makes of the tokens that are sent to it.

No family of models is known by name: where these places are is found by one pass on a few tokens, when the first of
them is asked for. What is not found in a model is not a site of it. An option behind a name changes what is seen:
`layers.6.resid_pre:centred` is without its mean over the width, `layers.3.attn.z:unbiased` without value biases.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unweave.errors import UserError, nearest
from unweave.models.before_rotary import find_before_rotary
from unweave.models.layout import POINTS, Layout, Sites, find_layout
from unweave.models.site import Centred, Lens, Side, Site, Without
from unweave.models.transformer_lens import canonical
from unweave.models.value_bias import value_bias

__all__ = ["Side", "Site", "SiteMap"]
_SIDES: dict[str, Side] = {"in": "in", "out": "out"}
_OPTIONS = ("centred", "unbiased")
_BEFORE_ROTARY = "_before_rotary"


class SiteMap:
    """Resolves site names for one loaded model."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._modules = {name for name, _ in model.named_modules() if name}
        self._resolved: dict[str, Site] = {}
        self._layout: Layout | None = None
        self.is_probing = False
        """The model runs on tokens of our own, of which a user's edits hear nothing."""

    @property
    def layout(self) -> Layout:
        """What a probe of the model has found."""
        if self._layout is None:
            with self._probing():
                self._layout = find_layout(self._model)
        return self._layout

    @property
    def n_layers(self) -> int:
        return len(self.layout.blocks)

    def names(self) -> list[str]:
        """All named sites of this model, in order of depth."""
        layout = self.layout
        within = [f"layers.{layer}.{point}" for layer in range(len(layout.blocks)) for point in layout.points(layer)]
        return [*layout.first, *within, *layout.last]

    def near(self, name: str) -> str:
        """A hint at sites and modules whose names are like this one, or nothing."""
        known = {*self.names(), *self._modules} - {name, name.removesuffix(":out"), name.removesuffix(":in")}
        return nearest(canonical(name), sorted(known))

    def final_norm(self) -> Any:
        """The norm between the last block and the unembedding, or None where there is none."""
        site = self.layout.last.get("ln_final")
        return site and self._model.get_submodule(site.module)

    def resolve(self, name: str) -> Site:
        """The site called ``name``, in any of the three spellings."""
        if name not in self._resolved:
            self._resolved[name] = self._resolve(name)
        return self._resolved[name]

    def _resolve(self, name: str) -> Site:
        place, *words = name.split(":")
        if place in self._modules and not self._is_point(place, words):
            site = self._at_path(place, words)
        else:
            named, *words = canonical(name).split(":")
            site = self._named(named, words)
        without_head = f"{getattr(self._model, 'base_model_prefix', '')}.{place}"
        if site is None and without_head in self._modules:  # the path that it has in the model without its head
            site = self._at_path(without_head, words)
        if site is None:
            raise UserError(self._unknown(name))
        for option in (word for word in words if word not in _SIDES):
            site = self._with_option(site, option)
        return site

    def _is_point(self, path: str, words: list[str]) -> bool:
        """Whether a path is the name of a site too, which then is meant unless a side is named."""
        is_like_one = path.startswith("layers.") and path.endswith(POINTS) and not set(words) & set(_SIDES)
        return is_like_one and self._named(path, words) is not None

    def _at_path(self, path: str, words: list[str]) -> Site | None:
        """What enters or leaves a module; copied, as it is not known whether the model writes into it later on."""
        side = _SIDES.get(words[0], "out") if words else "out"
        if not set(words[1:] if words and words[0] in _SIDES else words) <= set(_OPTIONS):
            return None
        return Site(f"{path}:{side}", path, side, is_overwritten=True)

    def _named(self, place: str, words: list[str]) -> Site | None:
        match = re.fullmatch(r"layers\.(0|[1-9][0-9]*)\.(.+)", place)
        points: Sites = self.layout.first | self.layout.last
        if match:
            points = self.layout.points(int(match[1])) if int(match[1]) < self.n_layers else {}
        site = points.get(match[2] if match else place)
        if not set(words) <= set(_OPTIONS):
            return None
        if site is None:
            return self._before_rotary(place) if place.endswith(_BEFORE_ROTARY) else None
        return site._replace(name=place)

    def _with_option(self, site: Site, option: str) -> Site:
        if ":" in site.name.removesuffix(":in").removesuffix(":out"):
            raise UserError(f"{site.name} takes no second option :{option}")
        if site.side == "norm":
            raise UserError(f"{site.name} takes no option, it is read before the norm's own weight and bias")
        if not site.has_rows:
            raise UserError(f"{site.name} takes no option, it has no row for each token")
        lens = Centred() if option == "centred" else self._without_value_bias(site)
        return site._replace(name=f"{site.name}:{option}", lenses=(*site.lenses, lens))

    def _before_rotary(self, place: str) -> Site | None:
        site = self._named(place.removesuffix(_BEFORE_ROTARY), [])
        if site is None or site.side != "attention" or site.inner not in ("q", "k"):
            return None
        with self._probing():
            found = find_before_rotary(self._model, site)
        if found is None:
            raise UserError(
                f"no module of this model writes what the rotary embedding makes {site.name} of; name {site.name}, or "
                f"a module within {site.module}"
            )
        return found

    def _without_value_bias(self, site: Site) -> Lens:
        match = re.fullmatch(r"layers\.(\d+)\.(attn\.[zv])", site.name)
        points = self.layout.blocks[int(match[1])] if match else {}
        with self._probing():
            constant = value_bias(self._model, points, match[2]) if match else None
        if constant is None:
            raise UserError(f"no value bias was found for {site.name}; leave :unbiased out")
        return Without(constant)

    def _unknown(self, name: str) -> str:
        kind = self._model.config.model_type if hasattr(self._model, "config") else type(self._model).__name__
        reason = f"; its layers are 0 to {self.n_layers - 1}" if self.n_layers else ""
        if self.layout.problem:
            reason = f"; it has no named sites, as {self.layout.problem}"
        if strange := set(name.split(":")[1:]) - {*_SIDES, *_OPTIONS}:
            reason = f"; its options are :{' and :'.join(_OPTIONS)}, not :{sorted(strange)[0]}"
        return f"this {kind} model has no site {name!r}{self.near(name)}{reason}"

    @contextmanager
    def _probing(self) -> Iterator[None]:
        before, self.is_probing = self.is_probing, True
        try:
            yield
        finally:
            self.is_probing = before
