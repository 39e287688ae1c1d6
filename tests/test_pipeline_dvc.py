"""The whole pipeline under DVC, on a few digits: what runs, what does not run again, and what it leaves."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
CODE = ("pipelines", "stage1_vae", "stage2_latent")
BINARIES = Path(sys.executable).parent
DENSITIES = ["gmm_free", "vamp"]  # an entry that names its kind, and one that is named after it
OF_A_DENSITY = ("fit", "generate", "evaluate", "utility", "recover", "privacy")
STAGES = ["prepare", "judge", "train", "encode", "inspect", "reference"]
STAGES += [f"{stage}@{name}" for stage in OF_A_DENSITY for name in DENSITIES]
STAGES += ["utility-real", "recover-baselines", "augment@40-0", "augment@40-1", "compare"]

pytestmark = pytest.mark.skipif(
    not (BINARIES / "postprior").exists() or shutil.which("git") is None,
    reason="The console script postprior is not installed, or git is not",
)


def settings() -> dict[str, Any]:
    """The settings of the repository, at a size that runs in seconds."""
    tree: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    tree["data"]["digits"] |= {"train": 200, "validation": 60, "test": 120}
    tree["judge"] |= {"epochs": 1, "features": 8}
    tree["vae"] |= {"latent": 4, "width": 4}
    tree["train"] |= {"epochs": 2, "device": "cpu"}
    tree["densities"] = DENSITIES
    tree["density"]["gmm_free"] = {"kind": "gmm", "labels": False, "components": [1], "passes": 10}
    tree["density"]["vamp"] |= {"pseudo_inputs": 10, "steps": 20}
    tree["generate"]["samples"] = 60
    tree["evaluate"] |= {"resamples": 20, "neighbours": 3}
    tree["utility"] |= {"seeds": [0], "steps": 4}
    tree["augment"] |= {"sizes": [40], "seeds": [0, 1], "steps": 4, "density": "gmm_free"}
    return tree


def run(root: Path, *command: str) -> str:
    environment = os.environ | {
        "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_TRACKING_URI": "off",  # importing MLflow would double the time of every stage
    }
    answer = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(.+?)'", output)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project of git and DVC in which `dvc repro` has run once, and what that run said."""
    root = tmp_path_factory.mktemp("pipeline") / "project"
    root.mkdir()
    for name in CODE:
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root)
    (root / "params.yaml").write_text(yaml.safe_dump(settings()))
    run(root, "git", "init", "-q")
    run(root, "dvc", "init", "-q")
    return root, run(root, "dvc", "repro")


def numbers(tree: Mapping[str, Any]) -> Iterator[float]:
    for value in tree.values():
        if isinstance(value, Mapping):
            yield from numbers(value)
        elif isinstance(value, (int, float)):
            yield value


def test_every_stage_runs_once(first: tuple[Path, str]) -> None:
    ran = stages_run(first[1])
    assert sorted(ran) == sorted(STAGES)
    assert ran[-1] == "compare"


def test_the_results_are_there_and_finite(first: tuple[Path, str]) -> None:
    metrics = first[0] / "results/metrics"
    rows = ["real", "reconstruction", "normal", *DENSITIES]
    assert {path.stem for path in metrics.glob("*.json")} == {*rows, "autoencoder", "judges", "latent"}
    for path in metrics.glob("*.json"):
        found = list(numbers(json.loads(path.read_text())))
        assert found
        assert all(map(math.isfinite, found)), path
    table = list(csv.DictReader((first[0] / "results/comparison.csv").open()))
    assert sorted(line["row"] for line in table) == sorted(rows)
    assert len((first[0] / "results/training.csv").read_text().splitlines()) == 1 + 2
    assert (first[0] / "results/report.html").stat().st_size < 3_000_000
    assert not (first[0] / "mlflow.db").exists()


def test_nothing_runs_twice(first: tuple[Path, str]) -> None:
    """Neither as it is, nor after the code has been imported and tested in place."""
    root = first[0]
    for name in CODE:
        cache = root / name / "__pycache__"
        cache.mkdir(exist_ok=True)
        (cache / "left_by_a_test.pyc").write_bytes(b"\0")
    output = run(root, "dvc", "repro")
    assert not stages_run(output)
    assert "Data and pipelines are up to date." in output


def test_the_results_are_for_git_and_the_artefacts_are_not(first: tuple[Path, str]) -> None:
    root = first[0]
    run(root, "git", "add", "--all")
    kept = run(root, "git", "ls-files").splitlines()
    assert {
        "dvc.lock",
        "results/metrics/gmm_free.json",
        "results/report.html",
        "results/comparison.csv",
    } <= set(kept)
    assert not [path for path in kept if path.startswith(("artefacts/", ".postprior/"))]


def test_a_setting_of_a_density_reruns_only_that_density(first: tuple[Path, str]) -> None:
    root = first[0]
    others = [root / f"results/metrics/{name}.json" for name in ("gmm_free", "normal", "real")]
    before = [path.read_bytes() for path in others]
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["density"]["vamp"]["pseudo_inputs"] = 12
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    ran = stages_run(run(root, "dvc", "repro"))
    assert sorted(ran) == sorted([*(f"{stage}@vamp" for stage in OF_A_DENSITY), "compare"])
    assert [path.read_bytes() for path in others] == before
