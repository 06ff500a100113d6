"""What a person sees while a pipeline works: bars with time left and live figures, a line for each thing done."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from unweave.pipelines.processes import process_number


class Watch:
    """Shows progress on a console, in the first of several processes; ``Watch(quiet=True)`` shows nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet or process_number() > 0)

    def say(self, text: str) -> None:
        """One line about something that was done."""
        self.console.print(text, markup=False, highlight=False)

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """A turning mark while something of unknown length goes on."""
        with self.console.status(title):
            yield

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator["Bar"]:
        """A bar that fills up while the block runs."""
        columns = (
            TextColumn("{task.description:<17}"),
            BarColumn(bar_width=12),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[figures]}"),
        )
        with Progress(*columns, console=self.console, refresh_per_second=4) as progress:
            yield Bar(progress, progress.add_task(title, total=total, figures=""))

    @contextmanager
    def slow_bar(self, title: str, *, after: float = 2.0) -> Iterator[Callable[[int, int], None]]:
        """To be called with what is done and what there is in all; a bar is shown once it has taken some seconds."""
        start = time.monotonic()
        with ExitStack() as shown:
            bar: Bar | None = None

            def at(done: int, total: int) -> None:
                nonlocal bar
                if bar is None and time.monotonic() - start > after:
                    bar = shown.enter_context(self.bar(title, total))
                if bar is not None:
                    bar.at(done)

            yield at


class Bar:
    """One running bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def at(self, done: int, **figures: str) -> None:
        """So much is done; ``figures`` are shown beside the bar."""
        text = " ".join(f"{name} {value}" for name, value in figures.items())
        self._progress.update(self._task, completed=done, figures=text)
