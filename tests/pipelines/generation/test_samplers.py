"""Baseline samplers: marginals, correlations, holes and labels of the training rows; closed forms of the copula."""

import numpy as np
import pytest
from scipy import stats
from support.tables import COLUMNS

from postprior.pipelines.data.checks import check
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.samplers import SAMPLERS, normal_scores, shrunk_correlation, unsuitable
from postprior.pipelines.settings.params import SAMPLER_ROWS
from postprior.stage1_vae.modalities import Modality

TABLE = Modality("t", "table", (5,), "columns", columns=COLUMNS, partial=True)
VECTOR = Modality("v", "vector", (2,), "normal")


def people(rows: int, seed: int = 0) -> Dataset:
    """Rows with a label that determines a column, missing cells that go together, and rows without a modality."""
    rng = np.random.default_rng(seed)
    label, age = rng.integers(0, 2, rows), rng.normal(size=rows)
    cells = np.ones((rows, 5), bool)
    cells[:, 0] = cells[:, 1] = rng.random(rows) < 0.7
    group, sex, site = rng.integers(0, 3, rows), (age + 3 * label > 1.5), rng.integers(0, 4, rows)
    table = np.stack([np.exp(age), rng.poisson(4, rows), group, sex, site], 1)
    vector = np.stack([age + 0.3 * rng.normal(size=rows), -age], 1)
    mask = np.ones((rows, 2), bool)
    mask[:, 1] = rng.random(rows) < 0.8
    labels = np.where(rng.random(rows) < 0.9, label, -1)
    data = {"t": np.where(cells, table, 7).astype(np.float32), "v": np.where(mask[:, 1:], vector, 0).astype(np.float32)}
    return Dataset((TABLE, VECTOR), data, mask, {"t": cells}, labels=labels, label_names=("no", "yes"))


@pytest.mark.parametrize("name", SAMPLER_ROWS)
def test_samples_are_valid_have_training_values_and_the_same_seed_gives_the_same_bytes(name: str, tmp_path) -> None:
    train = people(500)
    drawn, again, other = (SAMPLERS[name](train, 400, seed) for seed in (3, 3, 4))
    check(tmp_path, drawn.modalities, drawn.arrays, drawn.label_names)
    for key, array in drawn.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[key])
    assert (drawn.data["t"] != other.data["t"]).any()
    seen = ~drawn.missing("t")
    for c, column in enumerate(drawn.data["t"].T):
        known = train.data["t"][~train.missing("t")[:, c], c]
        assert np.isin(column[seen[:, c]], known).all()
        assert stats.ks_2samp(column[seen[:, c]], known).statistic < 0.11
        assert (column[~seen[:, c]] == 0).all()
    for mean in (lambda d: d.missing("t").mean(0), lambda d: d.observed.mean(0), lambda d: d.labels.mean()):
        np.testing.assert_allclose(mean(drawn), mean(train), atol=0.07)


def test_the_copula_keeps_ties_and_holes_that_go_together_and_independent_columns_lose_them() -> None:
    train = people(2000)
    copula, independent = (SAMPLERS[name](train, 2000, 0) for name in SAMPLER_ROWS)

    def rank_correlation(dataset: Dataset) -> float:
        both = dataset.observed[:, 1] & ~dataset.missing("t")[:, 0]
        return float(stats.spearmanr(dataset.data["t"][both, 0], dataset.data["v"][both, 1])[0])

    assert rank_correlation(train) == pytest.approx(-1)
    assert rank_correlation(copula) < -0.95
    assert abs(rank_correlation(independent)) < 0.1
    for dataset, equal in ((train, True), (copula, True), (independent, False)):
        missing = dataset.missing("t")
        assert (missing[:, 0] == missing[:, 1]).all() == equal
        known = dataset.labels >= 0
        tied = np.corrcoef(dataset.data["t"][known, 3], dataset.labels[known])[0, 1]
        assert (tied > 0.4) == equal


def test_normal_scores_are_those_of_mean_ranks() -> None:
    x = np.array([[3.0, 1], [1, 1], [np.nan, 1], [2, 1], [2, 1]])
    ranks = stats.rankdata(x[[0, 1, 3, 4], 0])
    np.testing.assert_allclose(normal_scores(x)[[0, 1, 3, 4], 0], stats.norm.ppf((ranks - 0.5) / 4))
    np.testing.assert_array_equal(np.isnan(normal_scores(x)), np.isnan(x))
    np.testing.assert_allclose(normal_scores(x)[:, 1], 0, atol=1e-12)


def test_correlations_are_shrunk_to_nothing_without_signal_and_hardly_with_many_rows() -> None:
    rng = np.random.default_rng(0)
    z = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 5000)
    assert shrunk_correlation(z)[0, 1] == pytest.approx(np.corrcoef(z.T)[0, 1], abs=2e-3)
    noise = shrunk_correlation(rng.normal(size=(20, 100)))
    assert abs(noise - np.eye(100)).mean() < 0.05 < abs(np.corrcoef(rng.normal(size=(20, 100)).T) - np.eye(100)).mean()
    holed = np.where(rng.random(z.shape) < 0.3, np.nan, z)
    both = holed[~np.isnan(holed).any(1)]
    rescaled = (both * both[:, ::-1]).mean(0)[0] / np.sqrt((both**2).mean(0).prod())
    assert shrunk_correlation(holed)[0, 1] == pytest.approx(rescaled, abs=2e-3)


def test_other_modalities_and_too_many_columns_have_no_sampler() -> None:
    assert not unsuitable(people(9))
    image = Modality("scan", "image", (1, 2, 2), "normal")
    scans = Dataset((VECTOR, image), {"v": np.zeros((2, 2)), "scan": np.zeros((2, 1, 2, 2))})
    assert "scan is of kind image" in unsuitable(scans)
    wide = Modality("v", "vector", (3000,), "normal")
    assert "3000 columns" in unsuitable(Dataset((wide,), {"v": np.zeros((2, 3000))}))
    assert tuple(SAMPLERS) == SAMPLER_ROWS
