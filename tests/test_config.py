import importlib
import inspect
import re
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unweave
from unweave.coders import architectures
from unweave.coders.batch_topk import BatchTopKConfig
from unweave.config import apply_overrides, build, describe, field_docs, parse_toml, read_toml, to_toml
from unweave.errors import UserError
from unweave.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Dye:
    """A section within a section."""

    colour: Literal["madder", "woad", "weld"] = "woad"
    """What it is dyed with."""
    baths: int = 3
    """How often."""

    def __post_init__(self) -> None:
        if self.baths < 0:
            raise UserError(f"dye.baths must not be negative, got {self.baths}")


@dataclass(frozen=True, kw_only=True)
class Thread:
    """A section."""

    length: float = 6.3
    """In metres."""
    fibres: tuple[str, ...] = ("flax", "hemp")
    """From thick to thin."""
    dye: Dye = Dye()
    """Its colour."""


@dataclass(frozen=True, kw_only=True)
class Cloth:
    """A recipe."""

    name: str
    """What it is called."""
    warp: Thread = Thread()
    """Along."""
    weft: Thread = field(default_factory=lambda: Thread(length=7.0))
    """Across."""
    note: str | None = None
    """Anything else."""
    tight: bool = True
    """Whether it keeps the wind out."""


texts = st.text(st.characters(codec="utf-8"), max_size=20)
dyes = st.builds(Dye, colour=st.sampled_from(["madder", "woad", "weld"]), baths=st.integers(0, 100))
threads = st.builds(Thread, length=st.floats(allow_nan=False), fibres=st.lists(texts, max_size=3).map(tuple), dye=dyes)
cloths = st.builds(Cloth, name=texts, warp=threads, weft=threads, note=st.none() | texts, tight=st.booleans())


@given(cloths)
def test_a_config_survives_the_way_through_toml(cloth: Cloth) -> None:
    assert build(Cloth, parse_toml(to_toml(cloth), "memory")) == cloth


@given(st.integers(1, 10**9), st.integers(1, 10**6), st.floats(1e-9, 10), st.floats(0, 0.5), st.floats(0, 0.5))
def test_training_settings_survive_the_way_through_toml(
    rows: int, batch: int, lr: float, warm_up: float, decay: float
) -> None:
    config = TrainingConfig(rows=rows, batch=batch, lr=lr, warm_up=warm_up, decay=decay, buffer=2 * batch)
    assert build(TrainingConfig, parse_toml(to_toml(config), "memory")) == config


@pytest.mark.parametrize("name", sorted(architectures()))
def test_the_defaults_of_every_architecture_survive_the_way_through_toml(name: str) -> None:
    config = architectures()[name].Config()
    assert build(type(config), parse_toml(to_toml(config), "memory")) == config


def test_a_config_is_built_from_some_of_its_keys_and_defaults() -> None:
    cloth = build(Cloth, {"name": "twill", "warp": {"dye": {"baths": 63}}})
    assert cloth == Cloth(name="twill", warp=Thread(dye=Dye(baths=63)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "twill", "wrap": {}}, r"unknown setting 'wrap'; did you mean 'warp'\?.*known here: name, warp, weft"),
        ({"name": "twill", "warp": {"lenght": 1.0}}, r"unknown setting 'warp\.lenght'; did you mean 'length'\?"),
        ({"name": "twill", "warp": {"dye": {"bath": 1}}}, r"unknown setting 'warp\.dye\.bath'; did you mean 'baths'\?"),
        ({}, r"setting 'name' is missing"),
        ({"name": "twill", "warp": 7}, r"setting 'warp' is a section, got the value 7"),
        ({"name": "twill", "warp": {"length": "long"}}, r"setting 'warp\.length'.*got 'long'"),
        ({"name": "twill", "warp": {"dye": {"baths": 2.5}}}, r"setting 'warp\.dye\.baths'.*got 2\.5"),
        ({"name": 7}, r"setting 'name'.*string.*got 7"),
        (
            {"name": "twill", "weft": {"dye": {"colour": "weld "}}},
            r"setting 'weft\.dye\.colour'.*'madder'.*got 'weld '",
        ),
        ({"name": "twill", "tight": "perhaps"}, r"setting 'tight'.*got 'perhaps'"),
        ({"name": "twill", "warp": {"fibres": ["flax", 7]}}, r"setting 'warp\.fibres\.1'.*got 7"),
        ({"name": "twill", "warp": {"dye": {"baths": -1}}}, r"^dye\.baths must not be negative, got -1$"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(Cloth, values)


def test_the_place_of_a_section_is_part_of_the_message() -> None:
    with pytest.raises(UserError, match=r"unknown setting 'coder\.kk'; did you mean 'k'\?"):
        build(BatchTopKConfig, {"kk": 7}, where="coder")
    with pytest.raises(UserError, match=r"^setting 'coder\.k': .*got 'many'"):
        build(BatchTopKConfig, {"k": "many"}, where="coder")


def test_a_check_of_the_config_itself_speaks_for_itself() -> None:
    with pytest.raises(UserError, match=r"^coder\.k needs 0 < k <= n_latents, got k=30 with n_latents=8$"):
        build(BatchTopKConfig, {"k": 30, "n_latents": 8}, where="coder")


def test_a_truth_value_is_not_a_number() -> None:
    with pytest.raises(UserError, match=r"setting 'warp\.dye\.baths'.*got True"):
        build(Cloth, {"name": "twill", "warp": {"dye": {"baths": True}}})
    with pytest.raises(UserError, match=r"setting 'coder\.k' is a number, got True"):
        build(BatchTopKConfig, {"k": True}, where="coder")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("coder.k=64", {"coder": {"k": 64, "type": "relu"}, "name": "a"}),
        ("coder.k = 64", {"coder": {"k": 64, "type": "relu"}, "name": "a"}),
        ("coder.lr=1e-3", {"coder": {"k": 32, "type": "relu", "lr": 1e-3}, "name": "a"}),
        ("coder.type=batch_topk", {"coder": {"k": 32, "type": "batch_topk"}, "name": "a"}),
        ('coder.type="batch_topk"', {"coder": {"k": 32, "type": "batch_topk"}, "name": "a"}),
        ("name=builtin:pylm", {"coder": {"k": 32, "type": "relu"}, "name": "builtin:pylm"}),
        ("name=a=b", {"coder": {"k": 32, "type": "relu"}, "name": "a=b"}),
        ("name=", {"coder": {"k": 32, "type": "relu"}, "name": ""}),
        ("sites=[1, 2]", {"coder": {"k": 32, "type": "relu"}, "name": "a", "sites": [1, 2]}),
        (
            'sites=["layers.0.resid_pre"]',
            {"coder": {"k": 32, "type": "relu"}, "name": "a", "sites": ["layers.0.resid_pre"]},
        ),
        ("on=true", {"coder": {"k": 32, "type": "relu"}, "name": "a", "on": True}),
        ("a.b.c=7", {"coder": {"k": 32, "type": "relu"}, "name": "a", "a": {"b": {"c": 7}}}),
    ],
)
def test_an_override_sets_a_dotted_key(override: str, expected: dict[str, object]) -> None:
    assert apply_overrides({"coder": {"k": 32, "type": "relu"}, "name": "a"}, [override]) == expected


