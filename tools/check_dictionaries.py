"""Do coders behave alike here and in the libraries whose formats they are read from and written to?

python tools/check_dictionaries.py --peers /path/to/peers/bin/python --json found.json

Each library trains its own coders for some steps, and what it saves is read and run here; coders of ours are trained
for some hundred steps, written, and read and run by the library. What differs most, of all activations and of all that
is written, is printed for every coder, and the run fails where it is more than ``--close``.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.formats.dictionaries import golden_cases, ours
from tools.peer_library import WORKERS, run_peer
from unweave.coders import Origin, SparseCoder, architecture
from unweave.formats.dictionaries import Place, formats, write_dictionary
from unweave.training.config import TrainingConfig
from unweave.training.loop import finish, new_trainee
from unweave.training.loop import train as run_training

BATCH = 128


class Difference(NamedTuple):
    """The largest differences of a coder here and in a library."""

    format: str
    direction: str
    case: str
    codes: float
    reconstruction: float
    l0: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="Python of the environment that holds the libraries")
    parser.add_argument("--steps", type=int, default=300, help="of training each coder of ours")
    parser.add_argument("--their-steps", type=int, default=60)
    parser.add_argument("--close", type=float, default=1e-5, help="largest difference that is none")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    told = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for format in WORKERS:
            theirs = _read_theirs(told, format, Path(folder) / format / "theirs")
            for difference in (*theirs, *_write_ours(told, format, Path(folder) / format / "ours")):
                found.append(difference)
                print(_line(difference, told.close), flush=True)
    if told.json:
        told.json.write_text(json.dumps([difference._asdict() for difference in found], indent=1) + "\n")
    far = [difference for difference in found if max(difference.codes, difference.reconstruction) > told.close]
    print(f"{len(found)} coders, {len(far)} differ by more than {told.close:g}")
    return 1 if far else 0


def _read_theirs(told: argparse.Namespace, format: str, folder: Path) -> Iterator[Difference]:
    folder.mkdir(parents=True)
    run_peer(told.peers, format, "train", folder, "--steps", str(told.their_steps))
    for case in sorted(folder.iterdir()):
        (coder,) = formats()[format].read(case, Place()).values()
        yield _difference(format, "theirs", case, coder)


def _write_ours(told: argparse.Namespace, format: str, folder: Path) -> Iterator[Difference]:
    coders = {}
    for case, made in ours.CASES[format].items():
        coder = ours.coder(format, case)
        # a norm of each row is only of coders from elsewhere, which are not trained
        is_trained = coder.trains and made.wiring.row_norm == "none"
        coders[case] = _trained(coder, told.steps) if is_trained else coder
        write_dictionary(coders[case], folder / case, format)
    run_peer(told.peers, format, "answer", folder)
    for case, coder in coders.items():
        yield _difference(format, "ours", folder / case, coder)


def _difference(format: str, direction: str, case: Path, coder: SparseCoder) -> Difference:
    expected = golden_cases.expected(case)
    x = golden_cases.readable(coder, expected.x_BD)
    codes = coder.encode(x)
    return Difference(
        format,
        direction,
        case.name,
        (codes.dense() - expected.codes_BL).abs().max().item(),
        (coder.reconstruct(codes, x) - expected.reconstruction_BD).abs().max().item(),
        expected.codes_BL.count_nonzero().item() / len(expected.x_BD),
    )


def _trained(like: SparseCoder, steps: int) -> SparseCoder:
    """A new coder with the same settings, trained on rows made of random directions."""
    torch.manual_seed(0)
    name = type(like).__module__.rpartition(".")[2]
    coder = architecture(name)(like.config, like.wiring)
    rows = _rows((steps + 8) * BATCH, like.wiring.d_read)
    sites = {port.site: rows.roll(1, dims=1)[:, : port.width].contiguous() for port in like.wiring.writes}
    sites |= {port.site: rows for port in like.wiring.reads}
    config = TrainingConfig(
        rows=steps * BATCH,
        batch=BATCH,
        lr=3e-3,
        warm_up=0.05,
        dead_window=50 * BATCH,
        buffer=2 * BATCH,
        log_every=steps,
    )
    trainee = new_trainee(name, coder, {site: rows[:1024] for site, rows in sites.items()}, config)
    parts = zip(*(rows.split(BATCH) for rows in sites.values()), strict=True)
    for _ in run_training([trainee], (dict(zip(sites, part, strict=True)) for part in parts), config):
        pass
    finished = finish(trainee)
    finished.origin = Origin("some/model")
    return finished


def _rows(count: int, width: int) -> Tensor:
    directions_FD = torch.nn.functional.normalize(torch.randn(2 * width, width), dim=1)
    return ((torch.rand(count, 2 * width) < 0.15) * (1.0 + torch.rand(count, 2 * width))) @ directions_FD + 0.1


def _line(found: Difference, close: float) -> str:
    mark = "" if max(found.codes, found.reconstruction) <= close else "  <<<"
    what = f"{found.format:20} {found.direction:7} {found.case:40} L0 {found.l0:5.1f}"
    return f"{what}  codes {found.codes:.1e}  reconstruction {found.reconstruction:.1e}{mark}"


if __name__ == "__main__":
    sys.exit(main())
