"""Files that nobody here made: toy cross-layer transcoders and ten latents of Gemma Scope; skipped where absent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from unweave.errors import UserError
from unweave.formats.dictionaries import Place, formats, read_dictionaries
from unweave.formats.tensor_file import read_tensors

REAL = Path(__file__).parents[4] / "shared" / "realdata"
TOYS, LATENTS = REAL / "clt-toy-weights", REAL / "gemma-scope-latents"
CLOSE = {"rtol": 0.0, "atol": 1e-5}

real = pytest.mark.skipif(not REAL.is_dir(), reason="real weights are not part of the repository")


@real
@pytest.mark.parametrize(
    "name", ["jumprelu-clt-toy-L0=1", "jumprelu-clt-toy-L0=2", "jumprelu-plt-toy", "jumprelu-plt-toy-L0=1"]
)
def test_toy_transcoders_compute_what_their_library_does(name: str) -> None:
    p = load_file(TOYS / name / "checkpoint.safetensors")
    coders = read_dictionaries(TOYS / name)
    assert list(coders) == ["layers.0", "layers.1"]
    x = torch.randn(2, 63, 110, generator=torch.Generator().manual_seed(7))
    h = torch.einsum("nbd,ndl->nbl", x, p["encoder.W"]) + p["encoder.b"][:, None]
    f = h * ((h > p["nonlinearity.theta"].transpose(0, 1)) & (h > 0))
    for n, coder in enumerate(coders.values()):
        torch.testing.assert_close(coder.encode(x[n]).dense(), f[n], **CLOSE)
    assert 0 < (f > 0).float().mean() < 1
    written = [coder(x[n]) for n, coder in enumerate(coders.values())]
    if "decoder.W" in p:
        outputs: list[Tensor] = written
        right = [f[t] @ p["decoder.W"][t] + p["decoder.b"][t] for t in range(2)]
    else:
        outputs = [written[0][:, :110], written[0][:, 110:] + written[1]]
        right = [sum(f[n] @ p[f"decoder.W_{t}"][n] for n in range(t + 1)) + p["decoder.b"][t] for t in range(2)]
    for found, truth in zip(outputs, right, strict=True):
        torch.testing.assert_close(found / truth.abs().max(), truth / truth.abs().max(), **CLOSE)


@real
@pytest.mark.parametrize("name", ["topk-clt-toy-k=1", "topk-plt-toy-L0=2", "topk-plt-toy-k=1"])
def test_toy_transcoders_that_choose_among_all_layers_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="'LayerTopK', which chooses among layers or rows at once"):
        read_dictionaries(TOYS / name)


@real
@pytest.mark.parametrize("name", ["clt-toy", "topk-plt-toy"])
def test_halves_of_a_toy_transcoder_are_no_dictionary(name: str) -> None:
    assert not any(known.recognises(TOYS / name) for known in formats().values())
    assert read_tensors(TOYS / name / "encoder.pt").keys() == {"W", "b"}


@real
@pytest.mark.parametrize("layer", [10, 20])
def test_latents_of_gemma_scope_compute_what_is_published(tmp_path: Path, layer: int) -> None:
    p = read_tensors(LATENTS / f"layer_{layer}_addition.GemmaScopeSAE.pt")
    folder = tmp_path / "gemma-scope-2b-pt-res" / f"layer_{layer}" / "width_16k" / "average_l0_77"
    folder.mkdir(parents=True)
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in p.items()}
    np.savez(folder / "params.npz", **arrays)
    (coder,) = read_dictionaries(folder).values()
    assert coder.site == f"blocks.{layer}.hook_resid_post"
    assert coder.origin is not None and coder.origin.model == "google/gemma-2-2b"
    torch.testing.assert_close(coder.W_dec.norm(dim=1), torch.ones(10), rtol=0.0, atol=1e-3)
    x = p["b_dec"] + 40 * torch.randn(63, 2304, generator=torch.Generator().manual_seed(100)) / 2304**0.5
    x = x + 30 * p["W_dec"][torch.arange(63) % 10]
    h = x @ p["W_enc"] + p["b_enc"]
    f = torch.relu(h) * (h > p["threshold"])
    assert 0 < (f > 0).float().mean() < 1
    torch.testing.assert_close(coder.encode(x).dense(), f, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(coder(x), f @ p["W_dec"] + p["b_dec"], rtol=1e-5, atol=1e-4)


@real
def test_a_file_that_was_saved_on_another_device_is_read_on_the_cpu() -> None:
    tensors = read_tensors(LATENTS / "output_llama_layer_20_lora_20.GemmaScopeSAE.pt")
    assert {tensor.device.type for tensor in tensors.values()} == {"cpu"}
    with pytest.raises(UserError, match="no dictionary of a known format"):
        read_dictionaries(LATENTS / "output_llama_layer_20_lora_20.GemmaScopeSAE.pt", Place())