def test_overrides_apply_in_order_and_leave_the_original_alone() -> None:
    values = {"coder": {"k": 32}}
    assert apply_overrides(values, ["coder.k=7", "coder.n=63", "coder.k=100"]) == {"coder": {"k": 100, "n": 63}}
    assert values == {"coder": {"k": 32}}


@pytest.mark.parametrize("override", ["coder.k", "=64", "", " = 64"])
def test_an_override_without_key_or_value_is_refused(override: str) -> None:
    with pytest.raises(UserError, match=rf"key=value, got {re.escape(repr(override))}; for example"):
        apply_overrides({}, [override])


def test_an_override_through_a_value_is_refused() -> None:
    with pytest.raises(UserError, match=r"'name\.first=x' goes through 'name', which is a value"):
        apply_overrides({"name": "a"}, ["name.first=x"])


def test_toml_that_is_broken_is_named_with_its_origin(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recipe is not valid TOML: .*line 1"):
        parse_toml("k = = 7", "recipe")
    file = tmp_path / "recipe.toml"
    file.write_text("k = ", encoding="utf-8")
    with pytest.raises(UserError, match=r"recipe\.toml is not valid TOML"):
        read_toml(file)
    with pytest.raises(UserError, match=r"there is no file '.*absent\.toml'"):
        read_toml(tmp_path / "absent.toml")
    with pytest.raises(UserError, match="is not a TOML text file"):
        read_toml(tmp_path)
    file.write_bytes(b"k = '\xff'")
    with pytest.raises(UserError, match="is not a TOML text file"):
        read_toml(file)


def test_a_toml_file_is_read_as_dictionaries(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('name = "Überwurf"\n[warp]\nlength = 7.0\n', encoding="utf-8")
    assert read_toml(file) == {"name": "Überwurf", "warp": {"length": 7.0}}


def test_settings_are_described_with_type_default_and_docstring() -> None:
    rows = {row.name: row for row in describe(Cloth)}
    assert list(rows) == ["name", "warp", "weft", "note", "tight"]
    assert rows["name"] == ("name", "str", "required", "What it is called.")
    assert rows["weft"].default == "a section of its own"
    assert rows["note"] == ("note", "str | None", "None", "Anything else.")
    assert describe(Dye)[0] == ("colour", "Literal['madder', 'woad', 'weld']", "'woad'", "What it is dyed with.")


def test_docstrings_of_inherited_settings_are_found() -> None:
    docs = field_docs(BatchTopKConfig)
    assert "Number of latents" in docs["n_latents"]
    assert "active latents" in docs["k"]


def _config_modules() -> list[str]:
    root = Path(unweave.__file__).parent
    files = (
        file for file in sorted(root.rglob("*.py")) if re.search(r"^class \w*Config\b", file.read_text("utf-8"), re.M)
    )
    return [
        ".".join(("unweave", *file.relative_to(root).with_suffix("").parts)).removesuffix(".__init__") for file in files
    ]


@pytest.mark.parametrize("module", _config_modules())
def test_every_setting_of_every_config_has_a_docstring_and_a_frozen_home(module: str) -> None:
    for name, cls in inspect.getmembers(importlib.import_module(module), inspect.isclass):
        if not name.endswith("Config") or cls.__module__ != module:
            continue
        assert is_dataclass(cls), name
        assert cls.__dataclass_params__.frozen, name
        assert all(setting.kw_only for setting in fields(cls)), name
        for row in describe(cls):
            assert row.doc.rstrip().endswith((".", ".)")), f"{name}.{row.name} has no docstring"
