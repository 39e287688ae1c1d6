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
import yaml
from support.dvc import BINARIES, REPOSITORY, settings
from support.forked import Command, content, partials, run
from support.once import state
from support.project import write_params

from postprior.pipelines.settings.params import Params

KILLS = int(os.environ.get("POSTPRIOR_KILLS", "20"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FIRST = ("prepare", "train-evaluators", "train", "encode", "fit gmm")
OF_DENSITY = ("fit", "generate", "evaluate", "utility", "evaluate-imputation", "privacy")
STAGES = [
    *("code", "prepare", "train-evaluators", "train", "encode", "diagnose", "score-baselines", "utility --real"),
    *("evaluate-imputation --baselines", "augment 40 --seed 0", *(f"{stage} gmm_free" for stage in OF_DENSITY)),
    "compare",
]


class Kills:
    """Kills of the commands of a project with results, and a table of how the commands ended."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.whole, self.ends = root, content(root), Counter[str]()
        self._chosen = random.Random(seed)
        self._measured: dict[str, tuple[float, list[str]]] = {}

    def kill(self, words: str) -> None:
        """Kill a command at a random moment, in half of the cases after its files were removed, as DVC does."""
        seconds, written = self._measure(words)
        removed = self._chosen.choice(([], written))
        for path in removed:
            (self.root / path).unlink()
        command = Command(self.root, words)
        time.sleep(seconds * self._chosen.uniform(0, 1))
        command.send(signum := self._chosen.choice(SIGNALS))
        code, found = command.wait(), content(self.root)
        case = (words, signum.name, code, command.said)
        self.ends[f"{signum.name} {code}"] += 1
        assert code in (0, -signum if signum == signal.SIGKILL else 128 + signum), case
        assert found == {path: digest for path, digest in self.whole.items() if path in found}, case
        assert self.whole.keys() - found.keys() <= set(removed), case
        assert signum == signal.SIGKILL or not partials(self.root), case
        run(self.root, words)
        assert content(self.root) == self.whole, case
        assert not partials(self.root), case

    def _measure(self, words: str) -> tuple[float, list[str]]:
        """The seconds that a command takes, and the files in artefacts and results that it writes."""
        if words not in self._measured:
            before = state(self.root)
            seconds, after = run(self.root, words), state(self.root)
            assert content(self.root) == self.whole, words
            self._measured[words] = seconds, [path for path in self.whole if after[path] != before[path]]
        return self._measured[words]


def test_a_killed_stage_ends_with_the_same_bytes(trained: tuple[Path, Params], tmp_path: Path) -> None:
    kills = Kills(Path(shutil.copytree(trained[0], tmp_path / "project")), seed=0)
    for words in FIRST:
        kills.kill(words)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project under git and DVC in which every stage has run, without an interruption."""
    root = tmp_path_factory.mktemp("kills") / "project"
    tree = settings()
    tree["densities"], tree["augment"]["seeds"], tree["train"]["epochs"] = ["gmm_free"], [0], 12
    write_params(root, tree)
    for words in STAGES:
        run(root, words)
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root)
    for command in ("git init -q", "dvc init -q", "dvc commit --force"):
        finish(root, command)
    return root


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_stage_killed_many_times_ends_with_the_same_bytes(project: Path) -> None:
    kills = Kills(project, seed=1)
    for number in range(KILLS - KILLS // 5):
        kills.kill(STAGES[number % len(STAGES)])
    print(dict(kills.ends))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_killed_pipeline_ends_with_the_same_bytes(project: Path) -> None:
    """If only `dvc` is killed, its stage keeps running beside the next one."""
    chosen, ends, whole = random.Random(2), Counter[str](), content(project)
    targets = ["train", "train", "encode", "fit@gmm_free", "evaluate@gmm_free", "train-evaluators"]
    for number in range(KILLS // 5):
        target, signum, with_stage = chosen.choice(targets), chosen.choice(SIGNALS), chosen.random() < 0.5
        with start(project, f"dvc repro --force --single-item {target}") as process:
            time.sleep(chosen.uniform(1, 10))
            (os.killpg if with_stage else os.kill)(process.pid, signum)
            process.wait()
        ends[f"{signum.name} {'all' if with_stage else 'dvc alone'}"] += 1
        finish(project, "dvc repro")
        assert content(project) == whole, (number, target, signum)
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
