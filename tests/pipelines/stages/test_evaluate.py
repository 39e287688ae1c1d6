"""The stages `score-baselines` and `evaluate` on a small trained project, and the mistakes that they refuse."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from postprior.pipelines.artefacts.baselines import Baselines
from postprior.pipelines.artefacts.codes import load_codes, posteriors
from postprior.pipelines.artefacts.density import load_density
from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.conditional_scores import grid
from postprior.pipelines.generation.memorisation import check_memorisation
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.metrics.statistics.intervals import estimate
from postprior.pipelines.scoring.baselines import split_test_rows, subjects_of
from postprior.pipelines.scoring.evaluation import facts, scored_rows
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.evaluate import evaluate
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.score_baselines import score_baselines
from postprior.pipelines.storage import file_hash, load_artefact, read_json
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES

Project = tuple[Path, Params]


def test_samples_are_scored_with_the_patterns_of_the_reference_set() -> None:
    """The first samples with each pattern, and the first others for patterns that too few samples have."""
    rng = np.random.default_rng(0)
    kinds = np.array([[1, 0], [0, 1], [1, 1]], bool)
    reference, drawn = kinds[rng.permutation([0] * 5 + [1] * 4 + [2] * 3)], kinds[rng.permutation([0] * 30 + [1] * 2)]
    modalities = tuple(Modality(name, "vector", (1,), "normal") for name in ("a", "b"))
    values = {m.name: np.arange(32, dtype=np.float32)[:, None] for m in modalities}
    samples = Dataset(modalities, values, mask=drawn, provenance={"labels_from": "density"})
    only_a, only_b = np.flatnonzero(drawn[:, 0]), np.flatnonzero(drawn[:, 1])
    expected = np.sort([*only_a[:10], *only_b])  # 12 rows: 5 of a, both of b, and 5 more of a
    assert scored_rows(samples, reference).data["a"][:, 0].tolist() == expected.tolist()
    whole = scored_rows(replace(samples, mask=None), np.ones((12, 2), bool))
    assert whole.data["a"][:, 0].tolist() == [*range(12)]


@pytest.fixture(scope="module")
def project(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the trained project with synthetic datasets of both densities and all scores."""
    root = tmp_path_factory.mktemp("evaluated") / "project"
    shutil.copytree(trained[0], root)
    score_baselines(trained[1], root)
    for name in ("gmm", "normal"):
        generate(name, trained[1], root)
    evaluate("gmm", trained[1], root)
    return root, trained[1]


@pytest.fixture
def copy(project: Project, tmp_path: Path) -> Project:
    """A copy of the project that a test may break."""
    shutil.copytree(project[0], tmp_path / "project")
    return tmp_path / "project", project[1]


def read(root: Path, row: str) -> dict[str, Any]:
    return read_json(root / f"results/metrics/{row}.json")


def test_every_row_has_the_same_scores_at_the_same_number_of_samples(project: Project) -> None:
    rows = {name: read(project[0], name) for name in ("normal", "reconstruction", "real", "gmm")}
    estimates = {"joint_coherence", "pairwise_coherence", "label_entropy", "frechet_distance"}
    estimates |= {"precision", "recall", "density", "coverage"}
    for row in rows.values():
        assert estimates | {"modalities", "gap_closed", "difference_to_normal", "label_agreement"} <= set(row)
        assert all(row[name]["low"] <= row[name]["value"] <= row[name]["high"] for name in estimates)
        for comparison in ("gap_closed", "difference_to_normal"):
            assert set(row[comparison]) == {"joint_coherence", "frechet_distance"}
    assert len({row["samples"] for row in rows.values()}) == 1
    assert {name: row["labels_from"] for name, row in rows.items()} == {
        "normal": "judges",
        "reconstruction": "data",
        "real": "data",
        "gmm": "density",
    }


