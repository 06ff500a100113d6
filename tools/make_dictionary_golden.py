"""Write the small dictionaries of tests/formats/dictionaries/golden with the libraries whose formats they are in.

python tools/make_dictionary_golden.py --peers /path/to/peers/bin/python [format ...]

For each format, ``theirs`` is written and run by the library itself; ``ours`` is written here, and run by the library.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.formats.dictionaries import golden_cases, ours
from tools.peer_library import WORKERS, run_peer
from unweave.formats.dictionaries import write_dictionary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="Python of the environment that holds the libraries")
    parser.add_argument("formats", nargs="*", help=f"of {', '.join(WORKERS)}; all where none is named")
    told = parser.parse_args()
    for format in told.formats or WORKERS:
        folder = golden_cases.GOLDEN / format
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "theirs").mkdir(parents=True)
        run_peer(told.peers, format, "make", folder / "theirs")
        for case in ours.CASES[format]:
            write_dictionary(ours.coder(format, case), folder / "ours" / case, format)
        run_peer(told.peers, format, "answer", folder / "ours")
        files = [file for file in folder.rglob("*.*") if file.is_file()]
        print(f"{format}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
