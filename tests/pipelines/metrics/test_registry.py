"""The registry of metrics: one entry per metric, with which code, docs and results agree.

A new metric of fidelity is `scores(real, fake)` in pipelines/metrics/fidelity/<file>.py, which returns values (1 + B,)
by key, and an entry in pipelines/metrics/registry.py: Metric("fidelity/<file>", "<key>", "<what it is>").
test_additions.py adds one, and test_properties.py checks the properties of every one that is computed from samples.
"""

from __future__ import annotations

import re
from collections import Counter
from importlib import import_module

import numpy as np
import pytest
from support.project import REPOSITORY

from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.registry import HEADLINES, LEADERBOARD, METRICS, TESTED, Metric
from postprior.pipelines.metrics.scores import FILES, fidelity

DOCUMENTED = {"Faithful?": ("coherence", "fidelity", "tables"), "Leaks?": ("privacy",)}


def space(seed: int, rows: int = 30) -> Space:
    rng = np.random.default_rng(seed)
    return Space(rng.normal(size=(rows, 4)).astype(np.float32), np.ones((1, rows)), 3)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: f"{metric.family}-{metric.key}")
def test_an_entry_is_complete(metric: Metric) -> None:
    assert (REPOSITORY / f"pipelines/metrics/{metric.file}.py").is_file()
    assert metric.better in ("higher", "lower", "")
    assert metric.bounds[0] < metric.bounds[1]
    assert metric.about or not (metric.headline or metric.tested)


def test_keys_are_unique_in_their_family_and_on_the_leaderboard() -> None:
    assert max(Counter((metric.family, metric.key) for metric in METRICS).values()) == 1
    assert max(Counter(metric.key for metric in LEADERBOARD).values()) == 1
    assert TESTED == ("joint_coherence", "frechet_distance", "c2st_auc")
    assert set(TESTED) <= {metric.key for metric in HEADLINES}


def test_the_headline_metrics_are_ten_with_names_without_dots() -> None:
    assert len(HEADLINES) == 10
    assert all(re.fullmatch(r"[a-z0-9_]+", metric.key) for metric in HEADLINES)
    assert all(metric.better for metric in HEADLINES)


@pytest.mark.parametrize("file", sorted(set(FILES.values())))
def test_a_file_of_fidelity_computes_its_entries_and_no_others(file: str) -> None:
    found = import_module(f"postprior.pipelines.metrics.{file.replace('/', '.')}").scores(space(0), space(1))
    assert set(found) == {key for key, of in FILES.items() if of == file}


def test_fidelity_is_all_files_together() -> None:
    assert list(fidelity(space(0), space(1), "rows")) == list(FILES)
    assert list(fidelity(space(0, 1), space(1, 1), "rows")) == list(FILES)


@pytest.mark.parametrize("heading", DOCUMENTED)
def test_the_docs_name_every_metric_and_its_direction(heading: str) -> None:
    text = (REPOSITORY / "docs/evaluation.md").read_text(encoding="utf-8")
    part = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split(" | ")[0] for line in part.splitlines() if line.startswith("| `")]
    told = dict(re.findall(r"`(\w+)` ?([↑↓]?)", " ".join(cells)))
    told.pop("columns", None)  # one test per column, not a metric
    assert told == {metric.key: metric.arrow for metric in METRICS if metric.family in DOCUMENTED[heading]}
