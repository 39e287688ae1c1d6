"""The pipeline on data without labels: every stage runs, and results contain no score of labels."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.project import small, write_params

from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.encode import encode
from postprior.pipelines.stages.evaluate import evaluate
from postprior.pipelines.stages.fit import fit
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.score_baselines import score_baselines
from postprior.pipelines.stages.train import train
from postprior.pipelines.stages.train_evaluators import train_evaluators
from postprior.pipelines.storage import file_hash, load_artefact, read_json

ABOUT_LABELS = {"coherence", "entropy", "agreement", "accuracy", "gain"}


@pytest.fixture(scope="module")
def project(trained: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """The small project without its labels, all stages run."""
    root = tmp_path_factory.mktemp("unlabelled")
    for split in ("train", "validation", "test"):
        folder = Path("artefacts/data") / split
        replace(Dataset.load(trained[0] / folder), labels=None, label_names=None).save(root / folder)
    params = write_params(root, small())
    for stage in (train_evaluators, train, encode, score_baselines):
        stage(params, root)
    for stage in (fit, generate, evaluate):
        stage("gmm", params, root)
    return root, params


def keys(tree: Any) -> set[str]:
    """Every key of a tree."""
    if not isinstance(tree, dict):
        return set()
    return set(tree) | {key for value in tree.values() for key in keys(value)}


@pytest.mark.parametrize("row", ["evaluators", "real", "reconstruction", "normal", "autoencoder", "gmm"])
def test_nothing_is_said_of_labels(project: tuple[Path, Params], row: str) -> None:
    found = read_json(project[0] / f"results/metrics/{row}.json")
    words = {word for key in keys(found) for word in key.split("_")}
    assert not words & ABOUT_LABELS
    assert found.get("labels_from") is None


def test_fidelity_and_coherence_without_labels_remain(project: tuple[Path, Params]) -> None:
    rows = {name: read_json(project[0] / f"results/metrics/{name}.json") for name in ("real", "normal", "gmm")}
    scores = {
        "frechet_distance",
        "joint_kernel_distance",
        "precision",
        "coverage",
        "pairing_auc",
        "incoherence",
    }
    for row in rows.values():
        assert all(row[name]["low"] <= row[name]["value"] <= row[name]["high"] for name in scores)
        assert set(row["gap_closed"]) == set(row["difference_to_normal"]) == {"frechet_distance"}
    assert rows["real"]["incoherence"] == {"value": 0, "low": 0, "high": 0}
    assert rows["real"]["pairing_auc"]["value"] > 0.6
    assert rows["gmm"]["incoherence"]["value"] == pytest.approx(
        rows["real"]["pairing_auc"]["value"] - rows["gmm"]["pairing_auc"]["value"]
    )


def test_synthetic_data_have_no_labels_either(project: tuple[Path, Params]) -> None:
    made = Dataset.load(project[0] / "artefacts/synthetic/gmm")
    assert made.labels is made.label_names is made.provenance["labels_from"] is None
    assert load_evaluators(project[0] / "artefacts/evaluators").classifiers is None
    assert read_json(project[0] / "results/metrics/evaluators.json")["extractor"] == "pca"


def test_what_has_no_labels_is_drawn_without_judges(project: tuple[Path, Params], tmp_path: Path) -> None:
    root, params = project
    for part in ("autoencoder", "data", "densities"):
        shutil.copytree(root / "artefacts" / part, tmp_path / "artefacts" / part)
    generate("gmm", params, tmp_path)
    drawn, expected = (Dataset.load(of / "artefacts/synthetic/gmm") for of in (tmp_path, root))
    assert drawn.hash == expected.hash
    shutil.rmtree(tmp_path / "artefacts/data")  # so that nothing tells whether the data has labels
    with pytest.raises(UserError, match="artefacts/evaluators"):
        generate("gmm", params, tmp_path)


def test_the_same_data_give_the_same_bytes(project: tuple[Path, Params], tmp_path: Path) -> None:
    root, params = tmp_path / "project", project[1]
    shutil.copytree(project[0], root)
    folders = ("evaluators", "baselines", "evaluation/gmm")
    kept = [path for folder in folders for path in (root / "artefacts" / folder).iterdir()]
    kept += (root / "results/metrics").iterdir()
    before = {path: file_hash(path) for path in kept}
    for stage in (train_evaluators, score_baselines):
        stage(params, root)
    evaluate("gmm", params, root)
    assert {path: file_hash(path) for path in kept} == before


def test_parts_are_completed_for_the_page_without_labels_too(project: tuple[Path, Params]) -> None:
    arrays = load_artefact(project[0] / "artefacts/evaluation/gmm", "evaluation").arrays
    assert {"grid.observed", "grid.m0", "grid.real.m0", "scores.pairing_auc"} <= set(arrays)


def test_a_classifier_cannot_be_the_extractor(project: tuple[Path, Params], tmp_path: Path) -> None:
    shutil.copytree(project[0] / "artefacts/data", tmp_path / "artefacts/data")
    params = write_params(tmp_path, small(evaluators__extractor="classifier"))
    with pytest.raises(UserError, match=r"evaluators\.extractor: found 'classifier', which learns from labels"):
        train_evaluators(params, tmp_path)
