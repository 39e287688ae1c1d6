"""Fill values and typing errors: they do not affect scales, models see them clipped, and the summary reports them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from postprior.pipelines.data.conversion import ArrayConversion, ColumnConversion
from postprior.pipelines.data.conversion.outliers import BOUND, usual_range
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data

ROWS = 400
FACTS = {"source": "npz", "file": "x.npz"}
TAILS = {
    "normal": lambda rng: rng.normal(37, 1, ROWS),
    "uniform": lambda rng: rng.random(ROWS),
    "lognormal": lambda rng: rng.lognormal(0, 3, ROWS),
    "heavy": lambda rng: rng.standard_t(2, ROWS) * 10 + 3,
    "powers": lambda rng: 10.0 ** rng.integers(-5, 6, ROWS),
    "sparse": lambda rng: np.where(rng.random(ROWS) < 0.03, rng.lognormal(9, 1, ROWS), 0),
    "nearly constant": lambda rng: np.where(rng.random(ROWS) < 0.02, 1e6, 5),
    "two groups": lambda rng: np.where(rng.random(ROWS) < 0.05, 1e5, 1) * rng.normal(1, 0.1, ROWS),
    "two values": lambda rng: rng.choice([0.5, 1e9], ROWS),
    "three values": lambda rng: rng.choice([0, 1, 50], ROWS),
    "rare": lambda rng: rng.permutation(np.append(np.full(ROWS - 1, 3.0), 1e6)),
}
FILLS = {
    "one": [9.97e36],
    "several": [9.97e36, 1e20, -1e30],
    "often": [-9999.0] * (ROWS // 5),
    "beyond squares": [1e300],
    "a slip": [36400.0],
}


def table_column(values: np.ndarray) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values)])


@pytest.mark.parametrize("tail", TAILS)
def test_scales_of_heavy_tails_are_mean_and_standard_deviation(tail: str) -> None:
    for seed in range(8):
        values = TAILS[tail](np.random.default_rng(seed))
        assert usual_range(values) == (values.min(), values.max(), False)
        fitted = ColumnConversion.fit("x", "numeric", table_column(values))
        assert (fitted.offset, fitted.scale, fitted.bound) == (values.mean(), values.std(), BOUND)
        numbers, _ = fitted.encode(table_column(values))
        np.testing.assert_array_equal(numbers, (values - values.mean()) / values.std())


@pytest.mark.parametrize("fill", FILLS)
def test_a_column_is_scaled_by_its_usual_values(fill: str) -> None:
    known = np.random.default_rng(0).normal(36.6, 0.5, ROWS)
    values = np.random.default_rng(1).permutation([*known, *FILLS[fill]])
    far = np.isin(values, FILLS[fill])
    fitted = ColumnConversion.fit("x", "numeric", table_column(values))
    assert (fitted.offset, fitted.scale) == pytest.approx((known.mean(), known.std()), rel=1e-12)
    again = ColumnConversion.from_description(json.loads(json.dumps(fitted.describe())))
    numbers, seen = again.encode(table_column(values))
    assert seen.all()
    np.testing.assert_allclose(numbers[~far], (values[~far] - known.mean()) / known.std(), rtol=1e-9)
    np.testing.assert_array_equal(np.abs(numbers[far]), np.abs(numbers).max())
    np.testing.assert_array_equal(np.sign(numbers[far]), np.sign(values[far] - 36))
    others = ColumnConversion.fit("x", "numeric", table_column(known))
    assert np.abs(others.encode(table_column(np.array([1e300, -1e308])))[0]).max() == BOUND


def test_a_column_of_few_values_is_scaled_by_its_usual_values() -> None:
    values = np.array([0.5, 1.5] * 20 + [9.97e36])
    assert usual_range(values) == (0.5, 1.5, True)
    assert usual_range(-values) == (-1.5, -0.5, True)


@pytest.mark.parametrize("fill", FILLS)
def test_coordinates_and_pixels_are_scaled_by_their_usual_values(fill: str) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal([36.6, 5, 0], [0.5, 1, 2], (ROWS, 3))
    plain = ArrayConversion.fit("x", "numeric", "X", array, np.arange(ROWS), np.arange(ROWS), FACTS)
    spoilt = array.copy()
    spoilt[: len(FILLS[fill]), 0] = FILLS[fill]
    rest = spoilt[len(FILLS[fill]) :, 0]
    fitted = ArrayConversion.fit("x", "numeric", "X", spoilt, np.arange(ROWS), np.arange(ROWS), FACTS)
    assert fitted.offset == pytest.approx((rest.mean(), *plain.offset[1:]), rel=1e-12)  # type: ignore[index]
    assert fitted.scale == pytest.approx((rest.std(), *plain.scale[1:]), rel=1e-12)  # type: ignore[index]
    assert ArrayConversion.from_description("x", json.loads(json.dumps(fitted.describe()))) == fitted
    x, _ = fitted.encode(spoilt, np.arange(ROWS))
    assert np.abs(x).max() < 10
    pixels = rng.random((ROWS, 6, 5)) * 900 + 100
    ends = pixels[1:].min(), pixels[1:].max()
    pixels[0] = FILLS[fill][0]
    fitted = ArrayConversion.fit("x", "numeric", "HW", pixels, np.arange(ROWS), np.arange(ROWS), FACTS)
    x, _ = fitted.encode(pixels, np.arange(ROWS))
    if fill == "a slip":  # 36400 is not a hundred times as far from 550 as the other values
        assert fitted.offset + fitted.scale == pytest.approx(36400)
        return
    if fill == "often":  # and neither is −9999
        return
    assert (fitted.offset, fitted.scale) == (ends[0], ends[1] - ends[0])
    np.testing.assert_array_equal(np.abs(x[0]), 2)
    assert (x[1:].min(), x[1:].max()) == (0, 1)


def test_an_import_reports_outliers_and_a_model_sees_the_other_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    temperature = [f"{x:.1f}" for x in rng.normal(36.6, 0.5, ROWS)]
    temperature[7] = temperature[11] = "9.97e36"
    lines = [f"{row},{temperature[row]},{rng.normal():.3f}" for row in range(ROWS)]
    (tmp_path / "a.csv").write_text("\n".join(["id,temperature,crp", *lines]) + "\n")
    text = "\n".join(import_data([tmp_path / "a.csv"], tmp_path / "data", Roles()))
    assert (
        "far outliers: temperature (9.97e+36, 2 values); they are clipped in the input of models. If such a "
        "value means missing, add --na VALUE and import again" in text
    )
    assert text.count("far outliers") == 1
    back = []
    for split in ("train", "validation", "test"):
        data = Dataset.load(tmp_path / "data" / split)
        assert np.abs(data.data["a"]).max() < 10
        export(tmp_path / "data" / split, tmp_path / "out" / split)
        back += (tmp_path / "out" / split / "a.csv").read_text().splitlines()[1:]
    assert sorted(back) == sorted(lines)


def test_outliers_of_arrays_are_reported_with_the_option_that_helps(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(ROWS, 3))
    x[3, 1] = 1e30
    np.savez(tmp_path / "views.npz", x=x)
    text = "\n".join(import_data([tmp_path / "views.npz"], tmp_path / "data", Roles()))
    assert "far outliers: 1e+30, 1 value; they are clipped" in text
    assert "replace it by NaN, add --nan-is-missing and import again" in text
