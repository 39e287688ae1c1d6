"""Signals end a command with one line after its clean-up; the library does not handle signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ALONE = """
import os, signal, sys, time
from contextlib import suppress
from postprior.pipelines import signals

def send(name="SIGTERM"):
    os.kill(os.getpid(), getattr(signal, name))

try:
    signals.watch()
{body}
finally:
    signals.exit_if_ended()
"""


def handle_interrupts() -> None:
    """Handle SIGINT in a new process, although a background job of a shell ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        preexec_fn=handle_interrupts,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ended(body: str) -> subprocess.CompletedProcess[str]:
    """Run some lines in a process that watches for signals, and return how it ended."""
    return run(ALONE.format(body="\n".join(f"    {line}" for line in body.strip().splitlines())))


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated"), ("SIGHUP", 129, "hung up")],
)
def test_a_signal_is_one_line_and_its_exit_code(name: str, code: int, line: str) -> None:
    answer = ended(f"send('{name}')\ntime.sleep(9)\nprint('never')")
    assert (answer.returncode, answer.stdout, answer.stderr) == (code, "", f"postprior: {line}\n")


@pytest.mark.parametrize(
    ("body", "stdout"),
    [
        ("try:\n send()\nfinally:\n send(); send('SIGINT'); print('clean')", "clean\n"),
        ("with signals.defer_signals():\n send(); print('held')\nprint('never')", "held\n"),
        ("with signals.defer_signals():\n with signals.defer_signals():\n  send()\n print('held')", "held\n"),
        (
            "try:\n send()\nfinally:\n with signals.defer_signals():\n  print('once')\n print('clean')",
            "once\nclean\n",
        ),
        ("class Last:\n def __del__(self): send()\nLast()\ntime.sleep(9)\nprint('never')", ""),
        ("try:\n send()\nexcept BaseException: pass\nprint('swallowed')", "swallowed\n"),
        ("try:\n send()\nexcept BaseException: raise ImportError('half')", ""),
        ("signal.signal(signal.SIGINT, signal.SIG_IGN)\nsignals.watch()\nsend('SIGINT')\nsend()", ""),
    ],
    ids=["twice", "held", "nested", "cleaned", "finaliser", "swallowed", "wrapped", "ignored"],
)
def test_a_signal_ends_the_process_once_and_leaves_its_clean_up_alone(body: str, stdout: str) -> None:
    answer = ended(body)
    assert (answer.returncode, answer.stdout, answer.stderr) == (143, stdout, "postprior: terminated\n")


def test_without_a_signal_nothing_is_printed() -> None:
    answer = ended("with signals.defer_signals():\n print('done')")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "done\n", "")


def test_an_interruption_before_anything_is_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    answer = run("from postprior.pipelines.commands import main; main()", "--help", PYTHONPATH=path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (130, "", "postprior: interrupted\n")


def test_the_library_watches_no_signals() -> None:
    code = """
import signal
from postprior.pipelines import signals
from postprior.pipelines.commands import app
from postprior.pipelines.stages import train
from postprior.pipelines.tracking import runs
with signals.defer_signals():
    pass
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
    answer = run(code)
    assert answer.returncode == 0, answer.stderr


def test_only_the_first_signal_counts() -> None:
    answer = ended("try:\n send('SIGINT')\nfinally:\n send('SIGTERM')")
    assert (answer.returncode, answer.stderr) == (128 + signal.SIGINT, "postprior: interrupted\n")
