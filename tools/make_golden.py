"""Write the committed loss curves of tests/training: 200 steps of every architecture, or of those named.

python tools/make_golden.py [architecture ...]
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.training import golden_run
from unweave.coders import trainable_architectures


def main() -> None:
    for name in sys.argv[1:] or sorted(trainable_architectures()):
        found = golden_run.curve(name)
        content = {"machine": golden_run.machine(), "steps": golden_run.STEPS, "curve": found}
        (golden_run.FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        last = {key: round(values[-1], 4) for key, values in found.items()}
        print(f"{name}: {last}")


if __name__ == "__main__":
    main()
