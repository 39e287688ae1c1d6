"""The stage `utility`: classifiers trained on real rows and on samples, and what it refuses."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project as DataProject
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.scoring.utility import (
    about,
    classifiers_of,
    draw_samples,
    load_real_classifiers,
    score_both_ways,
)
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.utility import utility, utility_of_real
from postprior.pipelines.storage import file_hash, load_artefact, read_json

Project = tuple[Path, Params]
NAMES = [f"m{index}" for index in range(5)]


@pytest.fixture(scope="module")
def project(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the trained project with the utility of real data and of a density."""
    root = tmp_path_factory.mktemp("useful") / "project"
    shutil.copytree(trained[0], root)
    utility_of_real(trained[1], root)
    utility("gmm", trained[1], root)
    return root, trained[1]


def test_samples_and_real_rows_are_equal_in_number(project: Project) -> None:
    root, _ = project
    real, gmm = (read_json(root / f"results/utility/{name}.json") for name in ("real", "gmm"))
    assert set(real) == {"train_real_test_real", "samples"}
    for scores in (
        real["train_real_test_real"],
        gmm["train_synthetic_test_real"],
        gmm["train_real_test_synthetic"],
    ):
        assert set(scores) == {"joint", "mean", "modalities"}
        assert list(scores["modalities"]) == NAMES
        assert 0 <= scores["joint"]["low"] <= scores["joint"]["value"] <= scores["joint"]["high"] <= 1
    assert real["samples"] == gmm["samples"] == {"train": 300, "test": 120}
    assert gmm["labels_from"] == "density"


def test_the_ratio_is_that_of_the_hits_of_all_seeds(project: Project) -> None:
    root, params = project
    folder = root / "artefacts/utility"
    hits = {name: load_artefact(folder / name, "utility").arrays["hits"] for name in ("real", "gmm")}
    assert hits["real"].shape == (len(params.utility.seeds), 6, 120)
    ratio = read_json(root / "results/utility/gmm.json")["ratio_to_real"]
    assert ratio["joint"]["value"] == pytest.approx(hits["gmm"][:, 0].mean() / hits["real"][:, 0].mean())
    assert ratio["modalities"]["m3"]["value"] == pytest.approx(hits["gmm"][:, 4].mean() / hits["real"][:, 4].mean())


def test_the_classifiers_of_real_rows_are_stored(project: Project) -> None:
    root, params = project
    train, test = (Dataset.load(root / "artefacts/data" / split) for split in ("train", "test"))
    known = load_real_classifiers(root / "artefacts/utility/real", {"data": train.hash})
    for index, seed in enumerate(params.utility.seeds):
        again = classifiers_of(known, seed, train, params).hits(test)
        assert (again == known.arrays["hits"][index]).all()


def test_the_same_inputs_give_the_same_bytes(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project[0], tmp_path / "project")
    files = ["results/utility/gmm.json", "artefacts/utility/gmm/manifest.json"]
    before = [file_hash(tmp_path / "project" / file) for file in files]
    utility("gmm", project[1], tmp_path / "project")
    assert [file_hash(tmp_path / "project" / file) for file in files] == before


def test_label_classifiers_label_the_samples_of_a_density_without_labels(project: Project) -> None:
    root, params = project
    generator = Generator.load(root / "artefacts/densities/normal")
    classifiers = load_evaluators(root / "artefacts/evaluators")
    samples = draw_samples(generator, classifiers, 30, 1, params)
    assert samples.provenance["labels_from"] == "judges"
    assert samples.labels is not None
    assert len(samples) == 30
    known = draw_samples(Generator.load(root / "artefacts/densities/gmm"), None, 30, 1, params)
    assert known.provenance["labels_from"] == "density"


def test_no_more_samples_are_drawn_than_training_can_use(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps of ten rows use sixty samples, as few as they use of the real rows."""
    root, params = project
    drawn: list[int] = []

    def draw(*arguments: Any) -> Dataset:
        drawn.append(arguments[2])
        return draw_samples(*arguments)

    monkeypatch.setattr("postprior.pipelines.scoring.utility.draw_samples", draw)
    few = params.model_copy(update={"utility": params.utility.model_copy(update={"batch_size": 10})})
    generator, train, test = Generator.load(root / "artefacts/densities/gmm"), *DataProject(root).train_and_test()
    real = load_real_classifiers(root / "artefacts/utility/real", about(params, train, test))
    score_both_ways("gmm", generator, None, real, train, test, few)
    assert drawn == [60, 60]  # two seeds


def test_classifiers_with_other_settings_are_refused(project: Project) -> None:
    root, params = project
    longer = params.model_copy(update={"utility": params.utility.model_copy(update={"steps": 30})})
    with pytest.raises(UserError, match="steps 6, expected 30"):
        utility("gmm", longer, root)


def test_without_labels_there_is_nothing_to_learn(project: Project, tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = Dataset.load(project[0] / "artefacts/data" / split).select(np.arange(20))
        replace(rows, labels=None, label_names=None).save(tmp_path / "artefacts/data" / split)
    utility_of_real(project[1], tmp_path)
    utility("gmm", project[1], tmp_path)
    for name in ("real", "gmm"):
        assert read_json(tmp_path / f"results/utility/{name}.json") == {"samples": {"train": 20, "test": 20}}
        assert load_artefact(tmp_path / f"artefacts/utility/{name}", "utility").arrays == {}
