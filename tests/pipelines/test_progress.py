"""Progress is a bar on a terminal and a few lines elsewhere."""

import os
import pty
import subprocess
import sys

import pytest

from postprior.pipelines.progress import LINES, progress


def test_a_few_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 1000, done=100) as step:
        for count in range(900):
            step(f"at {count}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == LINES - 1
    assert lines[-1] == "work: 1000/1000 at 899"
    with progress("work", 1) as step:
        step("")
    assert capsys.readouterr().err == "work: 1/1\n"


def test_no_line_if_the_total_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", None) as step:
        step("once")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("total", [3, None])
def test_a_bar_on_a_terminal(total: int | None) -> None:
    code = (
        "from postprior.pipelines.progress import progress\n"
        f"with progress('work', {total}) as step:\n    step('halfway')"
    )
    controller, terminal = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(terminal)
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    assert "work" in shown
    assert "halfway" in shown
    assert ("1/3" if total else "1/?") in shown
