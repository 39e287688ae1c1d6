"""The lock on training in a project: one process holds it, the newest takes over, and it ends with its process."""

from __future__ import annotations

import errno
import fcntl
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from postprior.pipelines.errors import UserError
from postprior.pipelines.locks import sole_trainer

TRAINER = """
import sys, time
from pathlib import Path
from postprior.pipelines.locks import sole_trainer
with sole_trainer(Path(sys.argv[1])) as confirm:
    print("in", flush=True)
    while True:
        confirm()
        time.sleep(0.5)
"""


def trainer(root: Path) -> subprocess.Popen[str]:
    """Start a process that trains in a project until another takes over."""
    command = [sys.executable, "-c", TRAINER, str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def test_the_newest_waits_until_the_previous_one_has_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with trainer(tmp_path) as old, sole_trainer(tmp_path) as confirm:
        confirm()
        assert old.wait(10) != 0
        assert old.stderr is not None
        assert "this process stops, and its checkpoint is kept for the new process to resume from" in old.stderr.read()
    assert capsys.readouterr().err == f"train: waiting for process {old.pid} to stop training in this project\n"


def test_the_lock_ends_with_its_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with trainer(tmp_path) as old:
        old.send_signal(signal.SIGKILL)
        old.wait()
    with sole_trainer(tmp_path) as confirm:
        confirm()
    assert not capsys.readouterr().err


def test_of_many_that_start_at_once_one_trains_at_a_time_and_the_last_to_claim_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postprior.pipelines.locks.POLL", 0.001)
    inside: list[int] = []
    most, done, stopped = [0], [], []

    def train(number: int) -> None:
        try:
            with sole_trainer(tmp_path) as confirm:
                inside.append(number)
                most[0] = max(most[0], len(inside))
                try:
                    for _ in range(10):
                        confirm()
                        time.sleep(0.005)
                    confirm()
                    claim = (tmp_path / ".postprior/trainer").read_text()
                    done.append((number, claim))
                finally:
                    inside.remove(number)
        except UserError:
            stopped.append(number)

    for _ in range(10):
        threads = [threading.Thread(target=train, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(done) + len(stopped) == 6
        assert done[-1][1] == (tmp_path / ".postprior/trainer").read_text()
        done.clear()
        stopped.clear()
    assert most == [1]


def test_two_projects_are_independent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sole_trainer(tmp_path / "a") as first, sole_trainer(tmp_path / "b") as second:
        first()
        second()
    assert not capsys.readouterr().err


def refuse(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_without_locks_in_the_file_system_the_claim_still_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse)
    with sole_trainer(tmp_path) as old:
        old()
        with sole_trainer(tmp_path) as new:
            new()
            with pytest.raises(UserError, match="has started to train in"):
                old()
    lines = capsys.readouterr().err
    assert lines.count("\n") == 2
    assert re.match(
        r"train: .*trainer\.lock cannot be locked \(.*No locks available\); run only one training at a time",
        lines,
    )


def test_a_removed_claim_has_no_effect(tmp_path: Path) -> None:
    """`make clean` removes the claim of a running trainer; the next one holds another lock, and its claim counts."""
    with sole_trainer(tmp_path) as old:
        shutil.rmtree(tmp_path / ".postprior")
        old()
        with sole_trainer(tmp_path) as new, pytest.raises(UserError):
            new()
            old()
