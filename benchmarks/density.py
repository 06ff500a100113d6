"""From which density on is a dense training step as fast as a sparse one? Prints both, as medians and a ratio.

python benchmarks/density.py
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from unweave.kernels import density
from unweave.kernels.encode import encode
from unweave.kernels.selection import TopKOfBatch
from unweave.kernels.sparse_decode import sparse_decode

B, D, L = 2048, 256, 2048
REPEATS = 9


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(B, D)
    W_enc = F.normalize(torch.randn(L, D), dim=1).requires_grad_()
    W_dec = W_enc.detach().clone().requires_grad_()
    b_enc = torch.zeros(L, requires_grad=True)

    def step(k: int) -> None:
        codes = encode(x, W_enc, b_enc, TopKOfBatch(k))
        loss = (sparse_decode(codes, W_dec) - x).square().sum()
        torch.autograd.grad(loss, (W_enc, b_enc, W_dec))

    print(
        f"B={B} D={D} L={L}, {torch.get_num_threads()} threads, median of {REPEATS} (min to max), forward and backward"
    )
    for k in (16, 32, 64, 128, 256, 384, 512, 1024):
        # both routes in turn, so that both meet the same disturbances
        times = {"sparse": [], "dense": []}
        for _ in range(REPEATS + 1):
            for route, limit in (("sparse", 2.0), ("dense", 0.0)):
                density.DENSE_FROM = limit
                times[route].append(_seconds(step, k))
        sparse, dense = times["sparse"][1:], times["dense"][1:]
        ratio = statistics.median(sparse) / statistics.median(dense)
        print(f"density {k / L:5.1%}   sparse {_spread(sparse)}   dense {_spread(dense)}   sparse/dense {ratio:.2f}")


def _seconds(step: Callable[[int], None], k: int) -> float:
    start = time.perf_counter()
    step(k)
    return time.perf_counter() - start


def _spread(times: list[float]) -> str:
    low, middle, high = (1e3 * t for t in (min(times), statistics.median(times), max(times)))
    return f"{middle:6.1f} ms ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
