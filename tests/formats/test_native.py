"""Coders on disk: what is written comes back, what was altered is refused."""

from pathlib import Path

import pytest
import torch

from unweave.coders import Origin, SparseCoder, architectures
from unweave.errors import UserError
from unweave.formats.native import read_coder, write_coder


@pytest.fixture(params=sorted(architectures()))
def coder(request: pytest.FixtureRequest) -> SparseCoder:
    cls = architectures()[request.param]
    coder = cls(cls.Config(n_latents=100), 7)
    with torch.no_grad():
        for tensor in coder.state_dict().values():
            tensor.copy_(torch.randn_like(tensor))
    coder.origin = Origin("some/model", "layers.1.mlp_out")
    return coder


def test_a_coder_comes_back_bit_for_bit(coder: SparseCoder, tmp_path: Path) -> None:
    write_coder(tmp_path / "coder", coder)
    again = read_coder(tmp_path / "coder")
    assert type(again) is type(coder)
    assert again.config == coder.config
    assert again.origin == coder.origin
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in coder.state_dict().items())
    assert not any(p.requires_grad for p in again.parameters())


def test_a_flipped_bit_in_the_weights_is_named(coder: SparseCoder, tmp_path: Path) -> None:
    write_coder(tmp_path, coder)
    path = tmp_path / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"weights\.safetensors' is damaged"):
        read_coder(tmp_path)


def test_truncated_weights_are_named(coder: SparseCoder, tmp_path: Path) -> None:
    write_coder(tmp_path, coder)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged"):
        read_coder(tmp_path)


def test_weights_of_another_shape_are_refused(coder: SparseCoder, tmp_path: Path) -> None:
    write_coder(tmp_path, coder)
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace("n_latents = 100", "n_latents = 101"))
    with pytest.raises(UserError, match=r"does not fit its config\.toml"):
        read_coder(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("format = 1", "format = 9", "update unweave"),
        ("sha256", "sha512", "lacks sha256"),
        ("n_latents", "n_latent", "did you mean 'n_latents'"),
    ],
)
def test_a_config_that_does_not_fit_is_named(coder: SparseCoder, tmp_path: Path, old: str, new: str, says: str) -> None:
    write_coder(tmp_path, coder)
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(UserError, match=says):
        read_coder(tmp_path)


def test_a_folder_without_a_coder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no coder in"):
        read_coder(tmp_path)


def test_missing_weights_are_named(coder: SparseCoder, tmp_path: Path) -> None:
    write_coder(tmp_path, coder)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no weights\.safetensors"):
        read_coder(tmp_path)
