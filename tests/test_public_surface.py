"""The public names, and that importing them costs nothing until they are used."""

import subprocess
import sys

import unweave

EXPECTED = ["LanguageModel", "LatentEdit", "Run", "UserError", "load", "load_all", "train"]
EXPECTED += ["show_latent", "show_latents"]


def test_the_public_names_are_these() -> None:
    assert sorted(unweave.__all__) == sorted([*EXPECTED, "__version__"])
    assert all(getattr(unweave, name).__doc__ for name in EXPECTED)


def test_importing_the_package_loads_none_of_the_heavy_libraries() -> None:
    code = "import sys, unweave; print(sorted({'torch', 'transformers', 'plotly', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_importing_the_package_takes_less_than_a_tenth_of_a_second() -> None:
    code = "import time; t = time.perf_counter(); import unweave; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) for _ in range(3)
    ]
    assert min(times) < 0.1


def test_the_help_of_the_command_line_loads_no_model_library() -> None:
    code = "import sys, unweave.cli.main; print(sorted({'torch', 'transformers', 'plotly'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
