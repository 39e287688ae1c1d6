"""All stages on too few rows to score: no stage stops, and scores that cannot be computed are null with a reason."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.project import small, write_params

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.report.figures import Figure
from postprior.pipelines.settings.params import SAMPLER_ROWS, Params
from postprior.pipelines.stages.augment import augment
from postprior.pipelines.stages.compare import compare
from postprior.pipelines.stages.diagnose import diagnose
from postprior.pipelines.stages.encode import encode
from postprior.pipelines.stages.evaluate import evaluate
from postprior.pipelines.stages.evaluate_imputation import evaluate_baseline_imputers, evaluate_imputation
from postprior.pipelines.stages.fit import fit
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.privacy import privacy
from postprior.pipelines.stages.score_baselines import score_baselines
from postprior.pipelines.stages.train import train
from postprior.pipelines.stages.train_evaluators import train_evaluators
from postprior.pipelines.stages.utility import utility, utility_of_real
from postprior.pipelines.storage import read_json
from postprior.pipelines.tracking.outputs import headline_scores
from postprior.stage1_vae.modalities import Column, Modality

COLUMNS = (
    Column("age", "normal"),
    Column("visits", "negative_binomial"),
    Column("site", "categorical", 3),
)
MODALITIES = (
    Modality("record", "table", (3,), "columns", columns=COLUMNS),
    Modality("scan", "vector", (2,), "normal"),
)
ONE = "at least 2 test rows in each half of the sources are needed, found 1"
NONE = "there are no test rows with two modalities in each half of the sources"
OF_PAIRS = ("joint_coherence", "pairing_auc")
OF_ROWS = ("frechet_distance", "coverage", "label_entropy")
ROWS = ("real", "reconstruction", "normal", "gmm")
DRAWN: dict[tuple[str, tuple[tuple[bool, ...], ...]], tuple[bytes, bytes]] = {}
"""Pictures by the name of the figure and the cells of its table that are missing."""


def people(rows: int, whole: int, seed: int) -> Dataset:
    """Rows with a record, the first `whole` of them with a scan too; the two labels take turns."""
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % 2
    record = np.stack([rng.normal(size=rows) + label, rng.poisson(2, rows), rng.integers(3, size=rows)], 1)
    scan = rng.normal(size=(rows, 2)) + label[:, None]
    mask = np.ones((rows, 2), bool)
    mask[whole:, 1] = False
    data = {"record": record.astype(np.float32), "scan": scan.astype(np.float32)}
    return Dataset(MODALITIES, data, mask=mask, labels=label, label_names=("a", "b"))


def settings() -> dict[str, Any]:
    tree = small(evaluators__features=2, evaluators__epochs=1, train__epochs=1, vae__latent=2, densities=["gmm"])
    tree["density"]["gmm"] = {"components": [1], "passes": 5}
    tree["evaluate"] |= {"neighbours": 1}
    tree["utility"] |= {"seeds": [0], "steps": 2}
    tree["augment"] |= {"sizes": [12], "density": "gmm", "steps": 2}
    tree["privacy"] |= {"draws": 1}
    tree["imputation"] |= {"draws": 19}
    return tree


@pytest.fixture(
    scope="module",
    params=[
        {"train": (24, 6), "validation": (6, 2), "test": (3, 3)},
        {"train": (24, 5), "validation": (6, 0), "test": (8, 0)},
    ],
    ids=["one row per half", "no row with both modalities"],
)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project after every stage, of splits of so many rows and complete rows, and why scores are missing."""
    root = tmp_path_factory.mktemp("few")
    for split, (rows, whole) in request.param.items():
        people(rows, whole, rows).save(root / "artefacts/data" / split)
    draw = Figure.pngs

    def once(figure: Figure, narrow: bool = False) -> tuple[bytes, bytes]:
        """Two pictures of each figure in place of four, and none if another project lacks the same of its numbers."""
        missing = tuple(tuple(cell in (None, "") or cell != cell for cell in line) for line in figure.table)
        if (figure.name, missing) not in DRAWN:
            DRAWN[figure.name, missing] = draw(figure)
        return DRAWN[figure.name, missing]

    with pytest.MonkeyPatch.context() as patch:
        for module in ("imputers", "chained"):
            patch.setattr(f"postprior.pipelines.metrics.imputation.{module}.ROUNDS", 1)
        patch.setattr(Figure, "pngs", once)
        run(write_params(root, settings()), root)
    return root, ONE if request.param["test"][1] else NONE


def run(params: Params, root: Path) -> None:
    """Every stage, in the order of the pipeline."""
    for stage in (train_evaluators, train, encode, diagnose, score_baselines):
        stage(params, root)
    utility_of_real(params, root)
    evaluate_baseline_imputers(params, root)
    for of_density in (fit, generate, evaluate, utility, privacy, evaluate_imputation):
        of_density("gmm", params, root)
    augment("12", params, root)
    compare(params, root)


