"""Progress of long tasks: a bar on a terminal, a few plain lines elsewhere.

A task that is part of another one shows no progress of its own: it divides the current step of the other.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import TypeVar

from postprior.pipelines import ranks
from postprior.pipelines.texts import escape_controls, tell

T = TypeVar("T")
Show = Callable[[float, str], None]
"""Shows how many steps are done, as a number that may lie between two steps, and a text."""

LINES = 10
"""Number of lines that a whole task prints where there is no terminal, besides its first line and an early estimate."""
EARLY = 5.0  # seconds after which the remaining time is printed for the first time
BRIEF = 1.0  # shortest time between two lines, in seconds
ROUNDING = 1e-6  # of a sum of parts of steps


class Task:
    """A task of which `position` steps are done; its current step, or part of a step, is `width` steps wide."""

    def __init__(self, position: float, show: Show) -> None:
        self.position, self.width, self.show = position, 1.0, show
        self.text = ""

    def advance(self, text: str | None = None) -> None:
        """Finish the current step, or part of a step; None keeps the text that is shown."""
        self.position += self.width
        self.text = self.text if text is None else text
        self.show(self.position, self.text)

    @contextmanager
    def divided(self, parts: int) -> Iterator[None]:
        """Divide the current step into equal parts inside the block; they may be fewer than expected."""
        position, width = self.position, self.width
        self.width = width / max(1, parts)
        try:
            yield
        finally:
            self.position, self.width = position, width


_current: ContextVar[Task | None] = ContextVar("task", default=None)


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Callable[[str], None]]:
    """Yield a function to call after each of `total` steps; its argument is shown next to the count.

    `done` is the number of steps that were finished before. Inside another task, the steps divide its current step.
    """
    if (outer := _current.get()) is not None:
        inside = outer
        with inside.divided(total):
            yield lambda text: inside.advance(f"{title}, {text}" if text else title)
        return
    display = _bar if sys.stderr.isatty() and ranks.number() == 0 else _lines
    with display(title, total, done) as show:
        task = Task(done, show)
        token = _current.set(task)
        try:
            yield task.advance
        finally:
            _current.reset(token)


@contextmanager
def hidden() -> Iterator[None]:
    """Show no progress of the tasks of the block."""
    token = _current.set(Task(0, lambda position, text: None))
    try:
        yield
    finally:
        _current.reset(token)


def substeps(items: Iterable[T], total: int) -> Iterator[T]:
    """Yield `total` items, each of which is an equal part of the current step of the task, if there is one."""
    task = _current.get()
    if task is None:
        yield from items
        return
    with task.divided(total):
        for item in items:
            yield item
            task.advance()


@contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    name, status = (TextColumn(field, markup=False) for field in ("{task.description}", "{task.fields[text]}"))
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True), status)
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as bar:
        task = bar.add_task(escape_controls(title), total=total, completed=done, text="")

        def show(position: float, text: str) -> None:
            bar.update(task, completed=min(total, position + ROUNDING), text=escape_controls(text))

        yield show


@contextmanager
def _lines(title: str, total: int, done: int) -> Iterator[Show]:
    lines = _Lines(title, total, done)
    tell(f"{title}: {done}/{total}", err=True)
    yield lines.show
    lines.tell("" if lines.position == total else "ended at ", left=False)


class _Lines:
    """The lines of a task: one for each tenth that is done, if it takes long enough, and an early estimate."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self.title, self.total, self.done = title, total, done
        self.position, self.text = float(done), ""
        self.started = self.last = monotonic()
        self.tenths = done * LINES // max(1, total)  # at the last line
        self.estimated = False

    def show(self, position: float, text: str) -> None:
        """Print a line if it is due."""
        self.position, self.text = min(self.total, position + ROUNDING), text
        now, tenths = monotonic(), int(self.position * LINES / self.total)
        begun = self.position - self.done >= self.total / 100  # else, the estimate would be far off
        early = not self.estimated and begun and now - self.started >= EARLY
        if (early or self.tenths < tenths < LINES) and now - self.last >= BRIEF:
            self.last, self.tenths, self.estimated = now, tenths, True
            self.tell()

    def tell(self, prefix: str = "", left: bool = True) -> None:
        """Print the count, the time so far, the time that is `left` at this speed, and the text."""
        elapsed = monotonic() - self.started
        facts = [f"{self.title}: {prefix}{int(self.position)}/{self.total}", duration(elapsed)]
        if left:
            speed = (self.position - self.done) / elapsed
            facts.append(f"{duration((self.total - self.position) / speed)} left")
        tell(", ".join([*facts, self.text] if self.text else facts), err=True)


def duration(seconds: float) -> str:
    """Return a time in words.

    >>> duration(0.4), duration(75), duration(3700)
    ('0 s', '1 min 15 s', '1 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
