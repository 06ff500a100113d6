"""Every program compiles for an H200, in the types and sizes it is used with, and fits into the registers there.

Triton's interpreter takes things that its compiler refuses. The compiler needs no GPU, so it runs here, in a process of
its own, because which of the two it is to be is decided when Triton is imported.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

HOPPER = 90
REGISTERS = 65_536
"""Of a processor; a program that needs more of them is never started."""


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_program_compiles_for_an_h200(dtype: str) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, __file__, dtype], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["forgotten"] == []
    for name, use in told["programs"]:
        assert use["LOCAL"] == 0, f"{name} does not fit into registers"
        assert use["REG"] * 32 * use["warps"] <= REGISTERS, name


def _main(dtype: torch.dtype) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class NoDevice:
        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", HOPPER, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, _: int) -> int:
            return 0

    driver.set_active(NoDevice())
    compiled: dict[Any, Any] = {}
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        compiled[kernel.hash] = kernel
        for argument in args:
            if isinstance(argument, torch.Tensor) and argument.dtype == torch.int32:
                argument.zero_()  # counts of entries that no program has made

    JITFunction.run = compile_only
    _use_all(dtype)
    names = {kernel.name for kernel in compiled.values()}
    sources = "".join(kernel.src.fn.src for kernel in compiled.values())
    known = [(name, module) for module in _modules() for name, f in vars(module).items() if isinstance(f, JITFunction)]
    forgotten = [name for name, _ in known if name not in names and f"{name}(" not in sources]
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    programs = [(kernel.name, _resources(kernel, tool)) for kernel in compiled.values()]
    print(json.dumps({"programs": programs, "forgotten": forgotten}))  # noqa: T201


def _resources(kernel: Any, tool: Path) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        told = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = {key: int(value) for key, value in re.findall(r"(REG|LOCAL):(\d+)", told.stdout)}
    return found | {"warps": kernel.metadata.num_warps}


def _modules() -> list[ModuleType]:
    return [module for name, module in sys.modules.items() if name.startswith("unweave.kernels")]


def _use_all(dtype: torch.dtype) -> None:
    """Everything that a training step does, with long rows and short ones."""
    from unweave.kernels import density, device
    from unweave.kernels.adam_rows import adam_rows, radial_parts
    from unweave.kernels.latent_values import latent_sum, row_sum
    from unweave.kernels.selection import Above, GroupMax, TopKOfBatch, TopKOfRow, select
    from unweave.kernels.sparse_decode import sparse_decode
    from unweave.types import Codes

    device.GPUS, density.DENSE_FROM = {"cpu"}, 2.0
    for rule in (TopKOfRow(64), TopKOfBatch(3.3), Above(0.5), GroupMax(64)):
        select(torch.zeros(8, 8192, dtype=dtype), rule)
    select(torch.zeros(8, 1000, dtype=dtype), TopKOfRow(7, signed=True))
    for n_rows, n_latents, k, width in ((64, 512, 8, 96), (8, 512, 64, 7)):
        ids, offsets = torch.arange(k).repeat(n_rows), k * torch.arange(n_rows + 1)
        values = torch.ones(n_rows * k, dtype=dtype, requires_grad=True)
        codes = Codes(values, ids, offsets, n_latents)
        sparse_decode(codes, torch.zeros(n_latents, width, dtype=dtype, requires_grad=True)).sum().backward()
        row_sum(codes, values), latent_sum(codes, values.detach())
    for width in (96, 10_000):
        weights = [torch.zeros(8, width, dtype=dtype) for _ in range(4)]
        one, options = torch.ones(()), {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8, "step": 1}
        _, along = radial_parts(weights[0], weights[1])
        adam_rows(*weights, one, along, norm="unit", **options)
        adam_rows(*weights, one, None, norm="free", **options)
        lazy: dict[str, Any] = options | {"betas": (0.0, 0.99), "missed": torch.zeros(8, dtype=torch.int32)}
        for norm in ("unit", "free"):
            adam_rows(*weights[:2], None, weights[3], one, along, norm=norm, **lazy)
        adam_rows(*weights[:2], None, weights[3], one, None, norm="free", **lazy | {"missed": None})


if __name__ == "__main__":
    _main(getattr(torch, sys.argv[1]))
