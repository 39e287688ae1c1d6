"""Random data reach the report: few rows, any number and kind of modalities, any missing pattern, labels or none."""

from __future__ import annotations

import json
import os
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from support.dvc import BINARIES
from support.project import REPOSITORY

from postprior.pipelines.api.init import init
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.privacy.proximity import REPEATED, TESTS
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

REFUSED = "train: .* rows found, expected 10|label .* none of them in train|no modality found"
FIDELITY = (
    "frechet_distance",
    "joint_frechet_distance",
    "kernel_distance",
    "mmd",
    "precision",
    "recall",
    "density",
    "coverage",
    "alpha_precision",
    "beta_recall",
)
AGREEMENT, COHERENCE = (
    ("pairing_auc", "incoherence", "canonical_correlation"),
    ("joint_coherence", "pairwise_coherence"),
)
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
    """Write a table per modality, of numbers and other columns, some with missing cells; no label with one class.

    If there are unlabelled rows, only the last file has labels, and only rows that have its modality are in it.
    """
    labels = rng.choice(classes, rows, p=rng.dirichlet(np.ones(classes)))
    mask, sources = observed(rng, pattern, rows, modalities), []
    for m in range(modalities):
        table: dict[str, Any] = {"id": np.arange(rows)}
        for j, kind in enumerate(["number", *rng.choice([*COLUMNS], rng.integers(0, 3))]):
            hole = rng.random(rows) < (rng.choice([0, 0.1]) if j else 0)
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
    """Import the sources without the columns that the messages ask to leave out; false if there are too few rows.

    A label that few rows have, or of which few rows have a second class, is left out as well.
    """
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
            if "leave --label out" in str(error):
                roles = Roles(id="id", skip=(*roles.skip, "lab"))
            elif left_out:
                roles = Roles(id="id", label=roles.label, skip=(*roles.skip, *left_out))
            else:
                raise


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


def under_dvc(root: Path, warm: Path) -> None:
    """Run `dvc repro` on the code of this repository, with the script `postprior` of a folder."""
    changes = {
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{warm}{os.pathsep}{BINARIES}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }
    answer = subprocess.run(
        ["dvc", "repro"], cwd=root, env=os.environ | changes, capture_output=True, text=True, check=False, timeout=3500
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def project_of(home: Path, rng: np.random.Generator, **facts: Any) -> Path | None:
    """Import random data and create a project for them; None if import refuses too few rows."""
    if not imported(write_sources(home, rng, **facts), home / "data"):
        return None
    init(home / "project", home / "data")
    return home / "project"


def facts_of(seed: int) -> tuple[np.random.Generator, dict[str, Any]]:
    """The size and the shape of the random data of a seed, and the generator of their values."""
    rng = np.random.default_rng(seed)
    return rng, {
        "rows": int(np.exp(rng.uniform(np.log(15), np.log(300)))),
        "modalities": int(rng.integers(1, 7)),
        "pattern": str(rng.choice(["complete", "at random", "last one sparse", "one per row"])),
        "classes": int(rng.integers(1, 6)),
        "unlabelled": 0.3 if seed % 3 == 0 else 0.0,
    }


def scores(root: Path) -> dict[str, Any]:
    """The scores of the density; the report is there, and no result has a number that JSON has not."""
    assert "</html>" in (root / "results/report.html").read_text()
    for path in (root / "results").rglob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in a result"))
    return {of: read_json(root / f"results/{of}/gmm.json") for of in ("metrics", "utility", "privacy")}


def check_numbers(root: Path, found: dict[str, Any]) -> None:
    """From 60 rows and two modalities on, scores are numbers; those of two modalities if enough rows share two."""
    observed = {split: Dataset.load(root / "artefacts/data" / split).observed for split in SPLITS}
    modalities = len(found["metrics"]["modalities"])
    if sum(map(len, observed.values())) < 60 or modalities < 2:
        return
    metrics, joint = found["metrics"], found["privacy"]["spaces"]["joint"]
    for name in FIDELITY:
        assert metrics[name]["value"] is not None, (name, metrics[name])
    labelled = "joint_coherence" in metrics
    if labelled:
        assert metrics["label_entropy"]["value"] is not None
        ratio = found["utility"]["ratio_to_real"]["joint"]
        assert ratio["value"] is not None or found["utility"]["samples"]["test"] < 8, ratio
    pairs = [*combinations(range(modalities), 2)]
    enough = {"train": 2, "validation": 2, "test": 8}
    shared = any(all(observed[split][:, pair].all(1).sum() >= n for split, n in enough.items()) for pair in pairs)
    of_pairs = {name: metrics[name] for name in (*AGREEMENT, *(COHERENCE if labelled else ()))}
    for name, score in (of_pairs | {test: joint[test] for test in TESTS}).items():
        unavoidable = REPEATED.why if shared else f"two modalities|complete .* rows|{REPEATED.why}"
        assert score["value"] is not None or re.search(unavoidable, score["why"]), (name, score, shared)


def reach_the_page(
    home: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, **facts: Any
) -> dict[str, Any] | None:
    """Run everything on random data; return the scores of the density, or None if import refuses too few rows."""
    for module in ("imputers", "chained"):
        monkeypatch.setattr(f"postprior.pipelines.metrics.imputation.{module}.ROUNDS", 1)
    monkeypatch.setattr(Figure, "pngs", lambda *_, **__: (bytes(24), bytes(24)))
    root = project_of(home, rng, **facts)
    if root is None:
        return None
    monkeypatch.chdir(root)
    reproduce(tiny(root), root)
    found = scores(root)
    check_numbers(root, found)
    return found


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
    for name in (*FIDELITY, *AGREEMENT, *COHERENCE):
        assert metrics[name]["value"] is not None, metrics[name]
    for test in TESTS:
        assert found["privacy"]["spaces"]["joint"][test]["value"] is not None
    assert "lack a modality" in metrics["cautions"][0]
    assert metrics["incomplete_rows"] > 0


def test_few_labelled_rows_of_one_modality_reach_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the project of the second seed runs under DVC, in this process."""
    rng, facts = facts_of(2)
    assert facts["modalities"] == 1
    assert reach_the_page(tmp_path, monkeypatch, rng, **facts) is not None


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(60))
def test_random_data_reach_the_report(seed: int, tmp_path: Path, warm: Path) -> None:
    rng, facts = facts_of(seed)
    root = project_of(tmp_path, rng, **facts)
    if root is None:
        assert facts["rows"] < 60
        return
    tiny(root)
    under_dvc(root, warm)
    check_numbers(root, scores(root))