def test_no_file_of_results_has_nan(project: tuple[Path, str]) -> None:
    files = [path for path in (project[0] / "results").rglob("*") if path.suffix in (".json", ".csv")]
    assert len(files) > 15
    for path in files:
        assert not re.search(r"\b(nan|inf|infinity)\b", path.read_text(), re.IGNORECASE), path


def test_what_is_missing_says_why(project: tuple[Path, str]) -> None:
    root, why = project
    missing = {"value": None, "why": why}
    for name in ROWS:
        row = read_json(root / f"results/metrics/{name}.json")
        of_pairs = missing
        if name == "gmm" and why != ONE:  # samples lack modalities of their own, so few of them may have two
            of_pairs = {"value": None, "why": row["joint_coherence"]["why"]}
            assert "with two modalities" in of_pairs["why"]
        assert all(row[score] == of_pairs for score in OF_PAIRS)
        assert all((row[score] == missing) == (why == ONE) for score in OF_ROWS)
        scan = row["modalities"]["scan"]["frechet_distance"]
        assert scan == {"value": None, "why": ONE if why == ONE else "there are no test rows with scan"}
        for of in ("gap_closed", "difference_to_normal"):
            assert row[of]["joint_coherence"] in (missing, of_pairs)
            assert (row[of]["frechet_distance"] == missing) == (why == ONE)
        logged = headline_scores(root, name)
        assert logged.keys().isdisjoint(OF_PAIRS)
        assert logged.keys().isdisjoint(OF_ROWS) == (why == ONE)
    own = read_json(root / "results/metrics/autoencoder.json")
    for score in (row["conditional_coherence"]["1"], own["conditional_coherence"]["1"], own["reconstruction_error"]):
        assert (score == missing) == (why == ONE)  # a row with one modality has the others generated from it


def test_what_can_be_computed_is(project: tuple[Path, str]) -> None:
    root, _ = project
    judges = read_json(root / "results/metrics/evaluators.json")
    assert judges["modalities"]["record"]["accuracy"]["low"] is not None
    used = read_json(root / "results/utility/gmm.json")
    assert used["ratio_to_real"]["joint"]["low"] is not None
    cells = read_json(root / "results/imputation/gmm.json")["cells"]
    assert cells["energy_score"]["value"] > 0
    attack = read_json(root / "results/privacy/gmm.json")["spaces"]["record"]["membership_auc"]
    assert 0 <= attack["low"] <= attack["high"] <= 1


def test_the_table_and_the_page_give_the_reason(project: tuple[Path, str]) -> None:
    root, why = project
    with open(root / "results/comparison.csv", encoding="utf-8") as file:
        lines = {line["row"]: line for line in csv.DictReader(file)}
    assert set(lines) == {*ROWS, *SAMPLER_ROWS}
    for line in lines.values():
        assert line["joint_coherence"] == line["joint_coherence_low"] == ""
        lacks_others = line["row"] in (*SAMPLER_ROWS, "gmm")  # other modalities than the rows of the reference set
        assert line["joint_coherence_why"] == why or lacks_others
    page = (root / "results/report.html").read_text()
    assert "<h1>It cannot be said whether these samples can be used.</h1>" in page
    assert (f"</b> The samples have no scores: {why}." in page) == (why == ONE)
    assert f'title="{why}">–</td>' in page
    assert re.search(
        f"Some rows have no value for Joint coherence, .* and \\w+ more\\.(</summary><p>| )Reason: {why}.", page
    )


def test_a_test_that_is_switched_off_says_so(project: tuple[Path, str], tmp_path: Path) -> None:
    """Every stage runs, takes no time for the test, and the page names the setting."""
    root = tmp_path / "project"
    shutil.copytree(project[0], root)
    for folder in ("artefacts/augmentation", "results/augmentation"):
        shutil.rmtree(root / folder)
    tree = settings()
    tree["utility"]["seeds"] = tree["augment"]["sizes"] = []
    tree["privacy"] |= {"draws": 0, "attacks": 0}
    tree["imputation"]["draws"] = 0
    params = write_params(root, tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "pngs", lambda *_, **__: (bytes(24), bytes(24)))
        utility_of_real(params, root)
        evaluate_baseline_imputers(params, root)
        for of_density in (utility, privacy, evaluate_imputation):
            of_density("gmm", params, root)
        compare(params, root)
    assert read_json(root / "results/utility/gmm.json").keys() == {"samples"}
    off = {"draws": 0, "modalities": {"value": None, "why": "imputation.draws is 0"}}
    assert (
        read_json(root / "results/imputation/gmm.json") == read_json(root / "results/imputation/baselines.json") == off
    )
    found = read_json(root / "results/privacy/gmm.json")
    spaces, attacks = found["spaces"], found["attacks"]
    assert {attack["why"] for attack in attacks.values()} == {"privacy.attacks is 0"}
    assert {space["membership_auc"]["why"] for space in spaces.values()} == {"privacy.draws is 0"}
    page = (root / "results/report.html").read_text()
    for reason in (
        "The setting utility.seeds is empty",
        "The setting augment.sizes is empty",
        "privacy.draws is 0",
        "privacy.attacks is 0",
    ):
        assert reason in page
