"""Whatever is done to the files of a dictionary, reading it gives a sound coder or one line that says what is wrong."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.formats.dictionaries import Place, formats

from . import golden_cases, published_cases

PATHS = [(format, golden_cases.path_of(format, "theirs", case)) for format, case in golden_cases.cases("theirs")]
PATHS += [(format, published_cases.folder(format, case)) for format, case in published_cases.cases()]
PLACE = Place("some/model", "blocks.{layer}.hook_resid_mid")
EXPECTED = "expected.safetensors"
OTHER_VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    3.5,
    1e300,
    float("nan"),
    10**40,
    "",
    "relu",
    "x" * 999,
    [],
    [1],
    {},
    {"a": 1},
]


@contextmanager
def damaged(path: Path, damage: Callable[[Path], None]) -> Iterator[Path]:
    """A copy of a case, and of the files above that it needs, after something was done to it."""
    folder = path if path.is_dir() else path.parent
    top = next(parent for parent in folder.parents if parent.name == "theirs")
    with tempfile.TemporaryDirectory() as temporary:
        start = Path(temporary) / top.parent.name
        inside = folder.relative_to(top)
        outer = top / inside.parts[0]
        shutil.copytree(outer, start / inside.parts[0], ignore=shutil.ignore_patterns(EXPECTED))
        copy = start / path.relative_to(top)
        damage(copy)
        yield copy


def files_of(path: Path) -> list[Path]:
    folder = path if path.is_dir() else path.parent
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != EXPECTED)


def outcome(format: str, path: Path) -> dict[str, SparseCoder] | None:
    """What reading gives, or None where it is an error in one line."""
    for known in formats().values():
        known.recognises(path)
    try:
        return formats()[format].read(path, PLACE)
    except UserError as error:
        message = str(error)
        assert message and "\n" not in message
        return None


def assert_sound(coders: dict[str, SparseCoder] | None) -> None:
    """Tensors are finite and fit one another, so that the coder can be used."""
    for coder in (coders or {}).values():
        assert coder.W_dec.shape == (coder.n_latents, coder.wiring.d_write)
        for tensor in coder.state_dict().values():
            assert tensor.dtype == torch.float32 and tensor.isfinite().all()
        x = torch.ones(1, 3, coder.d_model) if coder.reads_sequences else torch.ones(3, coder.d_model)
        codes = coder.encode(x)
        assert codes.dense().shape == (3, coder.n_latents)
        assert coder.reconstruct(codes, x).shape == (3, coder.wiring.d_write)


def assert_same(found: dict[str, SparseCoder] | None, right: dict[str, SparseCoder]) -> None:
    if found is None:
        return
    assert found.keys() <= right.keys()
    for name, coder in found.items():
        state = right[name].state_dict()
        assert coder.config == right[name].config
        assert all(torch.equal(tensor, state[key]) for key, tensor in coder.state_dict().items())


cases = st.sampled_from(PATHS)
more = settings(max_examples=100)


@given(cases, st.data())
def test_a_file_cut_off_anywhere_is_refused_or_was_not_needed(case: tuple[str, Path], data: st.DataObject) -> None:
    format, path = case
    file = data.draw(st.sampled_from(files_of(path)))
    length = data.draw(st.integers(0, file.stat().st_size - 1))
    copied = file.relative_to(path) if path.is_dir() else file.relative_to(path.parent)
    right = outcome(format, path)
    assert right is not None

    def cut(copy: Path) -> None:
        target = (copy if copy.is_dir() else copy.parent) / copied
        target.write_bytes(target.read_bytes()[:length])

    with damaged(path, cut) as copy:
        found = outcome(format, copy)
        assert_sound(found)
        if file.suffix != ".yaml":  # which may end anywhere and still be whole
            assert_same(found, right)


@given(cases, st.data())
def test_a_missing_file_is_refused_or_was_not_needed(case: tuple[str, Path], data: st.DataObject) -> None:
    format, path = case
    file = data.draw(st.sampled_from(files_of(path)))
    copied = file.relative_to(path) if path.is_dir() else file.relative_to(path.parent)
    with damaged(path, lambda copy: ((copy if copy.is_dir() else copy.parent) / copied).unlink()) as copy:
        assert_sound(outcome(format, copy))


@more
@given(cases, st.data())
def test_flipped_bytes_never_make_an_unsound_coder(case: tuple[str, Path], data: st.DataObject) -> None:
    format, path = case
    file = data.draw(st.sampled_from(files_of(path)))
    copied = file.relative_to(path) if path.is_dir() else file.relative_to(path.parent)
    where = st.integers(0, file.stat().st_size - 1) | st.integers(0, min(file.stat().st_size - 1, 400))
    flips = data.draw(st.lists(st.tuples(where, st.integers(1, 255)), min_size=1, max_size=4))

    def flip(copy: Path) -> None:
        target = (copy if copy.is_dir() else copy.parent) / copied
        content = bytearray(target.read_bytes())
        for position, bits in flips:
            content[position] ^= bits
        target.write_bytes(content)

    with damaged(path, flip) as copy:
        assert_sound(outcome(format, copy))


@more
@given(
    st.sampled_from(
        [(format, path) for format, path in PATHS if any(f.suffix in (".json", ".yaml") for f in files_of(path))]
    ),
    st.data(),
)
def test_configs_with_other_values_never_make_an_unsound_coder(case: tuple[str, Path], data: st.DataObject) -> None:
    format, path = case
    configs = [file for file in files_of(path) if file.suffix in (".json", ".yaml")]
    file = data.draw(st.sampled_from(configs))
    content = yaml.safe_load(file.read_text())
    parents = [content, *(value for value in content.values() if isinstance(value, dict) and value)]
    parent = data.draw(st.sampled_from(parents))
    key = data.draw(st.sampled_from(sorted(parent)) | st.just("something_new"))
    if data.draw(st.booleans()) and key in parent:
        del parent[key]
    else:
        parent[key] = data.draw(st.sampled_from(OTHER_VALUES))
    if data.draw(st.integers(0, 9)) == 0:
        content = data.draw(st.sampled_from([content, [content], "text", None, 3]))
    text = json.dumps(content) if file.suffix == ".json" else yaml.safe_dump(content)
    copied = file.relative_to(path) if path.is_dir() else file.relative_to(path.parent)
    with damaged(
        path, lambda copy: (_ := (((copy if copy.is_dir() else copy.parent) / copied).write_text(text)), None)[1]
    ) as copy:
        assert_sound(outcome(format, copy))


def _load(file: Path) -> dict[str, Any]:
    if file.suffix == ".npz":
        return {name: torch.from_numpy(array) for name, array in np.load(file).items()}
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)


def _save(content: dict[str, Any], file: Path) -> None:
    if file.suffix == ".npz":
        arrays: dict[str, Any] = {name: tensor.to(torch.float32).numpy() for name, tensor in content.items()}
        np.savez(file, **arrays)
    elif file.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in content.items()}, file)
    else:
        torch.save(content, file)


DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.bool, torch.float8_e4m3fn]
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "nan": lambda t: (
        t.clone().float().index_fill_(0, torch.tensor([0]), torch.nan) if t.ndim and len(t) else t * torch.nan
    ),
    "infinite": lambda t: t * torch.inf,
    "beyond float32": lambda t: t.double() * 1e300,
    "transposed": lambda t: t.mT if t.ndim > 1 else t.flip(0) if t.ndim else t[None],
    "flat": lambda t: t.flatten(),
    "shorter": lambda t: t[1:] if t.ndim else t[None],
    "narrower": lambda t: t[..., 1:] if t.ndim else t[None],
    "empty": lambda t: t[:0] if t.ndim else t[None][:0],
    "another axis": lambda t: t[None],
    "a number": lambda t: torch.tensor(0.5),
    "longer": lambda t: torch.cat([t, t]) if t.ndim else t[None],
    "zero": torch.zeros_like,
    "negative": lambda t: -t.abs() if t.dtype.is_floating_point else t,
    **{str(dtype): (lambda t, dtype=dtype: t.to(dtype)) for dtype in DTYPES},
}


@more
@given(cases, st.data())
def test_other_tensors_never_make_an_unsound_coder(case: tuple[str, Path], data: st.DataObject) -> None:
    format, path = case
    file = data.draw(
        st.sampled_from([f for f in files_of(path) if f.suffix in (".pt", ".pth", ".npz", ".safetensors")])
    )
    content = _load(file)
    tensors = content.get("ae", content)  # a backup of dictionary_learning has them one level down
    names = sorted(name for name, value in tensors.items() if isinstance(value, Tensor))
    one, other = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    change = data.draw(st.sampled_from(["swapped", "missing", "extra", "renamed", *CHANGES]))
    if change == "swapped":
        tensors[one], tensors[other] = tensors[other], tensors[one]
    elif change == "extra":
        tensors["W_something"] = torch.ones(3)
    elif change in ("missing", "renamed"):
        moved = tensors.pop(one)
        tensors.update({"x" + one: moved} if change == "renamed" else {})
    else:
        tensors[one] = CHANGES[change](tensors[one])
    copied = file.relative_to(path) if path.is_dir() else file.relative_to(path.parent)
    with damaged(path, lambda copy: _save(content, (copy if copy.is_dir() else copy.parent) / copied)) as copy:
        assert_sound(outcome(format, copy))


NAMES = ("params.npz", "params.safetensors", "sae_weights.safetensors", "model.safetensors", "layer_0.safetensors")
NAMES += ("W_enc_0.safetensors", "cc_weights.pt", "ae.pt", "8.pt", "layer0.sae.pt", "x-SAE-l19.pth", "config.json")
NAMES += ("cfg.json", "config.yaml", "hyperparams.json", "checkpoint.safetensors", "sae.safetensors")


@given(st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=64), min_size=1, max_size=4))
def test_noise_under_known_names_is_refused(noise: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in noise.items():
            (Path(temporary) / name).write_bytes(content)
        for path in (Path(temporary), *(Path(temporary) / name for name in noise)):
            for name in formats():
                assert not outcome(name, path)
