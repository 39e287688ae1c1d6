"""Stages and `dvc repro` are killed at random moments: no file is half-written, and a restart gives the same bytes.

The slow tests make `POSTPRIOR_KILLS` kills; a fifth of them hits `dvc repro`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.dvc import BINARIES
from support.forked import Command, Project, content, partials, run
from support.once import state
from support.project import REPOSITORY

KILLS = int(os.environ.get("POSTPRIOR_KILLS", "20"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Kills:
    """Kills of the commands of a project, and a table of how the commands ended."""

    def __init__(self, project: Project) -> None:
        self.project, self.ends = project, Counter[str]()
        self._chosen = random.Random(0)
        self._measured: dict[str, tuple[float, list[str]]] = {}

    def kill(self, words: str) -> None:
        """Kill a command at a random moment, in half of the cases after its files were removed, as DVC does."""
        root, whole = self.project.root, self.project.whole
        seconds, written = self._measure(words)
        removed = self._chosen.choice(([], written))
        for path in removed:
            (root / path).unlink()
        command = Command(root, words)
        time.sleep(seconds * self._chosen.uniform(0, 1))
        command.send(signum := self._chosen.choice(SIGNALS))
        code, found = command.wait(), content(root)
        case = (words, signum.name, code, command.said)
        self.ends[f"{signum.name} {code}"] += 1
        assert code in (0, -signum if signum == signal.SIGKILL else 128 + signum), case
        assert found == {path: digest for path, digest in whole.items() if path in found}, case
        assert whole.keys() - found.keys() <= set(removed), case
        assert signum == signal.SIGKILL or not partials(root), case
        run(root, words)
        self.project.check(case)

    def _measure(self, words: str) -> tuple[float, list[str]]:
        """The seconds that a command takes, and the files in artefacts and results that it writes."""
        if words not in self._measured:
            before = state(self.project.root)
            seconds, after = run(self.project.root, words), state(self.project.root)
            self.project.check(words)
            self._measured[words] = seconds, [path for path in self.project.whole if after[path] != before[path]]
        return self._measured[words]


def test_a_killed_stage_ends_with_the_same_bytes(project: Project, is_slow: bool) -> None:
    kills, stages = Kills(project), ("train", *project.stages)
    for number in range(KILLS * 4 // 5 if is_slow else len(stages)):
        kills.kill(stages[number % len(stages)])
    print(dict(kills.ends))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("project", ["all"], indirect=True)
def test_a_killed_pipeline_ends_with_the_same_bytes(project: Project) -> None:
    """If only `dvc` is killed, its stage keeps running beside the next one."""
    root, chosen, ends = project.root, random.Random(1), Counter[str]()
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root)
    for command in ("git init -q", "dvc init -q", "dvc commit --force"):
        finish(root, command)
    targets = ["train", "train", "encode", "fit@gmm_free", "evaluate@gmm_free", "train-evaluators"]
    for number in range(KILLS // 5):
        target, signum, with_stage = chosen.choice(targets), chosen.choice(SIGNALS), chosen.random() < 0.5
        with start(root, f"dvc repro --force --single-item {target}") as process:
            time.sleep(chosen.uniform(1, 10))
            (os.killpg if with_stage else os.kill)(process.pid, signum)
            process.wait()
        ends[f"{signum.name} {'all' if with_stage else 'dvc alone'}"] += 1
        finish(root, "dvc repro")
        assert content(root) == project.whole, (number, target, signum)
    print(dict(ends))


def start(root: Path, command: str) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that signals to its group do not reach this process."""
    environment = os.environ | {
        "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_TRACKING_URI": "off",
    }
    options: dict[str, Any] = {"cwd": root, "env": environment, "start_new_session": True}
    with open(root.with_name("dvc.log"), "wb") as log:  # not a pipe, which a stage that outlives dvc would keep open
        return subprocess.Popen(command.split(), stdout=log, stderr=log, **options)


def finish(root: Path, command: str) -> None:
    """Run a command to its end, which must be a good one."""
    with start(root, command) as process:
        assert process.wait() == 0, (command, root.with_name("dvc.log").read_text())
