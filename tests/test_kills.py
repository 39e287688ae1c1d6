"""Stages, `dvc repro` and publications are killed at random moments: files stay whole, and a restart gives the same.

`POSTPRIOR_KILLS=100` asks for so many kills; a fifth of them hits `dvc repro`, and a fifth a publication.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.dvc import BINARIES, REPOSITORY, settings

from postprior.pipelines.storage import load_artefact

KILLS = int(os.environ.get("POSTPRIOR_KILLS", "20"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
STAGES = [
    *("prepare", "train-evaluators", "train", "train", "train", "encode", "diagnose", "score-baselines", "compare"),
    *(f"{stage} gmm_free" for stage in ("fit", "generate", "evaluate", "utility", "evaluate-imputation", "privacy")),
    *("fit vamp", "utility --real", "evaluate-imputation --baselines", "augment 40"),
]
PUBLISHER = """
import sys, itertools, numpy, torch
from pathlib import Path
from postprior.pipelines.storage import save_artefact
for value in itertools.count(1):
    tensors = {name: torch.full((50, 50), float(value)) for name in "abc"}
    save_artefact(Path(sys.argv[1]), "thing", {"value": value}, tensors, {"d": numpy.full(500, value)})
    print(value, flush=True)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


class Project:
    """A project under git and DVC in which `dvc repro` has run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
            shutil.copy(REPOSITORY / name, root)
        tree = settings()
        tree["train"]["epochs"] = 12
        (root / "params.yaml").write_text(yaml.safe_dump(tree))
        for command in ("git init -q", "dvc init -q", "dvc repro"):
            self.run(command)
        self.whole = self.files()

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command in its own session, so that signals to its group do not reach this process."""
        environment = os.environ | {
            "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_TRACKING_URI": "off",
        }
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command.split(), cwd=self.root, env=environment, start_new_session=True, **options)

    def run(self, command: str) -> float:
        """Run a command to its end and return its seconds."""
        started = time.monotonic()
        with self.start(command) as process:
            said, _ = process.communicate()
        assert process.returncode == 0, (command, said)
        return time.monotonic() - started

    def files(self) -> dict[str, str]:
        """The hash of every file that stages leave, by path."""
        paths = [path for part in ("artefacts", "results") for path in (self.root / part).rglob("*")]
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in paths
            if path.is_file() and ".partial" not in str(path) and path.name != ".gitignore"
        }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("kills") / "project")


def kill(process: subprocess.Popen[str], with_children: bool, chosen: random.Random) -> str:
    """Send a random signal to a process or to its group and return the name of the signal."""
    chosen_signal = chosen.choice(SIGNALS)
    if with_children:
        os.killpg(process.pid, chosen_signal)
    else:
        process.send_signal(chosen_signal)
    process.communicate() if with_children else process.wait()
    return chosen_signal.name


def test_a_stage_killed_ends_with_the_same_bytes(project: Project) -> None:
    """The files are there at every moment, because the stage replaces them by equal ones, and after the next run."""
    chosen, hit, lasts = random.Random(0), Counter[str](), dict[str, float]()
    for number in range(KILLS * 3 // 5):
        command = "postprior " + chosen.choice(STAGES)
        lasts.setdefault(command, project.run(command))
        with project.start(command) as process:
            time.sleep(lasts[command] * chosen.uniform(0.05, 1))
            name = kill(process, True, chosen)
        hit[f"{name} {process.returncode}"] += 1
        assert project.files() == project.whole, (number, command, name)
        project.run(command)
        assert project.files() == project.whole, (number, command, name)
    print(dict(hit))
    assert not list(project.root.rglob(".*.partial"))


def test_a_killed_pipeline_ends_with_the_same_bytes(project: Project) -> None:
    """If only `dvc` is killed, its stage keeps running beside the next one."""
    chosen, hit = random.Random(1), Counter[str]()
    targets = ["train", "train", "encode", "fit@vamp", "evaluate@gmm_free", "train-evaluators"]
    for number in range(KILLS // 5):
        target = chosen.choice(targets)
        with_children = chosen.random() < 0.5
        process = project.start(f"dvc repro --force --single-item {target}")
        time.sleep(chosen.uniform(1, 6))
        hit[f"{kill(process, with_children, chosen)} {'all' if with_children else 'dvc alone'}"] += 1
        project.run("dvc repro")
        assert project.files() == project.whole, (number, target)
    print(dict(hit))


def test_a_killed_publication_leaves_a_whole_folder(tmp_path: Path) -> None:
    chosen = random.Random(2)
    for number in range(KILLS // 5):
        command = [sys.executable, "-c", PUBLISHER, str(tmp_path / "thing")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chosen.uniform(0, 0.2))
            process.send_signal(chosen.choice(SIGNALS))
        found = load_artefact(tmp_path / "thing", "thing")
        values = {*(float(t.unique()) for t in found.tensors.values()), *found.arrays["d"].tolist()}
        assert values == {found.manifest["value"]}, number
