"""Conversions: encoding and decoding of columns, and their entry in the manifest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.archives import saved, views
from support.equations import seeded

from postprior.pipelines.artefacts.exchange import read_codes
from postprior.pipelines.data.conversion import ColumnConversion, from_description
from postprior.pipelines.data.dataset import Dataset, writing
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.data.manifest import Manifest
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES

VALUES = {
    "numeric": pa.array([3.5, None, -2.0, 8.25, 0.0]),
    "log": pa.array([0.0, None, 1e3, 2.5, 7.0]),
    "quantile": pa.array([3.5, None, -2.0, 8.25, 0.0]),
    "count": pa.array([3, None, 0, 7, 2], pa.int32()),
    "boolean": pa.array([True, None, False, False, True]),
    "categorical": pa.array(["b", None, "a", "b", "c"]),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_column_is_restored(kind: str) -> None:
    column = pa.chunked_array([VALUES[kind]])
    fitted = ColumnConversion.fit("x", kind, pa.chunked_array([VALUES[kind]] * 2))
    again = ColumnConversion.from_description(json.loads(json.dumps(fitted.describe())))
    assert again == fitted
    numbers, seen = again.encode(column)
    assert seen.tolist() == [True, False, True, True, True]
    back = again.decode(numbers.astype(np.float32), seen)
    assert back.type == column.type
    assert back[1].as_py() is None
    found, expected = back.drop_null().to_pylist(), column.drop_null().to_pylist()
    assert found == (pytest.approx(expected, rel=1e-5) if kind == "log" else expected)


def test_the_numbers_are_the_documented_ones() -> None:
    numeric = ColumnConversion.fit("x", "numeric", pa.chunked_array([VALUES["numeric"]]))
    known = np.array([3.5, -2.0, 8.25, 0.0])
    assert (numeric.offset, numeric.scale) == pytest.approx((known.mean(), known.std()))
    log = ColumnConversion.fit("x", "log", pa.chunked_array([VALUES["log"]]))
    known = np.log1p([0.0, 1e3, 2.5, 7.0])
    np.testing.assert_allclose(
        log.encode(pa.chunked_array([VALUES["log"]]))[0][[0, 2, 3, 4]], (known - known.mean()) / known.std()
    )
    assert ColumnConversion.fit("x", "categorical", pa.chunked_array([VALUES["categorical"]] * 2)).fill == 1
    assert ColumnConversion.fit("x", "count", pa.chunked_array([VALUES["count"]])).fill == 2


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_six_digits_are_restored_exactly(unit: float) -> None:
    """A float32 has 24 bits, enough for six digits around a mean in any unit, such as millimetres or inhabitants."""
    exact = np.random.default_rng(0).integers(0, 10**6, 500) + 3 * 10**6
    values = exact * unit if unit >= 1 else exact / (1 / unit)
    column = pa.chunked_array([values])
    fitted = ColumnConversion.fit("x", "numeric", column)
    numbers, seen = fitted.encode(column)
    np.testing.assert_array_equal(fitted.decode(numbers.astype(np.float32), seen).to_numpy(), values)


def test_whole_numbers_that_are_equal_as_floats_give_finite_values() -> None:
    column = pa.chunked_array([pa.array([2**60, 2**60 + 1])])
    numbers, _ = ColumnConversion.fit("x", "numeric", column).encode(column)
    np.testing.assert_array_equal(numbers, 0)


def test_drawn_values_stay_within_the_range_of_the_type() -> None:
    """A decoder may exceed the range of 8 bits: its values are clipped and rounded, and never wrap around."""
    seen = np.ones(3, bool)
    small = ColumnConversion("x", "count", "int8")
    assert small.decode(np.array([400.0, 3.4, -2.0]), seen).to_pylist() == [127, 3, -2]
    large = ColumnConversion("x", "numeric", "int64", scale=1e18)
    assert large.decode(np.array([1e3, 0.0, -1e3]), seen).to_pylist()[0] > 9e18
    assert ColumnConversion("x", "boolean", "int64").decode(np.array([1.7, 0.4, 0.6]), seen).to_pylist() == [
        1,
        0,
        1,
    ]
    log = ColumnConversion("x", "log", "double")
    assert log.decode(np.array([-5.0, 0.0, 1.0]), seen).to_pylist()[:2] == [0, 0]
    city = ColumnConversion("x", "categorical", "string", values=("a", "b"))
    assert city.decode(np.array([-3.0, 0.4, 9.0]), seen).to_pylist() == ["a", "a", "b"]


def test_conversions_are_described_in_json(tmp_path: Path) -> None:
    import_data([saved(tmp_path, views())], tmp_path / "data", Roles())
    train = Dataset.load(tmp_path / "data/train")
    assert train.conversion is not None
    for modality in train.modalities:
        conversion = from_description(modality.name, train.conversion["modalities"][modality.name])
        assert conversion.modality == modality
        assert json.loads(json.dumps(conversion.describe())) == train.conversion["modalities"][modality.name]
    assert train.select(np.arange(3)).conversion == train.conversion


def test_a_folder_needs_no_conversion_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    import_data([saved(tmp_path, views())], tmp_path / "data", Roles())
    replace(Dataset.load(tmp_path / "data/test"), conversion=None).save(tmp_path / "bare")
    manifest = json.loads((tmp_path / "bare/manifest.json").read_text())
    assert "conversion" not in manifest
    (tmp_path / "bare/manifest.json").write_text(json.dumps({**manifest, "conversion": [1]}))
    with pytest.raises(UserError, match="conversion: expected a JSON object or no such key"):
        Dataset.load(tmp_path / "bare")


def test_synthetic_data_carry_the_conversion(tmp_path: Path) -> None:
    arrays = {name: array for name, array in views().items() if name in ("vector", "reads", "bits")}
    import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles())
    train = Dataset.load(tmp_path / "data/train")
    model = MODELS["mvtcae"](train.modalities, latent=3, width=2, seed=0)
    np.savez(tmp_path / "codes.npz", loc=np.random.default_rng(0).normal(size=(40, 3)))
    density = DENSITIES["gaussian"]().fit(read_codes(tmp_path / "codes.npz"), generator=seeded())
    pair = Generator(model, density, {}, train.conversion)
    pair.sample(7).save(tmp_path / "made")
    export(tmp_path / "made", tmp_path / "back")
    with np.load(tmp_path / "back/views.npz") as archive:
        for name, array in arrays.items():
            assert archive[name].dtype == array.dtype
            assert archive[name].shape == (7, *array.shape[1:])
        assert abs(archive["vector"].mean() - 5) < 3
    manifest = Manifest(train.modalities, 7, conversion=train.conversion)
    with writing(tmp_path / "written", manifest, labels=False) as write:
        write(0, pair.sample(7).data)
    assert Dataset.load(tmp_path / "written").conversion == train.conversion
