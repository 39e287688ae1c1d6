"""The registry of metrics: one entry a metric, which code and docs agree with and which all results follow.

A new metric of fidelity is `scores(real, fake)` in pipelines/metrics/fidelity/<file>.py, which returns values (1 + B,)
by key, and an entry in pipelines/metrics/registry.py: Metric("fidelity/<file>", "<key>", "<what it is>").
The last test adds one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

from postprior.pipelines.metrics.fidelity.scores import FILES, fidelity
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.registry import HEADLINES, LEADERBOARD, METRICS, Metric

DOCUMENTED = {"Faithful?": ("coherence", "fidelity"), "Leaks?": ("privacy",)}
SPREAD = '''"""How far the spread of fake features is from that of real ones."""

import numpy as np

from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.statistics.intervals import Scores, weighted_mean


def scores(real: Space, fake: Space) -> Scores:
    """1 / (1 + |log σ²/σ′²|) in one space."""
    ours, theirs = (weighted_mean((of.features**2).sum(1), of.weights) for of in (real, fake))
    return {"spread_kept": 1 / (1 + np.abs(np.log(ours / theirs)))}
'''
ADDED = """
    Metric("fidelity/spread", "spread_kept", "how far samples vary as real rows do"),
)
\"\"\"All metrics;"""
RUN = """
import sys
from contextlib import nullcontext
from pathlib import Path
import report_project
from test_metrics_scores import CLASSES, NAMES, ROWS, readings
from postprior.pipelines.metrics.scores import Reference, row, score
from postprior.pipelines.metrics.statistics.intervals import half_samples
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.stages import compare
from postprior.pipelines.storage import read_json, write_json
import numpy as np

weights = half_samples(np.arange(ROWS), 20, np.random.default_rng(0))
reference = Reference.fit(readings(0), weights, 3, NAMES, CLASSES)
made = [score(readings(seed), weights, reference) for seed in (1, 2, 3)]
root = report_project.make_project(Path(sys.argv[1]))
path = root / "results/metrics/gmm.json"
write_json(path, read_json(path) | {"spread_kept": row(*made)["spread_kept"]})
compare.track, compare.groups = lambda *_: nullcontext(), lambda *_: ()
compare.compare(load_params(root / "params.yaml"), root)
"""


def space(seed: int, rows: int = 30) -> Space:
    rng = np.random.default_rng(seed)
    return Space(rng.normal(size=(rows, 4)).astype(np.float32), np.ones((1, rows)), 3)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: f"{metric.family}-{metric.key}")
def test_an_entry_is_complete(metric: Metric) -> None:
    assert (REPOSITORY / f"pipelines/metrics/{metric.file}.py").is_file()
    assert metric.better in ("higher", "lower", "")
    assert metric.bounds[0] < metric.bounds[1]
    assert metric.about or not (metric.headline or metric.overview)


def test_a_key_stands_once_in_its_family_and_on_the_leaderboard() -> None:
    assert max(Counter((metric.family, metric.key) for metric in METRICS).values()) == 1
    assert max(Counter(metric.key for metric in LEADERBOARD).values()) == 1
    assert HEADLINES == ("joint_coherence", "frechet_distance")


@pytest.mark.parametrize("file", sorted(set(FILES.values())))
def test_a_file_of_fidelity_computes_its_entries_and_no_others(file: str) -> None:
    found = import_module(f"postprior.pipelines.metrics.{file.replace('/', '.')}").scores(space(0), space(1))
    assert set(found) == {key for key, of in FILES.items() if of == file}


def test_fidelity_is_all_files_together() -> None:
    assert list(fidelity(space(0), space(1))) == list(FILES)
    assert list(fidelity(space(0, 1), space(1, 1))) == list(FILES)


@pytest.mark.parametrize("heading", DOCUMENTED)
def test_the_docs_name_every_metric_and_its_direction(heading: str) -> None:
    text = (REPOSITORY / "docs/evaluation.md").read_text(encoding="utf-8")
    part = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split(" | ")[0] for line in part.splitlines() if line.startswith("| `")]
    told = dict(re.findall(r"`(\w+)` ?([↑↓]?)", " ".join(cells)))
    told.pop("columns", None)  # a test a column, no metric
    assert told == {metric.key: metric.arrow for metric in METRICS if metric.family in DOCUMENTED[heading]}


def test_a_metric_is_added_in_two_files(tmp_path: Path) -> None:
    for name in ("pipelines", "stage1_vae", "stage2_latent", "postprior", "tests"):
        shutil.copytree(
            REPOSITORY / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    (tmp_path / "pipelines/metrics/fidelity/spread.py").write_text(SPREAD, encoding="utf-8")
    registry = tmp_path / "pipelines/metrics/registry.py"
    before, after = registry.read_text(encoding="utf-8").split('\n)\n"""All metrics;')
    registry.write_text(f"{before}{ADDED}{after}", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{tmp_path / 'tests'}"}
    command = [sys.executable, "-c", RUN, str(tmp_path / "project")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = tmp_path / "project/results"
    assert "spread_kept" in (results / "comparison.csv").read_text(encoding="utf-8").splitlines()[0].split(
        ","
    )
    page = (results / "report.html").read_text(encoding="utf-8")
    assert "<dt>Spread kept</dt><dd>how far samples vary as real rows do</dd>" in page
