"""Data frames as sources: their types come back exactly, and they are read as Parquet files of the same columns are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from support.frames import everything, labs

from postprior.pipelines.api.objects import given_rows
from postprior.pipelines.api.synthetic import SyntheticDataset
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.formats import memory
from postprior.pipelines.data.formats.contents import Roles, TableView
from postprior.pipelines.data.formats.memory import spans
from postprior.pipelines.data.formats.memory.frames import described, dtype_of, frame_of, restored, types_of
from postprior.pipelines.data.importing.run import import_contents, import_data
from postprior.pipelines.errors import UserError

FRAME = everything(60)


def spanning(rows: int) -> pd.DataFrame:
    """Durations, periods and intervals, also as categories, with holes."""
    rng = np.random.default_rng(0)
    days = pd.Series(pd.to_timedelta(rng.integers(0, 500, rows), "D")).where(rng.random(rows) > 0.1)
    months = pd.PeriodIndex.from_ordinals(rng.integers(500, 560, rows), freq="M")
    bins = pd.cut(rng.normal(size=rows), [-9, -0.5, 0.25, 9])
    columns = {
        "days": days,
        "milliseconds": pd.Series(pd.to_timedelta(rng.integers(0, 9000, rows), "ms")).dt.as_unit("ms"),
        "arrow": days.astype(pd.ArrowDtype(pa.duration("s"))),
        "months": pd.Series(months).where(rng.random(rows) > 0.1),
        "bins": pd.Series(bins),
        "intervals": pd.Series(pd.arrays.IntervalArray(list(bins))).where(rng.random(rows) > 0.1),
        "visits": pd.Categorical(pd.to_timedelta(rng.integers(0, 3, rows), "D")),
    }
    return pd.DataFrame(columns)


@pytest.mark.parametrize("column", [*FRAME.items(), *spanning(60).items()], ids=lambda item: str(item[0]))
def test_a_column_comes_back_in_its_dtype(column: tuple[Any, pd.Series]) -> None:
    _, values = column
    entry = json.loads(json.dumps(described(values)))
    assert repr(dtype_of(entry)) == repr(values.dtype)
    back = restored(pa.chunked_array([pa.array(spans.plain(values), from_pandas=True)]), entry)
    pd.testing.assert_series_equal(back, values.reset_index(drop=True), check_names=False)


def test_durations_periods_and_intervals_are_modelled(tmp_path: Path) -> None:
    frame, roles = spanning(80), Roles(nan_is_missing=True)
    import_contents(memory.read({"stay": frame}, roles), ["stay"], tmp_path / "data", roles)
    rows = Dataset.load(tmp_path / "data/train")
    back = SyntheticDataset.of(rows).to_pandas()
    pd.testing.assert_frame_equal(back, frame.loc[back.index], check_names=False)
    classes = {column.name for column in rows.modalities[0].columns if column.classes}
    assert classes == {"bins", "intervals", "visits"}
    halves = restored(pa.chunked_array([[86400 * 1.4, None]]), described(frame["days"]))
    assert halves.tolist() == [pd.Timedelta(days=1), pd.NaT]
    weekly = frame.assign(months=frame["months"].dt.asfreq("W"))
    with pytest.raises(UserError, match=r"stay: column months: periods W-SUN found, expected M as in the training"):
        given_rows(weekly, rows)


def test_a_frame_comes_back_with_its_index_and_the_names_of_its_columns() -> None:
    types = json.loads(json.dumps(types_of("f", FRAME)))
    columns = {str(name): pa.array(FRAME[name], from_pandas=True) for name in FRAME}
    pd.testing.assert_frame_equal(frame_of(pa.table({"patient": FRAME.index.tolist()} | columns), types), FRAME)


def test_a_class_of_rare_values_is_one_more_category() -> None:
    dtype = pd.CategoricalDtype(["a", "b"], ordered=True)
    column = restored(pa.chunked_array([["b", "other", None]]), described(pd.Series([], dtype=dtype)))
    assert column.cat.categories.tolist() == ["a", "b", "other"]
    assert column.astype(object).tolist() == ["b", "other", np.nan]


def test_categories_of_rare_rows_are_not_kept() -> None:
    """They may be names of persons. Categories without rows are, and rows that have others come back as they were."""
    levels = pd.Series(["a"] * 8 + ["rare"] * 2).astype(pd.CategoricalDtype(["rare", "a", "none"]))
    counts = pd.Series([7] * 8 + [9] * 2).astype("category")
    frame = pd.DataFrame({"levels": levels, "counts": counts, "person": pd.Categorical(list("uvwxyz") * 1 + ["u"] * 4)})
    roles = Roles(group="person")

    def kept(roles: Roles) -> list[Any]:
        (contents,) = memory.read({"f": frame}, roles)
        assert contents.frame is not None
        return [entry["dtype"]["categories"] for entry in contents.frame["columns"]]

    assert kept(roles) == [["a", "none"], [7], []]
    assert kept(replace(roles, keep_rare=True)) == [["rare", "a", "none"], [7, 9], []]
    assert kept(Roles(label="levels", rare_labels="keep"))[0] == ["rare", "a", "none"]
    (contents,) = memory.read({"f": frame}, roles)
    back = frame_of(pa.table({name: pa.array(column) for name, column in frame.items()}), contents.frame)
    pd.testing.assert_frame_equal(back.astype(object), frame.astype(object), check_index_type=False)
    assert back["levels"].cat.categories.tolist() == ["a", "none", "rare"]


def test_frames_are_read_as_files_are(tmp_path: Path) -> None:
    """Except for moments, read in the coarsest unit, and categories of numbers, which Parquet does not keep."""
    frame = FRAME.drop(columns=["days", "seconds", "zone", "numbers", 7])
    frames = {"demo": frame, "labs": labs(frame, 40)}
    roles = Roles(id="patient", label="death")
    for name, part in frames.items():
        part.to_parquet(tmp_path / f"{name}.parquet")
    import_data([tmp_path / f"{name}.parquet" for name in frames], tmp_path / "files", roles)
    import_contents(memory.read(frames, roles), list(frames), tmp_path / "memory", roles)
    for split in SPLITS:
        files, read = (Dataset.load(tmp_path / home / split) for home in ("files", "memory"))
        assert files.modalities == read.modalities
        for name, array in files.arrays.items():
            np.testing.assert_array_equal(read.arrays[name], array)


def test_categories_of_numbers_are_categorical() -> None:
    (contents,) = memory.read({"demo": FRAME[["numbers", "int64"]]}, Roles())
    (view,) = contents.views
    assert isinstance(view, TableView)
    assert view.kinds == {"numbers": "categorical", "int64": "numeric"}


@pytest.mark.parametrize(
    ("index", "name"), [(pd.RangeIndex(60), None), (pd.Index(np.arange(60) * 3), "id"), (FRAME.index, "patient")]
)
def test_the_index_identifies_rows_unless_a_column_does(index: pd.Index, name: str | None) -> None:
    frame = pd.DataFrame({"crp": np.arange(60.0), "patient_id": FRAME.index})
    (contents,) = memory.read({"labs": frame.set_axis(index.rename(name), axis=0)}, Roles())
    assert contents.ids is not None
    expected = "patient_id" if name is None else name
    assert contents.ids[0] == expected
    assert contents.ids[1].to_pylist() == (frame if name is None else index.to_frame(name=name))[expected].tolist()


@pytest.mark.parametrize("label", [np.arange(60) % 2, dict(zip(FRAME.index, np.arange(60) % 2, strict=True))])
def test_labels_are_rows_of_their_own(label: Any) -> None:
    frame = FRAME[["int64"]]
    *_, contents = memory.read({"demo": frame}, Roles(label="ill"), label=label)
    assert contents.label is not None
    assert contents.ids is not None
    assert contents.label[1].to_pylist() == (np.arange(60) % 2).tolist()
    assert contents.ids[1].to_pylist() == FRAME.index.tolist()


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "levels": (lambda: {"a": FRAME.set_index(["str", "object"])}, "a: index of several levels found, expected one"),
    "twice": (lambda: {"a": FRAME[["int64", "int64"]]}, "a: column 'int64' found twice"),
    "label": (lambda: {"a": FRAME.rename(columns={7: (1, 2)})}, r"a: a column named \(1, 2\) found, expected a text"),
    "mixed": (lambda: {"a": FRAME.assign(str=[[1], "x"] * 30)}, "a: column str: .*expected values of one type"),
    "lists": (lambda: {"a": FRAME.assign(str=[[1]] * 60)}, "column str: type list.* found, expected numbers, texts"),
    "text": (lambda: {"a": "text"}, "a: str of type .* found, expected a data frame, AnnData, MuData, or an array"),
    "path": (lambda: {"../a": FRAME}, "data: the name '../a' found, expected a text without slashes"),
    "nothing": (dict, "data: no object found"),
    "rows": (lambda: {"a": FRAME, "v": np.ones((3, 2))}, "v: 3 rows and 60 ids in the other data found"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused(case: str) -> None:
    make, sentence = WRONG[case]
    with pytest.raises(UserError, match=sentence):
        memory.read(memory.named(make()), Roles())
