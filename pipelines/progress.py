"""Progress of long tasks: a bar on a terminal, a few plain lines elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from postprior.pipelines.texts import escape_controls, tell

LINES = 10
"""Number of lines that a whole task prints where there is no terminal."""


@contextmanager
def progress(title: str, total: int | None, done: int = 0) -> Iterator[Callable[[str], None]]:
    """Yield a function to call after each of `total` steps (None if unknown); its argument is shown next to the count.

    `done` is the number of steps that were finished before.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        name, status = (TextColumn(field, markup=False) for field in ("{task.description}", "{task.fields[text]}"))
        columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), status)
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(escape_controls(title), total=total, completed=done, text="")
            yield lambda text: bar.update(task, advance=1, text=escape_controls(text))
        return
    count = done

    def step(text: str) -> None:
        nonlocal count
        count += 1
        if total and count * LINES // total > (count - 1) * LINES // total:
            tell(f"{title}: {count}/{total} {text}".rstrip(), err=True)

    yield step
