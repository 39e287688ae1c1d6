"""The stage `evaluate-imputation`: hidden values, their scores, and the baseline imputers."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.baseline_imputers import baseline_imputers, learned_rows, missing_on_failure
from postprior.pipelines.generation.imputation import HiddenValues, ImputationBenchmark
from postprior.pipelines.metrics.features.scale import Scale
from postprior.pipelines.metrics.imputation import imputers
from postprior.pipelines.metrics.imputation.scores import by_row, compared, estimated
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.evaluate_imputation import evaluate_baseline_imputers, evaluate_imputation
from postprior.pipelines.storage import read_json
from postprior.stage1_vae.modalities import Column, Modality

Project = tuple[Path, Params]
COLUMNS = (Column("age", "normal"), Column("site", "categorical", 3), Column("visits", "negative_binomial"))
MODALITIES = (
    Modality("table", "table", (3,), "columns", columns=COLUMNS),
    Modality("vector", "vector", (4,), "normal"),
    Modality("image", "image", (1, 4, 4), "laplace", (0, 1)),
)


def rows(n: int = 200) -> Dataset:
    rng = np.random.default_rng(0)
    table = np.stack([rng.normal(size=n), rng.integers(3, size=n), rng.poisson(3, n)], 1)
    data = {"table": table, "vector": rng.normal(size=(n, 4)), "image": rng.random((n, 1, 4, 4))}
    mask = rng.random((n, 3)) < 0.8
    mask[~mask.any(1)] = True
    cells = {"vector": rng.random((n, 4)) < 0.8}
    return Dataset(MODALITIES, {k: v.astype(np.float32) for k, v in data.items()}, mask=mask, cells=cells)


def task(of: str) -> tuple[Dataset, HiddenValues]:
    data = rows()
    scales = tuple(Scale.fit(data, m) for m in MODALITIES)
    return data, HiddenValues.hide(of, data, scales, 0.3, np.random.default_rng(1))


def test_each_row_loses_one_modality_that_it_has() -> None:
    data, found = task("modalities")
    assert data.mask is not None
    assert found.incomplete.mask is not None
    lost = data.mask & ~found.incomplete.mask
    assert not (found.incomplete.mask & ~data.mask).any()
    np.testing.assert_array_equal(lost.sum(1), (data.mask.sum(1) > 1).astype(int))
    np.testing.assert_array_equal(found.rows, np.flatnonzero(lost.any(1)))
    seen = data.cells["vector"]
    np.testing.assert_array_equal(found.hidden_features[1], lost[:, [1]] & seen)  # cells that were missing are no truth


def test_cells_of_tables_and_vectors_are_hidden_and_one_stays() -> None:
    data, found = task("cells")
    np.testing.assert_array_equal(found.incomplete.observed, data.observed)
    assert not found.hidden_features[2].any()
    for name in ("table", "vector"):
        cells = found.incomplete.cells[name]
        before = data.cells.get(name, np.ones_like(cells))
        assert not (cells & ~before).any()
        assert cells[before.any(1)].any(1).all()
    share = (before & ~found.incomplete.cells["vector"]).sum() / before.sum()
    assert 0.15 < share < 0.3
    table = found.hidden_features[0]  # features: age, visits, three classes of a site, which are hidden together
    assert (table[:, 2:] == table[:, 2:3]).all()


def test_scores_see_hidden_features_alone() -> None:
    data, found = task("cells")
    truth = found.features(data)
    rng = np.random.default_rng(0)

    def filled(m: int, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        noise = rng.normal(size=(19, *truth[m][some].shape))
        return truth[m][some] + noise, np.where(found.hidden_features[m], truth[m] + 0.5, 99)[some]

    scores = found.scores(filled)
    lost = found.hidden_features[1].sum(1)
    np.testing.assert_allclose(scores["rmse"][lost > 0, 1], 0.25 * lost[lost > 0], rtol=1e-5)
    assert np.isnan(scores["rmse"][:, 2]).all()
    assert scores["energy_score"][lost == 1, 1].mean() < scores["energy_score"][lost == 3, 1].mean()
    assert np.nanmean(scores["coverage"][:, 1]) > 0.99  # all nineteen draws on one side of the value are rare
    assert np.nanmean(by_row(scores["rmse"])) > 0


@pytest.fixture(scope="module")
def project(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    root, params = trained
    folder = tmp_path_factory.mktemp("recover") / "project"
    shutil.copytree(root, folder)
    small = replace_draws(params, 19)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imputers, "ROUNDS", 1)
        evaluate_baseline_imputers(small, folder)
        evaluate_imputation("gmm", small, folder)
    return folder, small


def read(root: Path, name: str) -> dict[str, Any]:
    return read_json(root / f"results/imputation/{name}.json")


def test_densities_are_compared_with_baseline_imputers(project: Project) -> None:
    root, _ = project
    theirs, ours = read(root, "baselines")["modalities"], read(root, "gmm")["modalities"]
    assert set(theirs) == {"mean", "neighbours", "iterative", "mice", "forest"} == set(ours["against"])
    for name in ("mice", "forest"):  # all modalities are images
        reason = {"value": None, "why": "no modality is a table or a vector"}
        assert theirs.pop(name)["energy_score"] == ours["against"].pop(name)["energy_score"] == reason
    assert ours["rows"] == 120
    assert set(ours["modalities"]) == {f"m{m}" for m in range(5)}
    assert theirs["mean"]["coverage"]["value"] < 0.05
    for scores in (ours, *theirs.values(), *ours["modalities"].values()):
        for key in ("energy_score", "rmse", "coverage"):
            assert scores[key]["low"] <= scores[key]["value"] <= scores[key]["high"]
    for name, difference in ours["against"].items():
        expected = ours["energy_score"]["value"] - theirs[name]["energy_score"]["value"]
        assert difference["energy_score"]["value"] == pytest.approx(expected)
        expected = ours["rmse"]["value"] / theirs[name]["rmse"]["value"]
        assert difference["rmse_ratio"]["value"] == pytest.approx(expected)
    assert 0.8 < ours["coverage"]["value"] < 0.97
    assert 0 <= ours["label_agreement"]["value"] <= 1
    assert set(ours["spread"]) == {f"m{m}" for m in range(5)}


def test_the_same_settings_give_the_same_bytes(project: Project, tmp_path: Path) -> None:
    root, params = project
    copy = shutil.copytree(root, tmp_path / "again")
    path = copy / "results/imputation/gmm.json"
    before = path.read_bytes()
    path.unlink()
    evaluate_imputation("gmm", params, copy)
    assert path.read_bytes() == before


def test_baselines_of_other_settings_are_refused(project: Project) -> None:
    root, params = project
    other = replace_draws(params, 21)
    with pytest.raises(UserError, match="run postprior evaluate-imputation --baselines"):
        evaluate_imputation("gmm", other, root)


def replace_draws(params: Params, draws: int) -> Params:
    return params.model_copy(update={"imputation": params.imputation.model_copy(update={"draws": draws})})


def test_baseline_imputers_use_the_labels_of_rows(trained: Project) -> None:
    """A vector depends on the label alone: who uses it makes no error; a row without a label gets the mean at best."""
    _, params = trained
    rng = np.random.default_rng(0)
    modalities = MODALITIES[1], replace(MODALITIES[1], name="other")

    def split(n: int, lost: int = 0) -> Dataset:
        labels = rng.permutation(np.arange(n) % 2)
        vector, noise = labels[:, None] + np.zeros((n, 4)), rng.normal(size=(n, 4))
        labels[:lost] = -1
        data = {"vector": vector.astype(np.float32), "other": noise.astype(np.float32)}
        return Dataset(modalities, data, labels=labels, label_names=("a", "b"))

    splits = {"train": split(100), "validation": split(40), "test": split(60, lost=20)}
    benchmark = ImputationBenchmark.from_splits(splits, replace_draws(params, 19))
    _, trials = baseline_imputers(benchmark, 0)
    for name in ("neighbours", "iterative", "mice", "forest"):
        scores = trials[name]()
        assert not isinstance(scores, Missing)
        error = np.sqrt(scores["modalities"]["rmse"][:, 0])
        assert np.nanmean(error[20:]) < 0.1 < 0.8 < np.nanmean(error[:20]), name


def test_imputers_learn_from_a_random_subset_of_many_rows(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 rows of 25 features, 40 have 1,000 features; the results say so."""
    splits = {"train": rows(), "validation": rows(40), "test": rows(30)}
    benchmark = ImputationBenchmark.from_splits(splits, replace_draws(trained[1], 19))
    assert learned_rows(benchmark, 0) is benchmark.train
    assert "training_rows" not in baseline_imputers(benchmark, 0)[0]
    monkeypatch.setattr("postprior.pipelines.generation.baseline_imputers.FEATURES", 1000)
    numbers, trials = baseline_imputers(benchmark, 0)
    assert numbers["training_rows"] == 40 == len(learned_rows(benchmark, 0))
    assert not isinstance(trials["neighbours"](), Missing)
    others = [learned_rows(benchmark, seed).data["vector"][0] for seed in (0, 0, 1)]
    assert (others[0] == others[1]).all()
    assert (others[0] != others[2]).any()


