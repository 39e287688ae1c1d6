"""Closest training records: brute force, missing modalities, and scales with equal weight of modalities and columns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.scale import Scale, points_of
from postprior.pipelines.metrics.statistics import neighbours as module
from postprior.pipelines.metrics.statistics.neighbours import Points, closest
from postprior.stage1_vae.modalities import Column, Modality

WIDTHS = (3, 5)
TABLE = Modality(
    "record",
    "table",
    (4,),
    "columns",
    columns=(
        Column("age", "normal"),
        Column("city", "categorical", 3),
        Column("visits", "negative_binomial"),
        Column("same", "normal"),
    ),
)


def points(n: int, seed: int, observed: np.ndarray | None = None) -> tuple[Points, list[np.ndarray]]:
    """Return rows of two synthetic modalities, and their values."""
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=(n, width)).astype(np.float32) for width in WIDTHS]
    parts = tuple(lambda rows, v=v: torch.from_numpy(v[rows]) for v in values)
    everywhere = np.ones((n, len(WIDTHS)), bool)
    return Points(("a", "b"), parts, everywhere if observed is None else observed, sum(WIDTHS)), values


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.sqrt(((left[:, None].astype(float) - right.astype(float)) ** 2).sum(-1))


def people(n: int, seed: int = 0) -> Dataset:
    """Return rows with an image, a vector with entries on different scales, and a table with a constant column."""
    rng = np.random.default_rng(seed)
    modalities = (
        Modality("photo", "image", (2, 3, 4), "normal"),
        Modality("vector", "vector", (2,), "normal"),
        TABLE,
    )
    columns = [rng.normal(40, 9, n), rng.integers(0, 3, n), rng.poisson(4, n), np.full(n, 7.0)]
    data = {
        "photo": rng.normal(size=(n, 2, 3, 4)),
        "vector": rng.normal(size=(n, 2)) * [1, 1000],
        "record": np.stack(columns, 1),
    }
    return Dataset(modalities, {name: values.astype(np.float32) for name, values in data.items()})


def scaled(data: Dataset, by: Dataset) -> Points:
    return points_of(data, tuple(Scale.fit(by, m) for m in by.modalities))


@pytest.mark.parametrize("rows", [7, 1024])
def test_the_closest_record_is_that_of_all_distances(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(module, "ROWS", rows)
    queries, x = points(40, 0)
    records, t = points(90, 1)
    found = closest(queries, records)
    squares = {"a": distances(x[0], t[0]) ** 2, "b": distances(x[1], t[1]) ** 2}
    squares["joint"] = squares["a"] + squares["b"]
    assert set(found) == set(squares)
    for space, expected in squares.items():
        np.testing.assert_array_equal(found[space].record, expected.argmin(1))
        np.testing.assert_allclose(found[space].distance, np.sqrt(expected.min(1)), rtol=1e-5)


def test_a_row_is_not_matched_with_itself() -> None:
    records, t = points(50, 0)
    rows = np.array([3, 41, 0])
    found = closest(records.select(rows), records, rows)["b"]
    expected = distances(t[1], t[1])
    np.fill_diagonal(expected, np.inf)
    np.testing.assert_array_equal(found.record, expected.argmin(1)[rows])
    assert closest(records, records)["b"].distance.max() == 0
    assert np.isinf(closest(records.select(rows[:1]), records.select(rows[:1]), np.array([0]))["a"].distance).all()


def test_what_almost_coincides_keeps_its_distance() -> None:
    records, t = points(200, 0)
    t[1] += 30  # squared norms of thousands, in single precision
    near = t[1][:20] + np.float32(1e-3) / 5**0.5
    parts = (lambda rows: torch.from_numpy(t[0][rows]), lambda rows: torch.from_numpy(near[rows]))
    found = closest(Points(("a", "b"), parts, np.ones((20, 2), bool), 8), records)
    np.testing.assert_allclose(found["joint"].distance, 1e-3, rtol=0.01)


def test_a_modality_that_is_missing_on_either_side_is_left_out() -> None:
    row_mask, record_mask = np.ones((30, 2), bool), np.ones((60, 2), bool)
    row_mask[:4, 1], record_mask[10:40, 0] = False, False
    queries, x = points(30, 0, row_mask)
    records, t = points(60, 1, record_mask)
    found = closest(queries, records)
    assert np.isnan(found["b"].distance[:4]).all()
    assert np.isnan(found["joint"].distance[:4]).all()
    allowed = np.flatnonzero(record_mask[:, 0])
    np.testing.assert_allclose(found["a"].distance, distances(x[0], t[0][allowed]).min(1), rtol=1e-5)
    assert set(found["joint"].record[4:]) <= set(allowed)
    none = Points(records.names, records.parts, record_mask & [False, True], records.width)
    assert np.isinf(closest(queries, none)["a"].distance).all()
    assert queries.complete("joint").tolist() == list(range(4, 30))


def test_modalities_and_columns_have_equal_weight() -> None:
    data = people(4000)
    read = scaled(data, data)
    rows = np.arange(len(data))
    for part in read.parts:
        assert float(part(rows).var(0, unbiased=False).sum()) == pytest.approx(1, rel=1e-4)
    vector, table = read.parts[1](rows), read.parts[2](rows)
    np.testing.assert_allclose(vector.var(0), 1 / 2, rtol=1e-2)
    # three columns vary: age, log visits, and the three classes of the city together
    plain, constant, counts, city = table[:, 0], table[:, 1], table[:, 2], table[:, 3:]
    for column in (plain, counts, city):
        assert float(column.reshape(4000, -1).var(0).sum()) == pytest.approx(1 / 3, rel=1e-2)
    assert not constant.any()


def test_units_do_not_matter_and_pixels_share_one_unit() -> None:
    data, others = people(300), people(40, 1)
    before = closest(scaled(others, data), scaled(data, data))
    factors = {"photo": np.float32(5), "vector": np.array([0.01, 9], np.float32), "record": np.float32(1)}

    def changed(dataset: Dataset) -> Dataset:
        return replace(
            dataset,
            data={name: values * factors[name] + 2 * (name == "photo") for name, values in dataset.data.items()},
        )

    after = closest(scaled(changed(others), changed(data)), scaled(changed(data), changed(data)))
    for space in before:
        np.testing.assert_allclose(before[space].distance, after[space].distance, rtol=1e-3, atol=1e-4)
    flat = {
        **data.data,
        "photo": data.data["photo"] * np.array([1e-4] + [1] * 23, np.float32).reshape(2, 3, 4),
    }
    nearly_constant = Scale.fit(replace(data, data=flat), data.modalities[0])
    assert len(nearly_constant.factor.unique()) == 1


def test_an_unobserved_cell_is_at_the_mean_and_left_out_of_the_moments() -> None:
    data = people(500)
    seen = np.ones((500, 4), bool)
    seen[:100, 0] = False
    data.data["record"][:100, 0] = 1e6
    scale = Scale.fit(replace(data, cells={"record": seen}), TABLE)
    assert float(scale.mean[0]) == pytest.approx(data.data["record"][100:, 0].mean(), rel=1e-5)
    assert not scale(replace(data, cells={"record": seen}), np.arange(100))[:, 0].any()


def test_rows_without_a_modality_are_left_out_of_its_moments() -> None:
    data = people(100)
    mask = np.ones((100, 3), bool)
    mask[50:, 1] = False
    data.data["vector"][50:] = 1e6
    scale = Scale.fit(replace(data, mask=mask), data.modalities[1])
    np.testing.assert_allclose(scale.mean, data.data["vector"][:50].mean(0), rtol=1e-4)


def test_a_modality_may_have_the_name_of_a_space() -> None:
    data = Dataset((Modality("codes", "vector", (2,), "normal"),), {"codes": np.eye(2, dtype=np.float32)})
    assert list(scaled(data, data).spaces) == ["codes (modality)"]
    assert list(Points.of_codes(torch.zeros(3, 2)).spaces) == ["codes"]
