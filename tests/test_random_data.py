"""Random data reach the report: few rows, any number and kind of modalities, any missing pattern, labels or none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from postprior.pipelines.api.init import init
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError
from postprior.pipelines.report.figures import Figure
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.augment import augment
from postprior.pipelines.stages.compare import compare
from postprior.pipelines.stages.diagnose import diagnose
from postprior.pipelines.stages.encode import encode
from postprior.pipelines.stages.evaluate import evaluate
from postprior.pipelines.stages.evaluate_imputation import evaluate_baseline_imputers, evaluate_imputation
from postprior.pipelines.stages.fit import fit
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.prepare import prepare
from postprior.pipelines.stages.privacy import privacy
from postprior.pipelines.stages.score_baselines import score_baselines
from postprior.pipelines.stages.train import train
from postprior.pipelines.stages.train_evaluators import train_evaluators
from postprior.pipelines.stages.utility import utility, utility_of_real
from postprior.pipelines.storage import read_json

REFUSED = "train: .* rows found, expected 10|no modality found"
UNUSABLE = "label lab: |rows with a label found"
COLUMNS = {
    "number": lambda rng, classes: (rng.normal(size=len(classes)) + classes).round(3),
    "positive": lambda rng, classes: np.exp(rng.normal(size=len(classes)) + classes).round(4),
    "count": lambda rng, classes: rng.poisson(2 + classes),
    "class": lambda rng, classes: np.array([*"pqrs"])[(rng.integers(0, 4, len(classes)) + classes) % 4],
    "truth": lambda rng, classes: np.where(rng.random(len(classes)) < 0.3 + 0.3 * (classes % 2), "yes", "no"),
    "rare": lambda rng, classes: np.where(np.arange(len(classes)) == len(classes) // 2, "odd", "usual"),
    "constant": lambda rng, classes: np.full(len(classes), 3),
}


def observed(rng: np.random.Generator, pattern: str, rows: int, modalities: int) -> np.ndarray:
    """Which rows have which modalities (N, M): at least one each, and every modality four rows."""
    mask = {
        "complete": np.ones((rows, modalities), bool),
        "at random": rng.random((rows, modalities)) < rng.uniform(0.3, 0.9),
        "last one sparse": rng.random((rows, modalities)) < np.where(np.arange(modalities) < modalities - 1, 1, 0.1),
        "one per row": np.arange(modalities) == rng.integers(0, modalities, rows)[:, None],
    }[pattern]
    mask[~mask.any(1), 0] = True
    for m in range(modalities):
        if mask[:, m].sum() < 4:
            mask[rng.permutation(rows)[:4], m] = True
    return mask


def write_sources(
    folder: Path,
    rng: np.random.Generator,
    rows: int,
    modalities: int,
    pattern: str,
    classes: int,
    unlabelled: float = 0.0,
) -> list[Path]:
    """Write a table per modality of columns of random kinds, some with missing cells; no label with one class.

    If there are unlabelled rows, only the last file has labels, and only rows that have its modality are in it.
    """
    labels = rng.choice(classes, rows, p=rng.dirichlet(np.ones(classes)))
    mask, sources = observed(rng, pattern, rows, modalities), []
    for m in range(modalities):
        table: dict[str, Any] = {"id": np.arange(rows)}
        for j, kind in enumerate(rng.choice([*COLUMNS], rng.integers(1, 4))):
            hole = rng.random(rows) < rng.choice([0, 0.1])
            table[f"c{m}{j}"] = pd.Series(COLUMNS[kind](rng, labels)).astype(object).where(mask[:, m] & ~hole, None)
        if m == (modalities - 1 if unlabelled else 0) and len(set(labels)) > 1:
            table["lab"] = [f"l{label}" for label in labels]
        frame = pd.DataFrame(table)
        if unlabelled and "lab" in frame:
            frame.loc[rng.random(rows) < unlabelled, "lab"] = None
            frame = frame[mask[:, m]]
        sources.append(folder / f"m{m}.csv")
        frame.to_csv(sources[-1], index=False)
    return sources


def imported(sources: list[Path], folder: Path) -> bool:
    """Import the sources without the columns that the messages ask to leave out; false if there are too few rows."""
    labelled = any("lab" in source.read_text().split("\n")[0] for source in sources)
    roles = Roles(id="id", label="lab" if labelled else None)
    while True:
        try:
            import_data(sources, folder, roles)
            return True
        except UserError as error:
            if re.search(REFUSED, str(error)):
                return False
            left_out = re.findall(r"--skip (\w+)", str(error))
            if unusable := re.search(UNUSABLE, str(error)):
                left_out = ["lab"]
            if not left_out:
                raise
            roles = Roles(id="id", label=None if unusable else roles.label, skip=(*roles.skip, *left_out))


def tiny(root: Path) -> Params:
    """The settings that `init` chose, with less training."""
    path = root / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["densities"], tree["density"]["gmm"]["components"] = ["gmm"], [1]
    changes = {
        "evaluators": {"epochs": 2},
        "train": {"epochs": 2},
        "evaluate": {"resamples": 20},
        "utility": {"seeds": [0], "steps": 4},
        "augment": {"seeds": [0], "steps": 2, "density": "gaussian"},
        "privacy": {"draws": 1},
        "imputation": {"draws": 19},
    }
    for section, values in changes.items():
        tree[section] |= values
    path.write_text(yaml.safe_dump(tree))
    return load_params(path)


def reproduce(params: Params, root: Path) -> None:
    """Every stage, in the order of the pipeline."""
    for stage in (prepare, train_evaluators, train, encode, diagnose, score_baselines):
        stage(params, root)
    utility_of_real(params, root)
    evaluate_baseline_imputers(params, root)
    for of_density in (fit, generate, evaluate, utility, privacy, evaluate_imputation):
        of_density("gmm", params, root)
    for size in params.augment.sizes:
        augment(str(size), params, root)
    compare(params, root)


def reach_the_page(
    home: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, **facts: Any
) -> dict[str, Any] | None:
    """Run everything on random data; return the scores of the density, or None if import refuses too few rows."""
    monkeypatch.setattr("postprior.pipelines.metrics.imputation.imputers.ROUNDS", 1)
    monkeypatch.setattr(Figure, "pngs", lambda *_, **__: (bytes(24), bytes(24)))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "off")
    if not imported(write_sources(home, rng, **facts), home / "data"):
        return None
    root = home / "project"
    init(root, home / "data")
    monkeypatch.chdir(root)
    reproduce(tiny(root), root)
    assert "</html>" in (root / "results/report.html").read_text()
    for path in (root / "results").rglob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in a result"))
    return {of: read_json(root / f"results/{of}/gmm.json") for of in ("metrics", "utility", "privacy")}


def test_twenty_rows_reach_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = reach_the_page(
        tmp_path, monkeypatch, np.random.default_rng(3), rows=20, modalities=3, pattern="complete", classes=2
    )
    assert found is not None
    assert found["metrics"]["frechet_distance"]["value"] is not None


def test_half_of_six_views_and_most_labels_missing_still_has_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"rows": 120, "modalities": 6, "pattern": "at random", "classes": 2, "unlabelled": 0.3}
    found = reach_the_page(tmp_path, monkeypatch, np.random.default_rng(0), **facts)
    assert found is not None
    rows = [read_json(tmp_path / f"data/{split}/manifest.json")["samples"] for split in ("train", "test")]
    labels = [np.load(tmp_path / f"data/{split}/labels.npy") for split in ("train", "test")]
    known = [int((of_split >= 0).sum()) for of_split in labels]
    assert 10 <= known[0] < rows[0] / 2
    assert found["utility"]["samples"] == dict(zip(("train", "test"), known, strict=True))
    assert found["metrics"]["rows"]["inferred"] == rows[0] - known[0]
    assert found["metrics"]["cautions"][1].startswith(f"{rows[1] - known[1]} of the {rows[1]} test rows have no label")
    metrics = found["metrics"]
    for name in ("frechet_distance", "coverage", "joint_coherence", "pairing_auc", "label_entropy"):
        assert metrics[name]["value"] is not None, metrics[name]
    assert found["utility"]["ratio_to_real"]["joint"]["value"] is not None
    assert any(space["membership_auc"]["value"] is not None for space in found["privacy"]["spaces"].values())
    assert "lack a modality" in metrics["cautions"][0]
    assert metrics["incomplete_rows"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_random_data_reach_the_report(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    facts = {
        "rows": int(np.exp(rng.uniform(np.log(15), np.log(300)))),
        "modalities": int(rng.integers(1, 7)),
        "pattern": str(rng.choice(["complete", "at random", "last one sparse", "one per row"])),
        "classes": int(rng.integers(1, 6)),
        "unlabelled": float(rng.choice([0, 0.3])),
    }
    found = reach_the_page(tmp_path, monkeypatch, rng, **facts)
    assert found is not None or facts["rows"] < 60