def test_labels_from_the_classifiers_are_not_compared_with_themselves(copy: Project) -> None:
    root, params = copy
    without = {"value": None, "why": "the label classifiers assigned the labels of these samples"}
    assert read(root, "normal")["label_agreement"] == without
    (root / "results/metrics/normal.json").unlink()
    evaluate("normal", params, root)
    again = read(root, "normal")
    assert again["label_agreement"] == without
    assert again["labels_from"] == "judges"
    assert again["stores_training_codes"] is False


def test_labels_that_a_density_drew_are_compared_with_those_that_samples_show(project: Project) -> None:
    root, _ = project
    row = read(root, "gmm")
    samples = Dataset.load(root / "artefacts/synthetic/gmm").select(np.arange(row["samples"]))
    shown = load_evaluators(root / "artefacts/evaluators").outputs(samples).predictions
    assert shown is not None
    assert samples.labels is not None
    right = shown == samples.labels[:, None]
    assert 0 < right.mean() < 1
    assert row["label_agreement"]["value"] == pytest.approx(right.mean())
    own = {name: scores["label_agreement"]["value"] for name, scores in row["modalities"].items()}
    assert own == pytest.approx({m.name: right[:, i].mean() for i, m in enumerate(samples.modalities)})


def test_a_density_brings_its_likelihood(project: Project) -> None:
    root, _ = project
    assert set(read(root, "gmm")["log_likelihood"]) == {"train", "validation", "test"}
    assert set(read(root, "normal")["log_likelihood"]) == {"test"}
    assert "log_likelihood" not in read(root, "real")


def test_modalities_are_generated_through_a_density(copy: Project) -> None:
    root, params = copy
    found = read(root, "gmm")
    for group in ("conditional_coherence", "conditional_gain"):
        assert list(found[group]) == ["1", "2", "3", "4"]
        assert all(each["low"] <= each["value"] <= each["high"] for each in found[group].values())
    assert 1 / 16 < found["effective_sample_share"]["value"] < 1
    evaluate("normal", params, root)
    own = read(root, "normal")
    assert all(each["value"] == 0 for each in own["conditional_gain"].values())
    assert own["effective_sample_share"]["value"] == pytest.approx(1)


def test_facts_about_the_fit_and_the_draws_are_written(project: Project) -> None:
    root, params = project
    manifest = load_artefact(root / "artefacts/densities/gmm", "density").manifest
    found = read(root, "gmm")
    likelihood = found["log_likelihood"]
    assert found["overfitting"] == likelihood["train"] - likelihood["validation"]
    assert found["rows"] == {"used": 300, "left_out": 0, "incomplete": 0}
    train, test = (load_codes(root / "artefacts/codes" / split) for split in ("train", "test"))
    density = load_density(root / "artefacts/densities/gmm")
    assert found["memorisation"] == check_memorisation("gmm", density, manifest, train, test, params.seed)
    assert not {"bound", "temperature", "truncation", "why"} & set(found)
    synthetic = Dataset.load(root / "artefacts/synthetic/gmm")
    drawn = synthetic.provenance | {"temperature": 0.7, "truncation": 0.1, "stores_training_codes": True}
    known = {"log_likelihood": {}, "bound": True, "learned": {"why": "It is the best."}}
    assert facts(replace(synthetic, provenance=drawn), known) == {
        "labels_from": "density",
        "stores_training_codes": True,
        "bound": True,
        "temperature": 0.7,
        "truncation": 0.1,
        "why": "It is the best.",
    }


def test_half_samples_of_every_score_are_kept_for_paired_tests(project: Project) -> None:
    arrays = load_artefact(project[0] / "artefacts/evaluation/gmm", "evaluation").arrays
    baselines, found = Baselines.load(project[0] / "artefacts/baselines"), read(project[0], "gmm")
    names = {name.removeprefix("scores.") for name in arrays if name.startswith("scores.")}
    assert {"joint_coherence", "label_entropy", "frechet_distance", "pairing_auc", "coverage"} <= names
    for name in names:
        assert arrays[f"scores.{name}"].shape == (21,)
        assert arrays[f"scores.{name}"][0] == found[name]["value"]
    compared = set(baselines.scores["normal"])
    assert compared <= names
    for row in ("real", "normal", "reconstruction"):
        assert set(baselines.scores[row]) == compared
        for name in compared:
            assert baselines.scores[row][name][0] == pytest.approx(read(project[0], row)[name]["value"])


