"""Write the committed loss curves of tests/training: 200 steps of every architecture, or of those named.

python tools/make_golden.py [--add] [architecture ...]

With --add the curves of other kinds of machine stay; without, they go, as they must where training has changed.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.training import golden_run
from unweave.coders import trainable_architectures


def main() -> None:
    keeps, names = "--add" in sys.argv, [name for name in sys.argv[1:] if name != "--add"]
    for name in names or sorted(trainable_architectures()):
        path = golden_run.FOLDER / f"{name}.json"
        curves = json.loads(path.read_text())["curves"] if keeps else {}
        curves[golden_run.machine()] = found = golden_run.curve(name)
        path.write_text(json.dumps({"steps": golden_run.STEPS, "curves": curves}, indent=1) + "\n")
        last = {key: round(values[-1], 4) for key, values in found.items()}
        print(f"{name}: {last}")


if __name__ == "__main__":
    main()
