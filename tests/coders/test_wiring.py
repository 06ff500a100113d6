import pytest
import torch

from unweave.coders import Port, Wiring


def test_a_wiring_knows_its_kind_and_its_widths() -> None:
    a, b = Port("layers.1.mlp_in", 7), Port("layers.1.mlp_out", 5)
    for wiring, kind, d_read, d_write, is_same in [
        (Wiring.sae(7, "layers.1.mlp_in"), "sae", 7, 7, True),
        (Wiring.transcoder(a, b), "transcoder", 7, 5, False),
        (Wiring.transcoder(a, b, skip=True), "skip_transcoder", 7, 5, False),
        (Wiring.crosscoder(a, b), "crosscoder", 12, 12, True),
        (Wiring((a, b), (a,)), "transcoder", 12, 7, False),
    ]:
        assert (wiring.kind, wiring.d_read, wiring.d_write) == (kind, d_read, d_write)
        assert wiring.writes_what_it_reads == is_same


def test_sites_of_one_width_are_still_two_sites() -> None:
    assert not Wiring.transcoder(Port("in", 7), Port("out", 7)).writes_what_it_reads
    assert Wiring.transcoder(Port("in", 7), Port("in", 7)) == Wiring.sae(7, "in")


def test_a_skip_path_makes_a_transcoder_even_of_one_site() -> None:
    assert Wiring.transcoder(Port("in", 7), Port("in", 7), skip=True).kind == "skip_transcoder"


def test_the_size_of_a_latent_is_the_sum_of_its_norms_over_sites() -> None:
    W_dec = torch.tensor([[3.0, 4.0, 5.0, 12.0], [0.0, 0.0, 0.0, 2.0]])
    assert Wiring.crosscoder(Port("a", 2), Port("b", 2)).norms(W_dec).tolist() == [5.0 + 13.0, 2.0]
    assert Wiring.crosscoder(Port("a", 1), Port("b", 3)).norms(W_dec)[0].item() == pytest.approx(3.0 + 185**0.5)
    assert Wiring.sae(4).norms(W_dec)[0].item() == pytest.approx(194**0.5)


def test_the_size_is_differentiable_and_finite_at_zero() -> None:
    W_dec = torch.zeros(2, 4, requires_grad=True)
    Wiring.crosscoder(Port("a", 1), Port("b", 3)).norms(W_dec).sum().backward()
    assert W_dec.grad is not None
    assert W_dec.grad.isfinite().all()
