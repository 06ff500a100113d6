import pytest
import torch
from torch import Tensor

from unweave.activations.coded import coded, encoded, rows_at, written
from unweave.coders import Port, SparseCoder, Wiring, architecture

PLACES = torch.tensor([1, 2, 3, 9, 13, 20])
"""Of three sequences of seven tokens."""


def _captured() -> dict[str, Tensor]:
    return {"a": torch.randn(3, 7, 5), "b": torch.randn(3, 7, 4), "c": torch.randn(3, 7, 2)}


def _temporal() -> SparseCoder:
    cls = architecture("temporal")
    settings = {"n_latents": 12, "n_heads": 2, "d_key": 4, "k": 3}
    return cls(cls.Config(**settings), Wiring.sae(5, "a")).requires_grad_(False)


@pytest.mark.parametrize("wiring", [Wiring.sae(5, "a"), Wiring.transcoder(Port("a", 5), Port("b", 4), skip=True)])
def test_rows_are_coded_one_by_one(wiring: Wiring) -> None:
    cls, captured = architecture("topk"), _captured()
    coder = cls(cls.Config(n_latents=12, k=3), wiring).requires_grad_(False)
    rows = captured["a"].flatten(0, 1)[PLACES]
    codes, y = coded(coder, captured, PLACES)
    assert torch.equal(codes.dense(), coder.encode(rows).dense())
    assert torch.equal(y, coder(rows))
    assert torch.equal(encoded(coder, captured, PLACES).dense(), codes.dense())
    (site,) = written(coder, captured)
    assert site == wiring.writes[0].site
    torch.testing.assert_close(written(coder, captured)[site].flatten(0, 1)[PLACES], y)


def test_sequences_are_coded_whole_and_some_of_their_rows_kept() -> None:
    coder, captured = _temporal(), _captured()
    codes, y = coded(coder, captured, PLACES)
    assert codes.n_rows == len(y) == 6
    for number, place in enumerate(PLACES.tolist()):
        until = captured["a"][place // 7, : place % 7 + 1]  # what comes later is not seen
        torch.testing.assert_close(codes.dense()[number], coder.encode(until[None]).dense()[-1])
        torch.testing.assert_close(y[number], coder(until[None])[-1])
    assert torch.equal(encoded(coder, captured, PLACES).dense(), codes.dense())
    everywhere = written(coder, captured)["a"]
    assert everywhere.shape == (3, 7, 5)
    torch.testing.assert_close(everywhere.flatten(0, 1)[PLACES], y)


def test_rows_of_several_sites_stand_side_by_side() -> None:
    cls, captured = architecture("topk"), _captured()
    wiring = Wiring.crosscoder(Port("a", 5), Port("c", 2))
    coder = cls(cls.Config(n_latents=12, k=3), wiring).requires_grad_(False)
    both = torch.cat([captured["a"], captured["c"]], dim=2).flatten(0, 1)
    assert torch.equal(rows_at(coder, captured, wiring.reads, PLACES), both[PLACES])
    torch.testing.assert_close(coded(coder, captured, PLACES).written_BD, coder(both)[PLACES])
    parts = written(coder, captured)
    torch.testing.assert_close(torch.cat([parts["a"], parts["c"]], dim=2).flatten(0, 1), coder(both))
