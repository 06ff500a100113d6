"""Queries and keys before their rotary embedding, against where each family is known to keep them."""

from typing import Any, Literal

import pytest
import torch

from tests.models.families import tiny
from unweave.models.attention import attention_modules, inside_attention
from unweave.models.before_rotary import HeadColumns, HeadsInRows, find_before_rotary
from unweave.models.site import Site

Point = Literal["q", "k"]
PROJECTIONS = {"q": "q_proj", "k": "k_proj"}
NORMS = {"q": "q_norm", "k": "k_norm"}
FUSED = {"q": "query_key_value", "k": "query_key_value"}
PACKED = {"q": "qkv_proj", "k": "qkv_proj"}
KEPT: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "llama": (PROJECTIONS, {}),
    "mistral": (PROJECTIONS, {}),
    "qwen2": (PROJECTIONS, {}),
    "gemma2": (PROJECTIONS, {}),
    "gpt_oss": (PROJECTIONS, {}),
    "phi": (PROJECTIONS, {}),
    "olmo2": (NORMS, {}),
    "qwen3": (NORMS, {"q": HeadsInRows(2), "k": HeadsInRows(2)}),
    "gemma3": (NORMS, {"q": HeadsInRows(1), "k": HeadsInRows(1)}),
    "gpt_neox": (FUSED, {"q": HeadColumns(4, 0, 6), "k": HeadColumns(4, 6, 12)}),
    "phi3": (PACKED, {"q": HeadColumns(1, 0, 24), "k": HeadColumns(1, 24, 36)}),
}
"""Modules within attention, and the part of what they write."""


def _find(family: str, point: Point, layer: int = 1) -> tuple[Site, Site | None]:
    model = tiny(family).model
    site = Site(f"layers.{layer}.attn.{point}", attention_modules(model)[layer], "attention", inner=point)
    return site, find_before_rotary(model, site)


@pytest.mark.parametrize("point", ["q", "k"])
@pytest.mark.parametrize("family", KEPT)
def test_they_are_found_where_the_family_keeps_them(family: str, point: Point) -> None:
    site, found = _find(family, point)
    modules, lenses = KEPT[family]
    assert found is not None
    assert (found.module, found.side) == (f"{site.module}.{modules[point]}", "out")
    assert found.lenses == ((lenses[point],) if point in lenses else ())
    assert found.name == f"layers.1.attn.{point}_before_rotary"


@pytest.mark.parametrize("point", ["q", "k"])
@pytest.mark.parametrize("family", ["gpt2", "bert", "vit"])
def test_where_nothing_is_turned_they_are_what_meets(family: str, point: Point) -> None:
    site, found = _find(family, point)
    assert found == site


def test_queries_that_are_scaled_on_the_way_are_found_too() -> None:
    """OPT divides its queries by the root of their width, and leaves its keys."""
    site, found = _find("opt", "q")
    assert found is not None and found.module == f"{site.module}.q_proj"
    site, found = _find("opt", "k")
    assert found == site


def test_what_no_module_writes_is_not_found() -> None:
    model = tiny("llama").model
    with inside_attention(model, {(attention_modules(model)[1], "q"): lambda q: q.flip(-1)}):
        assert _find("llama", "q")[1] is None
        assert _find("llama", "k")[1] is not None


@pytest.mark.parametrize("lens", [HeadsInRows(1), HeadsInRows(2), HeadColumns(4, 1, 3)])
def test_what_is_read_can_be_put_back(lens: HeadsInRows | HeadColumns) -> None:
    raw = torch.randn(2, 4, 9, 5) if lens == HeadsInRows(1) else torch.randn(2, 9, 4, 5)
    raw = raw.flatten(2) if isinstance(lens, HeadColumns) else raw
    view = lens.read(raw)
    assert view.shape == (2, 9, 8 if isinstance(lens, HeadColumns) else 20)
    assert torch.equal(lens.write(raw, view), raw)
    new = torch.randn_like(view)
    assert torch.equal(lens.read(lens.write(raw, new)), new)


def test_columns_beside_an_edit_stay() -> None:
    raw = torch.arange(24.0).view(1, 1, 24)
    lens = HeadColumns(4, 2, 4)
    assert lens.read(raw).tolist() == [[[2.0, 3.0, 8.0, 9.0, 14.0, 15.0, 20.0, 21.0]]]
    assert lens.write(raw, torch.zeros(1, 1, 8)).tolist()[0][0][:8] == [0.0, 1.0, 0.0, 0.0, 4.0, 5.0, 6.0, 7.0]
