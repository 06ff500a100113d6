"""How long is a TopK training step on a GPU, beside the bare encoder product and the bytes that Adam must move?

python -m benchmarks.gpu_step

Rows, weights and moments are bfloat16. The step is the training loop's own: loss, gradients, optimizer, dead counters.
Step, product and floor take turns, each between two events on the device, so that all meet the same clocks. The floor
is a plain copy of as many bytes as an Adam step reads and writes: weights, gradient and both moments are read, and all
but the gradient written. Without CUDA it says so and ends with 1.
"""

import argparse
import statistics
import sys
from collections.abc import Callable

import torch

from benchmarks.peers.prepared import Shape
from benchmarks.rows import random_features, sparse_sums

SHAPES = [Shape(2304, 65_536, 4096, 64), Shape(4096, 131_072, 8192, 64)]
N_BATCHES = 4
DTYPE = torch.bfloat16


def main() -> None:
    told = _arguments()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu_step: no CUDA device here, nothing was measured")  # sys.exit prints it and returns 1
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {DTYPE}, {told.rounds} rounds")
    for shape in told.shapes:
        torch.manual_seed(0)
        with torch.device("cuda"):
            times = measure(_turns(shape), told.rounds, told.warm_up)
        print(f"\nD={shape.D} L={shape.L} B={shape.B} K={shape.K}, median (min to max)")
        product = statistics.median(times["product"])
        for name, values in times.items():
            middle = statistics.median(values)
            spread = f"({min(values):.3f} to {max(values):.3f})"
            print(f"{name:11}{middle:9.3f} ms {spread:22}{middle / product:8.2f} of the product")
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"{'memory':11}{peak:9.1f} GiB at most")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def measure(turns: dict[str, Callable[[], object]], rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Milliseconds on the device of every turn; nothing waits within one."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for round_ in range(warm_up + rounds):
        for name, turn in turns.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            turn()
            end.record()
            end.synchronize()
            if round_ >= warm_up:
                times[name].append(start.elapsed_time(end))
    return times


def _turns(shape: Shape) -> dict[str, Callable[[], object]]:
    from unweave.coders import Wiring
    from unweave.coders.topk import TopK, TopKConfig
    from unweave.training.config import TrainingConfig
    from unweave.training.loop import new_trainee
    from unweave.training.step import take_step

    features_FD = random_features(2 * shape.D, shape.D)
    rows_ND = sparse_sums(N_BATCHES * shape.B, features_FD, probability=0.02).rows_ND.to(DTYPE)
    batches = [{"rows": part} for part in rows_ND.split(shape.B)]
    coder = TopK(TopKConfig(n_latents=shape.L, k=shape.K), Wiring.sae(shape.D, "rows")).to(DTYPE)
    config = TrainingConfig(
        rows=10**6 * shape.B,
        batch=shape.B,
        buffer=2 * shape.B,
        lr=1e-6,
        dead_window=10**12,  # so that all steps are alike
    )
    trainee = new_trainee("step", coder, batches[0], config)
    step = config.n_steps // 2  # the middle of a run, where no schedule is at 0

    def take() -> None:
        nonlocal step
        take_step(trainee, batches[step % N_BATCHES], step, is_logged=False)
        step += 1

    bytes_of_adam = sum(7 * p.numel() * p.element_size() for p in coder.parameters())
    source = torch.empty(bytes_of_adam // 2, dtype=torch.uint8)  # a copy reads it and writes as much
    target = torch.empty_like(source)
    x_BD, W_LD = batches[0]["rows"], coder.W_enc.detach()
    return {
        "product": lambda: x_BD @ W_LD.T,
        "adam floor": lambda: target.copy_(source),
        "step": take,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=Shape.parse, nargs="+", default=SHAPES, help="D,L,B,K each")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5, help="rounds that are not counted; the first compiles")
    return parser.parse_args()


if __name__ == "__main__":
    main()
