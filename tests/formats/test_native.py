"""Coders on disk: what is written comes back, what was altered is refused."""

import tomllib
from pathlib import Path

import pytest
import torch

from unweave.coders import Origin, Port, SparseCoder, Wiring, architectures
from unweave.coders.wiring import RowNorm
from unweave.errors import UserError
from unweave.formats.native import read_coder, write_coder

HERE, THERE = Port("layers.1.mlp_in", 7), Port("layers.1.mlp_out", 9)
WIRINGS = {
    "sae": Wiring.sae(7, "layers.1.mlp_out"),
    "transcoder": Wiring.transcoder(HERE, THERE),
    "skip_transcoder": Wiring.transcoder(HERE, THERE, skip=True),
    "crosscoder": Wiring.crosscoder(HERE, THERE, Port("layers.2.attn.z", 5)),
}


def _finished(coder: SparseCoder) -> SparseCoder:
    with torch.no_grad():
        for tensor in coder.state_dict().values():
            tensor.copy_(torch.randn_like(tensor))
    coder.origin = Origin("some/model")
    return coder


@pytest.fixture(params=sorted(architectures()))
def coder(request: pytest.FixtureRequest) -> SparseCoder:
    cls = architectures()[request.param]
    return _finished(cls(cls.Config(n_latents=512), WIRINGS["sae"]))


def _assert_equal(ours: SparseCoder, theirs: SparseCoder) -> None:
    assert type(ours) is type(theirs)
    assert ours.config == theirs.config
    assert ours.origin == theirs.origin
    assert ours.wiring == theirs.wiring
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_a_coder_comes_back_bit_for_bit(coder: SparseCoder, tmp_path: Path) -> None:
    write_coder(tmp_path / "coder", coder)
    again = read_coder(tmp_path / "coder")
    _assert_equal(again, coder)
    assert again.site == "layers.1.mlp_out"
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("wiring", WIRINGS)
def test_every_wiring_comes_back_as_it_was(wiring: str, tmp_path: Path) -> None:
    cls = architectures()["batch_topk"]
    coder = _finished(cls(cls.Config(n_latents=63), WIRINGS[wiring]))
    write_coder(tmp_path, coder)
    again = read_coder(tmp_path)
    _assert_equal(again, coder)
    assert again.wiring.kind == wiring
    x = torch.randn(9, coder.wiring.d_read)
    assert torch.equal(again(x), coder(x))
    saved = tomllib.loads((tmp_path / "config.toml").read_text())
    assert [tuple(port.values()) for port in saved["reads"]] == list(coder.wiring.reads)
    assert [tuple(port.values()) for port in saved["writes"]] == list(coder.wiring.writes)
    assert saved["skip"] == (wiring == "skip_transcoder")


def test_settings_that_were_published_values_come_back_as_numbers(tmp_path: Path) -> None:
    """What the paper has is written out, so that a later change of defaults does not change a saved coder."""
    cls = architectures()["relu"]
    coder = _finished(cls(cls.Config(n_latents=63, variant="april_2024"), WIRINGS["sae"]))
    write_coder(tmp_path, coder)
    saved = tomllib.loads((tmp_path / "config.toml").read_text())["coder"]
    assert saved["decoder_norm"] == "free"
    assert saved["l1_coefficient"] == 5.0
    assert saved["centre"] is False


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
    config.write_text(config.read_text().replace("n_latents = 512", "n_latents = 1024"))
    with pytest.raises(UserError, match=r"does not fit its config\.toml"):
        read_coder(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("format = 2", "format = 1", "has format 1, this version reads 2; train it again"),
        ("format = 2", "format = 9", "has format 9, this version reads 2"),
        ("sha256", "sha512", "lacks sha256"),
        ("skip", "skipped", "lacks skip"),
        (
            'row_norm = "none"',
            'row_norm = "rms"',
            "row_norm in .* must be one of none, layer_norm, sqrt_width, got 'rms'",
        ),
        ("n_latents", "n_latent", "did you mean 'n_latents'"),
        ('site = "layers.1.mlp_out"', 'place = "layers.1.mlp_out"', "needs a site and a width for each of reads and"),
        ("width = 7", 'width = "wide"', "needs a site and a width for each of reads and"),
        ("width = 7", "width = 8", r"does not fit its config\.toml"),
    ],
)
def test_a_config_that_does_not_fit_is_named(coder: SparseCoder, tmp_path: Path, old: str, new: str, says: str) -> None:
    write_coder(tmp_path, coder)
    config = tmp_path / "config.toml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(UserError, match=says):
        read_coder(tmp_path)


@pytest.mark.parametrize("row_norm", ["layer_norm", "sqrt_width"])
def test_what_is_done_to_each_row_comes_back(row_norm: RowNorm, tmp_path: Path) -> None:
    cls, port = architectures()["topk"], Port("layers.1.mlp_out", 7)
    coder = _finished(cls(cls.Config(n_latents=63, k=5), Wiring((port,), (port,), row_norm=row_norm)))
    write_coder(tmp_path, coder)
    again = read_coder(tmp_path)
    _assert_equal(again, coder)
    x = torch.randn(9, 7)
    assert torch.equal(again(x), coder(x))


def test_a_config_from_before_rows_could_be_normalised_means_that_they_are_not(tmp_path: Path) -> None:
    cls = architectures()["relu"]
    coder = _finished(cls(cls.Config(n_latents=63), WIRINGS["sae"]))
    write_coder(tmp_path, coder)
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace('row_norm = "none"\n', ""))
    _assert_equal(read_coder(tmp_path), coder)


def test_a_config_of_the_first_format_is_told_to_train_again(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('format = 1\ntype = "relu"\nd_model = 7\nsite = "layers.1.mlp_out"\n')
    with pytest.raises(UserError, match="has format 1, this version reads 2; train it again"):
        read_coder(tmp_path)


def test_a_folder_without_a_coder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no coder in"):
        read_coder(tmp_path)


def test_missing_weights_are_named(coder: SparseCoder, tmp_path: Path) -> None:
    write_coder(tmp_path, coder)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no weights\.safetensors"):
        read_coder(tmp_path)
