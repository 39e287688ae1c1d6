"""Progress is a bar on a terminal and a few lines elsewhere."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest

from postprior.pipelines import progress as module
from postprior.pipelines.progress import LINES, duration, progress, substeps

Wait = Callable[[float], None]


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Wait:
    """Move a clock that stands still otherwise, by a number of seconds."""
    now = 0.0

    def move(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(module, "monotonic", lambda: now)
    return move


def test_a_few_lines_without_a_terminal(wait: Wait, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 1000, done=100) as step:
        for count in range(900):
            wait(3)
            step(f"at {count}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == LINES + 1  # the first line, an early estimate, and one line for each of nine tenths
    assert lines[:2] == ["work: 100/1000", "work: 110/1000, 30 s, 44 min 30 s left, at 9"]
    assert lines[-1] == "work: 1000/1000, 45 min 0 s, at 899"


def test_the_remaining_time_is_that_of_the_steps_so_far(wait: Wait, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 4) as step:
        for seconds in (10, 20, 30, 40):
            wait(seconds)
            step("")
    assert capsys.readouterr().err.splitlines() == [
        "work: 0/4",
        "work: 1/4, 10 s, 30 s left",
        "work: 2/4, 30 s, 30 s left",
        "work: 3/4, 1 min 0 s, 20 s left",
        "work: 4/4, 1 min 40 s",
    ]


def test_a_fast_task_has_two_lines(capsys: pytest.CaptureFixture[str], wait: Wait) -> None:
    with progress("work", 100) as step:
        for _ in range(100):
            step("done")
    assert capsys.readouterr().err.splitlines() == ["work: 0/100", "work: 100/100, 0 s, done"]


def test_a_task_that_ends_early_says_so(capsys: pytest.CaptureFixture[str], wait: Wait) -> None:
    with progress("work", 100) as step:
        step("converged")
    assert capsys.readouterr().err.splitlines() == ["work: 0/100", "work: ended at 1/100, 0 s, converged"]


@pytest.mark.parametrize("inner", [lambda: inner_task(), lambda: list(substeps(range(10), 10))])
def test_a_task_inside_a_step_divides_it(
    inner: Callable[[], None], wait: Wait, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[float] = []
    monkeypatch.setattr(module._Lines, "show", lambda self, position, text: shown.append(position))
    with progress("work", 2) as step:
        inner()
        step("")
        inner()
        step("")
    tenths = [*range(1, 11), 10, *range(11, 21), 20]
    assert shown == pytest.approx([tenth / 10 for tenth in tenths])
    assert "inner" not in capsys.readouterr().err


def inner_task() -> None:
    with progress("inner", 10) as step:
        for _ in range(10):
            step("")


def test_substeps_alone_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(substeps("abc", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_durations_are_read_in_their_two_largest_units() -> None:
    assert [duration(s) for s in (0, 59.4, 59.6, 3599, 86_399)] == [
        "0 s",
        "59 s",
        "1 min 0 s",
        "59 min 59 s",
        "23 h 59 min",
    ]


@pytest.mark.parametrize(("steps", "shown"), [(1, "1/3"), (3, "3/3")])
def test_a_bar_on_a_terminal(steps: int, shown: str) -> None:
    code = (
        "from postprior.pipelines.progress import progress\n"
        f"with progress('work', 3) as step:\n    for _ in range({steps}): step('halfway')"
    )
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True, env=environment)
    os.close(terminal)
    text = os.read(controller, 65536).decode()
    os.close(controller)
    assert "work" in text
    assert "halfway" in text
    assert shown in text