def test_the_grid_completes_the_same_parts_of_the_same_rows_for_every_density(copy: Project) -> None:
    root, params = copy
    evaluate("normal", params, root)
    one, other = (
        load_artefact(root / f"artefacts/evaluation/{name}", "evaluation").arrays for name in ("gmm", "normal")
    )
    observed = one["grid.observed"]
    assert observed.shape == (4, 4, 5)
    assert (observed.sum(2) == [1, 2, 3, 4]).all()
    assert (observed[:, 1:] >= observed[:, :-1]).all()  # the set of given modalities grows
    assert (other["grid.observed"] == observed).all()
    test = Dataset.load(root / "artefacts/data/test")
    rows = Baselines.load(root / "artefacts/baselines").real[:4]
    for index, name in enumerate(f"m{index}" for index in range(5)):
        real, shown = one[f"grid.real.{name}"], one[f"grid.{name}"]
        assert shown.shape == (4, 4, 3, 16, 16)
        assert (real == test.data[name][rows]).all()
        assert (other[f"grid.real.{name}"] == real).all()
        here = observed[..., index]
        assert (shown[here] == np.repeat(real[:, None], 4, 1)[here]).all()
        assert (shown[~here] != np.repeat(real[:, None], 4, 1)[~here]).any((1, 2, 3)).all()
    assert sum(path.stat().st_size for path in (root / "artefacts/evaluation/gmm").iterdir()) < 1e6


def test_the_autoencoder_is_scored_by_itself(project: Project) -> None:
    scores = read(project[0], "autoencoder")
    assert list(scores["conditional_coherence"]) == ["1", "2", "3", "4"]
    likeness = {"ssim", "psnr", "l1"}
    assert set(scores["modalities"]["m0"]) == {"accuracy", "correlation", "reconstruction_error"} | likeness
    assert scores["reconstruction_error"]["value"] > 0
    assert 0 <= scores["dead_dimensions"] <= scores["dimensions"] == 4


def test_the_same_settings_give_the_same_bytes(copy: Project) -> None:
    root, params = copy
    folders = ("artefacts/baselines", "artefacts/evaluation/gmm", "results/metrics")
    kept = [path for folder in folders for path in (root / folder).iterdir()]
    before = {path: file_hash(path) for path in kept}
    score_baselines(params, root)
    evaluate("gmm", params, root)
    assert {path: file_hash(path) for path in kept} == before


def test_rows_are_paired_by_half_sample(project: Project) -> None:
    baselines = Baselines.load(project[0] / "artefacts/baselines")
    assert len(baselines) == read(project[0], "gmm")["samples"]
    assert baselines.weights.shape[0] == 21
    distance = {name: baselines.scores[name]["frechet_distance"] for name in ("reconstruction", "normal")}
    difference = distance["reconstruction"] - distance["normal"]
    assert read(project[0], "reconstruction")["difference_to_normal"]["frechet_distance"] == estimate(difference)


