"""Counts that were divided by the total of their row become counts again, and counts become such numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion import ArrayConversion
from postprior.pipelines.data.conversion.normalised import counts_of, drawn_units, normalised_kind
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError

N, GENES = 400, 30


def counted(rng: np.random.Generator) -> tuple[Values, Values]:
    """Return counts (N, GENES), and totals (N, 1) that include values that the vector lacks."""
    counts = rng.poisson(rng.gamma(0.5, 2, (N, GENES))) + np.eye(N, GENES)
    counts[GENES:, 0] += 1
    return counts, counts.sum(1, keepdims=True) + rng.integers(1, 40, (N, 1))


def fitted(values: Values) -> ArrayConversion:
    rows = np.arange(len(values))
    kind = normalised_kind(values, rows)
    assert kind is not None
    return ArrayConversion.fit("cells", kind, "X", values, rows, rows, {})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("logarithms", [False, True])
def test_counts_come_back(dtype: type, logarithms: bool) -> None:
    counts, totals = counted(np.random.default_rng(0))
    counts[:, 1] *= 1000
    amounts = (1e4 * counts / totals).astype(dtype)
    values = np.log1p(amounts) if logarithms else amounts
    conversion = fitted(values)
    assert conversion.kind == ("log_normalised_count" if logarithms else "normalised_count")
    x, observed = conversion.encode(values, np.arange(N))
    np.testing.assert_array_equal(x, counts)
    assert observed.all()


def test_rows_without_a_count_of_one() -> None:
    """2, 3 and 5 units have the unit as their greatest common divisor, which is no value; rows of zeros stay zeros."""
    amounts = np.array([[0, 2, 3, 5, 6], [0, 3, 4, 7, 10], [0, 0, 0, 0, 0], [np.nan, 1, 2, 3, 0]]) * 0.37
    counts, unit = counts_of(amounts)
    np.testing.assert_array_equal(counts, (amounts / 0.37).round())
    np.testing.assert_allclose(unit[[0, 1, 3], 0], 0.37)


def test_the_unit_follows_the_regression_on_the_total() -> None:
    """Units are log-normal around a line, with noise that no total explains, and do not depend on the other rows."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(rng.gamma(2, 2, (4000, GENES)))
    logarithm = np.log(counts.sum(1))
    true = np.exp(2 - 0.8 * logarithm + 0.3 * rng.normal(size=4000))
    conversion = fitted(counts * true[:, None])
    assert conversion.unit is not None
    np.testing.assert_allclose(conversion.unit, (2, -0.8, 0.3), atol=0.15)
    np.testing.assert_allclose(
        conversion.unit[0] + conversion.unit[1] * logarithm.mean(), 2 - 0.8 * logarithm.mean(), atol=0.02
    )
    noise = np.log(drawn_units(counts, (2, -0.8, 0.3))[:, 0]) - 2 + 0.8 * logarithm
    assert abs(noise.mean()) < 4 * 0.3 / np.sqrt(4000)
    assert abs(noise.std() - 0.3) < 4 * 0.3 / np.sqrt(8000)
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 4 / np.sqrt(4000)
    assert max(abs(np.corrcoef(noise, column)[0, 1]) for column in counts.T) < 4.5 / np.sqrt(4000)
    np.testing.assert_array_equal(drawn_units(counts[7:9], conversion.unit), drawn_units(counts, conversion.unit)[7:9])


def test_rows_keep_a_common_total() -> None:
    """Whole rows divided by their totals: the unit is the inverse of the total, without noise."""
    counts, _ = counted(np.random.default_rng(2))
    shares = counts / counts.sum(1, keepdims=True)
    conversion = fitted(shares)
    np.testing.assert_allclose(conversion.unit, (0, -1, 0), atol=1e-6)  # type: ignore[arg-type]
    drawn = np.random.default_rng(3).poisson(2, (50, GENES)).astype(np.float32)
    np.testing.assert_allclose(conversion.decode(drawn, np.ones(drawn.shape, bool)).sum(1), 1, atol=1e-6)


def test_a_filled_in_cell_has_the_unit_of_its_row(tmp_path: Path) -> None:
    """Cells of a row are multiples of one unit, also beside an observed cell; observed cells keep their values."""
    counts, totals = counted(np.random.default_rng(4))
    values = np.log1p(1e4 * counts / totals)
    holes = np.random.default_rng(5).random(values.shape) < 0.1
    holes[:, :3] = False
    np.savez(tmp_path / "arrays.npz", cells=np.where(holes, np.nan, values))
    import_data([tmp_path / "arrays.npz"], tmp_path / "data", Roles(nan_is_missing=True))
    train = Dataset.load(tmp_path / "data/train")
    rows = np.asarray(train.ids)
    m = train.modalities[0]
    np.testing.assert_array_equal(train.missing(m.name), holes[rows])
    conversion = ArrayConversion.from_description(m.name, (train.conversion or {})["modalities"][m.name])
    source = np.where(holes, np.nan, values)[rows]
    restored = conversion.restored(counts[rows].astype(np.float32), np.ones(source.shape, bool), source)
    np.testing.assert_allclose(restored, values[rows], rtol=1e-6)
    np.testing.assert_array_equal(restored[~holes[rows]], values[rows][~holes[rows]])
    export(tmp_path / "data/train", tmp_path / "back")
    back = np.load(tmp_path / "back/arrays.npz")["cells"]
    np.testing.assert_array_equal(back, source)


def test_other_numbers_are_refused_as_normalised_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    np.savez(tmp_path / "arrays.npz", cells=rng.gamma(1, size=(40, 6)) * (rng.random((40, 6)) < 0.5))
    with pytest.raises(
        UserError, match=r"expected rows of whole multiples of a number for --kind cells=normalised_count"
    ):
        import_data([tmp_path / "arrays.npz"], tmp_path / "data", Roles(kinds={"cells": "normalised_count"}))
