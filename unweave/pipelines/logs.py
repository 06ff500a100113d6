"""Where the figures of a training go, step by step: always to ``metrics.jsonl``, and to services that are asked for."""

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from unweave.config import parse_toml
from unweave.errors import UserError
from unweave.formats.files import write_atomically
from unweave.pipelines.recipe import LoggingConfig, Plan


class StepLog(AbstractContextManager, ABC):
    """Takes the figures of each step that is logged; closed when the block ends."""

    @abstractmethod
    def write(self, coder: str, step: int, rows: int, figures: Mapping[str, float]) -> None:
        """Take the figures of a coder's step; ``rows`` were read so far."""


class MetricsFiles(StepLog):
    """``metrics.jsonl`` in each coder's folder: a line for each step, and nothing that differs between repeats."""

    def __init__(self, folders: Mapping[str, Path], n_done: int) -> None:
        """Lines of steps from ``n_done`` on, which a run that is resumed does again, are dropped."""
        self._files = {}
        for name, folder in folders.items():
            path = folder / "metrics.jsonl"
            lines = path.read_text().splitlines() if path.is_file() else []
            write_atomically(path, "".join(f"{line}\n" for line in lines if _is_before(line, n_done)))
            self._files[name] = path.open("a")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def write(self, coder: str, step: int, rows: int, figures: Mapping[str, float]) -> None:
        self._files[coder].write(json.dumps({"step": step, "rows": rows, **figures}) + "\n")
        self._files[coder].flush()


class WandbLog(StepLog):
    """A run of Weights & Biases; where there are several coders, figures are grouped by coder."""

    def __init__(self, project: str, folder: Path, plan: Plan) -> None:
        """A run that is resumed goes on in the same run of the service, whose id is kept in ``wandb_id``."""
        try:
            import wandb
        except ImportError as error:
            raise UserError("logging.wandb needs the library: pip install 'unweave[logging]'") from error
        kept = folder / "wandb_id"
        if not kept.is_file():
            write_atomically(kept, uuid.uuid4().hex[:8])
        name = folder.name.removesuffix(".partial")
        self._grouped = plan.is_grid
        self._run = wandb.init(
            project=project, name=name, id=kept.read_text(), resume="allow", dir=folder, config=_config(plan)
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run.finish(exit_code=0 if kind is None else 1)

    def write(self, coder: str, step: int, rows: int, figures: Mapping[str, float]) -> None:
        named = {f"{coder}/{key}" if self._grouped else key: value for key, value in figures.items()}
        self._run.log({"rows": rows, **named}, step=step)


class TensorboardLog(StepLog):
    """Event files in ``tensorboard/``, one folder for each coder."""

    def __init__(self, folder: Path, plan: Plan, n_done: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("logging.tensorboard needs the library: pip install 'unweave[logging]'") from error
        self._writers = {
            name: SummaryWriter(str(folder / "tensorboard" / name), purge_step=n_done) for name in plan.jobs
        }

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def write(self, coder: str, step: int, rows: int, figures: Mapping[str, float]) -> None:
        for name, value in {"rows": rows, **figures}.items():
            self._writers[coder].add_scalar(name, value, step)


def open_logs(
    stack: ExitStack, config: LoggingConfig, folder: Path, coder_folders: Mapping[str, Path], plan: Plan, n_done: int
) -> list[StepLog]:
    """All logs that a recipe asks for, which ``stack`` closes; ``n_done`` steps of the training are done."""
    logs: list[StepLog] = [stack.enter_context(MetricsFiles(coder_folders, n_done))]
    if config.wandb:
        logs.append(stack.enter_context(WandbLog(config.wandb, folder, plan)))
    if config.tensorboard:
        logs.append(stack.enter_context(TensorboardLog(folder, plan, n_done)))
    return logs


def _config(plan: Plan) -> dict[str, Any]:
    return parse_toml(plan.to_toml(), "the recipe")


def _is_before(line: str, n_done: int) -> bool:
    try:
        return json.loads(line)["step"] < n_done
    except ValueError:
        return False  # a line that was cut off
