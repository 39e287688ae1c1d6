"""The registry of metrics: one entry a metric, which the code, the docs and the page agree with.

A new metric of fidelity: write `scores(real, fake)` in pipelines/metrics/fidelity/<file>.py, which returns values
(1 + B,) by key, and append `Metric("fidelity/<file>", "<key>", "Overlap", "<what it measures>")` to METRICS in
pipelines/metrics/registry.py. Every row of results/metrics, comparison.csv and the page then have it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import REPOSITORY

from postprior.pipelines.metrics.fidelity import scores
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.registry import HEADLINES, LEADERBOARD, METRICS, QUESTIONS

ROOM = REPOSITORY / "pipelines/metrics"


def space(seed: int, rows: int = 30) -> Space:
    rng = np.random.default_rng(seed)
    return Space(rng.normal(size=(rows, 4)).astype(np.float32), np.ones((1, rows)), 3)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: f"{metric.file}-{metric.key}")
def test_an_entry_names_the_file_that_knows_its_key(metric):
    path = (ROOM / metric.file).with_suffix(".py")
    assert metric.key.removeprefix("joint_") in path.read_text(encoding="utf-8")