def test_rows_of_one_modality_lose_none() -> None:
    data = replace(rows(), mask=np.tile([True, False, False], (200, 1)))
    scales = tuple(Scale.fit(rows(), m) for m in MODALITIES)
    assert not len(HiddenValues.hide("modalities", data, scales, 0.3, np.random.default_rng(1)).rows)


def test_an_imputer_that_fails_is_a_row_with_the_reason(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, params = project
    copy = shutil.copytree(root, tmp_path / "again")

    def diverge(self: imputers.Iterative, rows: np.ndarray, rng: np.random.Generator) -> imputers.Iterative:
        raise ValueError("Input X contains NaN.\nIterativeImputer does not accept missing values encoded as NaN.")

    def infinite(*_: Any) -> imputers.FillBlock:
        return lambda m, some: tuple(np.full((*shape, len(some), 3072 // 4), np.inf) for shape in ((19,), ()))

    monkeypatch.setattr(imputers.Iterative, "fit", diverge)
    monkeypatch.setattr(imputers.Mean, "filled", infinite)
    evaluate_baseline_imputers(params, copy)
    evaluate_imputation("gmm", params, copy)
    theirs, ours = read(copy, "baselines")["modalities"], read(copy, "gmm")["modalities"]
    failed = {"value": None, "why": "it failed on this data: Input X contains NaN"}
    assert theirs["iterative"]["energy_score"] == theirs["iterative"]["rmse"] == failed
    assert ours["against"]["iterative"] == {"energy_score": failed, "rmse_ratio": failed}
    assert theirs["mean"]["coverage"] == {"value": None, "why": "values imputed for m0 are not finite"}
    before = read(root, "baselines")["modalities"]
    assert theirs["neighbours"]["rows"] == before["neighbours"]["rows"]
    assert ours["energy_score"] == read(root, "gmm")["modalities"]["energy_score"]


def test_failures_are_reported_by_their_first_clause() -> None:
    def fail() -> None:
        raise ValueError("n_components must be positive. Got 0 instead.")

    assert missing_on_failure(fail) == Missing("it failed on this data: n_components must be positive")
    assert missing_on_failure(lambda: 3) == 3
    with pytest.raises(KeyError):
        missing_on_failure(lambda: {}["nothing"])


def test_a_score_without_hidden_values_is_missing() -> None:
    weights = np.ones((4, 3))
    nothing = np.full(3, np.nan)
    assert estimated(nothing, weights, "coverage")["why"] == "no number was hidden, only counts and classes"
    assert estimated(np.array([0.0, np.nan, 1.0]), weights, "coverage")["value"] == 0.5


def test_an_imputer_without_error_leaves_no_ratio() -> None:
    found = {"energy_score": np.ones((4, 1)), "rmse": np.ones((4, 1))}
    exact = {"energy_score": np.zeros((4, 1)), "rmse": np.zeros((4, 1))}
    told = compared(found, exact, np.ones((3, 4)))
    assert told["energy_score"]["value"] == 1
    assert told["rmse_ratio"] == {"value": None, "why": "the baseline imputer makes no error"}