def test_halves_share_no_source_and_have_equal_shares_of_every_pattern(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    test = Dataset.load(project[0] / "artefacts/data/test")
    mask = np.ones((len(test), 5), bool)
    mask[:10, 2] = False
    first, second = split_test_rows(replace(test, mask=mask), np.random.default_rng(0))
    assert "10 of 120 test rows lack a modality" in capsys.readouterr().err
    lacking = [mask[half].all(1) for half in (first, second)]
    assert all((np.diff(complete.astype(int)) <= 0).all() for complete in lacking)  # complete rows first
    assert abs(len(first) - lacking[0].sum() - len(second) + lacking[1].sum()) <= 3  # of a few sources
    assert test.groups is not None
    assert not set(test.groups[first]) & set(test.groups[second])
    assert len(first) == len(second)


def test_imported_subjects_with_several_rows_are_told(project: Project) -> None:
    test = Dataset.load(project[0] / "artefacts/data/test")
    groups = np.arange(len(test)) // 3
    groups[:2] = -1, -2  # two subjects of one row each, and the third row of their former subject
    imported = replace(test, groups=groups, conversion={"groups": {"name": "patient", "type": "string"}})
    assert subjects_of(imported)[0].startswith(f"{len(test) - 3} of the {len(test)} test rows share their subject")
    assert subjects_of(replace(imported, groups=np.arange(len(test)))) == subjects_of(test) == []


def test_one_source_cannot_be_halved(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    test = Dataset.load(project[0] / "artefacts/data/test")
    first, second = split_test_rows(replace(test, groups=np.zeros(len(test), int)), np.random.default_rng(0))
    assert len(first) == len(second) == 0
    assert "there are no test rows in each half of the sources" in capsys.readouterr().err


def test_fewer_rows_than_modalities_have_distances_and_pairings(copy: Project) -> None:
    root, params = copy
    few = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"neighbours": 1})})
    Dataset.load(root / "artefacts/data/test").select(np.arange(8)).save(root / "artefacts/data/test")
    score_baselines(few, root)
    for name in ("real", "reconstruction", "normal"):
        found = read(root, name)
        assert found["frechet_distance"]["value"] > 0
        assert found["precision"]["value"] is not None
        assert 0 <= found["pairing_auc"]["value"] <= 1


def test_too_few_rows_for_neighbours_are_reported(copy: Project) -> None:
    root, params = copy
    Dataset.load(root / "artefacts/data/test").select(np.arange(10)).save(root / "artefacts/data/test")
    score_baselines(params, root)
    assert read(root, "real")["coverage"] == {
        "value": None,
        "why": "5 neighbours need more than 5 rows, found 5",
    }
    assert read(root, "real")["joint_coherence"]["low"] is not None


def test_a_synthetic_set_that_is_too_small_is_refused(copy: Project) -> None:
    root, params = copy
    generate("gmm", params, root, SampleRequest(7))
    with pytest.raises(UserError, match="found 7 samples"):
        evaluate("gmm", params, root)


@pytest.mark.parametrize(
    ("artefact", "key", "sentence"),
    [
        ("synthetic/gmm", "density", "run postprior generate again"),
        ("baselines", "autoencoder", "run postprior score-baselines again"),
        ("baselines", "judges", "run postprior score-baselines again"),
        ("data/test", "source", "test data .* run postprior score-baselines again"),
    ],
)
def test_artefacts_of_another_origin_are_refused(copy: Project, artefact: str, key: str, sentence: str) -> None:
    root, params = copy
    path = root / "artefacts" / artefact / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.get("provenance", manifest)[key] = "0" * 64
    path.write_text(json.dumps(manifest))
    before = file_hash(root / "results/metrics/gmm.json")
    with pytest.raises(UserError, match=sentence):
        evaluate("gmm", params, root)
    assert file_hash(root / "results/metrics/gmm.json") == before


@pytest.mark.parametrize(("side", "rows", "shown"), [(64, 3, 64), (512, 1, 128)])
def test_the_grid_of_large_images_stays_small(project: Project, side: int, rows: int, shown: int) -> None:
    large = (Modality("a", "image", (3, side, side), "laplace"), Modality("b", "vector", (2,), "normal"))
    model = MODELS["mvtcae"](large, latent=2, width=2, seed=0)
    values = {m.name: np.random.default_rng(0).normal(size=(3, *m.shape)).astype(np.float32) for m in large}
    dataset = Dataset(large, values)
    codes = posteriors(model, dataset, 1, torch.Generator().manual_seed(0))
    arrays = grid(model, DENSITIES["normal"]().fit(codes), dataset, 0)
    assert arrays["grid.a"].shape == (rows, 1, 3, shown, shown)
    assert arrays["grid.observed"].shape == (rows, 1, 2)
    assert set(arrays) == {"grid.observed", "grid.a", "grid.real.a"}
    assert sum(array.nbytes for array in arrays.values()) < 1e6
