"""What cells mean: missing values, dates, symbols, mistyped numbers. The bytes of the file always come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.columns import IDS, ROWS, X, cells_of, columns_of, lines, returned

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.errors import UserError

CITY = [("Zug", "Genf", "Bern")[row % 3] for row in range(ROWS)]


def missing(tmp_path: Path, name: str) -> list[str]:
    """The ids of rows that lack a value of this column."""
    return sorted(key for key, value in cells_of(tmp_path, name).items() if value is None)


def test_marks_of_missing_cells(tmp_path: Path) -> None:
    marks = ["?", "NA", "N/A", ".", "-", "", "None"]
    numbers, texts = [[*marks, *column[7:]] for column in (X, CITY)]
    text = "\n".join(lines("id x city full", numbers, texts, X))
    told, back = returned(tmp_path, "a.csv", text)
    assert back == text
    assert "read as missing: x ('" in told
    for name in ("x", "city"):
        assert missing(tmp_path, name) == IDS[:7]


def test_marks_are_chosen_by_the_user(tmp_path: Path) -> None:
    country = [("NA", "ZA", "BW")[row % 3] for row in range(ROWS)]
    sign = ["+-"[row % 2] for row in range(ROWS)]
    text = "\n".join(lines("id x country sign", X, country, sign))
    told, back = returned(tmp_path, "a.csv", text)
    assert "country ('NA' 20)" in told
    assert columns_of(tmp_path)["sign"]["values"] == ["+", "-"]
    told, back = returned(tmp_path, "a.csv", text, Roles(keep_na=("country",), na={"x": ("100.5",), "": ("ZA",)}))
    assert back == text
    assert columns_of(tmp_path)["country"]["values"] == ["BW", "NA"]
    assert missing(tmp_path, "x") == [IDS[int(X.argmin())]]
    told, _ = returned(tmp_path, "a.csv", text, Roles(label="country"))
    assert "country ('NA' 20)" in told
    assert "without a label: 20 of 60 rows" in told
    with pytest.raises(UserError, match=r"--na y: no such column found, expected one of country, id"):
        returned(tmp_path, "a.csv", text, Roles(na={"y": ("1",)}))
    returned(tmp_path, "a.csv", text, Roles(label="country", keep_na=("country",)))
    assert Dataset.load(tmp_path / "data/train").label_names == ("BW", "NA", "ZA")


@pytest.mark.parametrize("fill", ["-999", "9999", "-99"])
def test_fill_values_far_outside_are_missing(tmp_path: Path, fill: str) -> None:
    x = [fill if row in (3, 9) else value for row, value in enumerate(X)]
    text = "\n".join(lines("id x city", x, CITY))
    told, back = returned(tmp_path, "a.csv", text)
    assert back == text
    assert f"read as missing: x ('{fill}' 2)" in told
    assert missing(tmp_path, "x") == [IDS[3], IDS[9]]
    returned(tmp_path, "a.csv", text, Roles(keep_na=("x",)))
    assert missing(tmp_path, "x") == []
    wide = [float(fill) * (row % 2) / 2 or value for row, value in enumerate(x)]
    returned(tmp_path, "a.csv", "\n".join(lines("id x city", wide, CITY)))  # the others reach nearly as far
    assert missing(tmp_path, "x") == []


def test_a_text_among_numbers_is_told_with_its_row(tmp_path: Path) -> None:
    dose = [*map(str, X[:17]), "5 mg", *map(str, X[18:])]
    text = "\n".join(lines("id dose x", dose, X))
    told, back = returned(tmp_path, "a.csv", text)
    assert back == text
    assert "texts among numbers or dates, read as missing: dose '5 mg' (row 18)" in told
    assert missing(tmp_path, "dose") == [IDS[17]]
    assert "5 mg" not in (tmp_path / "data/train/manifest.json").read_text()


WHEN = np.datetime64("2019-12-25") + 7 * np.arange(ROWS)
"""Weekly dates: days above 12 decide the order."""


@pytest.mark.parametrize(
    "pattern", ["%Y-%m-%d", "%d/%m/%Y", "%d.%m.%y", "%m/%d/%Y", "%Y/%m/%d", "%Y-%m-%d %H:%M:%S", "%d/%m/%Y %H:%M"]
)
def test_dates_are_numbers(tmp_path: Path, pattern: str) -> None:
    text = "\n".join(lines("id seen", [date.item().strftime(pattern) for date in WHEN]))
    _, back = returned(tmp_path, "a.csv", text)
    assert back == text
    column = columns_of(tmp_path)["seen"]
    assert column["kind"] == "numeric"
    unit = 86400 if "%H" in pattern else 1
    x = cells_of(tmp_path, "seen")
    days = np.array([column["offset"] + column["scale"] * float(x[key] or 0) for key in IDS]) / unit
    np.testing.assert_allclose(days, WHEN.astype(np.int64), atol=1e-3)
    train = Dataset.load(tmp_path / "data/train")
    made = Dataset(train.modalities, {"a": np.zeros((1, 1), np.float32)}, conversion=train.conversion)
    made.save(tmp_path / "made")
    export(tmp_path / "made", tmp_path / "drawn")
    mean = np.datetime64(0, "s") + np.timedelta64(round(column["offset"] * 86400 / unit), "s")
    drawn = (tmp_path / "drawn/a.csv").read_text().splitlines()[1].split(",")[1]
    assert drawn in {(mean + np.timedelta64(h, "h")).item().strftime(pattern) for h in (-12, 0, 12)}


def test_the_order_of_dates_is_told_and_chosen(tmp_path: Path) -> None:
    seen = [f"{row % 12 + 1:02}/{row % 11 + 1:02}/2020" for row in range(ROWS)]
    text = "\n".join(lines("id seen", seen))
    for order, words in ((None, "day, month, year"), ("mdy", "month, day, year")):
        told, back = returned(tmp_path, "a.csv", text, Roles(dates=order))
        assert back == text
        assert f"dates read as {words}: seen" in told
        x = cells_of(tmp_path, "seen")
        assert (float(x["p01"] or 0) > float(x["p11"] or 0)) == (order is None)  # 02/02 and 12/01


@pytest.mark.parametrize(
    ("form", "drawn"),
    [
        ("{}%", "{}%"),
        ("${}", "${}"),
        ("{} €", "{} €"),
        ("CHF {}", "CHF {}"),
        ('"1,{:03.0f}"', None),
        ("1'{:03.0f}", None),
    ],
)
def test_numbers_with_symbols(tmp_path: Path, form: str, drawn: str | None) -> None:
    text = "\n".join(lines("id x", [form.format(value) for value in X]))
    _, back = returned(tmp_path, "a.csv", text)
    assert back == text
    column = columns_of(tmp_path)["x"]
    x = cells_of(tmp_path, "x")
    values = np.array([column["offset"] + column["scale"] * float(x[key] or 0) for key in IDS])
    np.testing.assert_allclose(values, X if drawn else 1000 + np.rint(X), rtol=1e-6)
    train = Dataset.load(tmp_path / "data/train")
    Dataset(train.modalities, {"a": np.zeros((1, 1), np.float32)}, conversion=train.conversion).save(tmp_path / "made")
    export(tmp_path / "made", tmp_path / "drawn")
    cell = (tmp_path / "drawn/a.csv").read_text().splitlines()[1].split(",")[1]
    symbols = (drawn or "{}").split("{}")
    assert cell.startswith(symbols[0])
    assert cell.endswith(symbols[1])
    assert float(cell.removeprefix(symbols[0]).removesuffix(symbols[1])) == round(column["offset"], column["decimals"])


def test_rare_texts_are_one_category_and_reach_no_synthetic_row(tmp_path: Path) -> None:
    job = [*(["pope", "queen"] * 2), *CITY[4:]]
    text = "\n".join(lines("id x job diagnosis", X, job, ["gout", "mumps", "ague", *["flu", "cold", "flu"] * 19]))
    roles = Roles(label="diagnosis")
    told, back = returned(tmp_path, "a.csv", text, roles)
    assert back == text
    assert "rare values, modelled together as 'other': job (2 values)" in told
    assert "3 rows of rare classes (of fewer than 5 rows, 3 found) have no label" in told
    assert columns_of(tmp_path)["job"]["values"] == ["Bern", "Genf", "Zug", "other"]
    assert [cells_of(tmp_path, "job")[key] for key in IDS[:4]] == [3, 3, 3, 3]
    for split in ("train", "validation", "test"):
        description = (tmp_path / "data" / split / "manifest.json").read_text()
        assert not any(name in description for name in ("pope", "queen", "gout", "mumps"))
    returned(tmp_path, "a.csv", text, Roles(keep_rare=True))
    assert columns_of(tmp_path)["job"]["values"] == ["Bern", "Genf", "Zug", "pope", "queen"]


def test_columns_that_cannot_be_modelled_are_written_back(tmp_path: Path) -> None:
    names, near = [f"name {row}" for row in range(ROWS)], ["a"] * (ROWS - 1) + ["b"]
    codes = ["7"] * (ROWS - 1) + ["8"]
    text = "\n".join(lines("id names x same near empty code", names, X, ["1.50"] * ROWS, near, [""] * ROWS, codes))
    told, back = returned(tmp_path, "a.csv", text, Roles(kinds={"code": "categorical"}))
    assert back == text
    assert "constant or nearly, not modelled but written back: same, near, empty, code" in told
    assert "free text or names, not modelled but written back: names" in told
    assert list(columns_of(tmp_path)) == ["x"]
    train = Dataset.load(tmp_path / "data/train")
    Dataset(train.modalities, {"a": np.zeros((1, 1), np.float32)}, conversion=train.conversion).save(tmp_path / "made")
    export(tmp_path / "made", tmp_path / "drawn")
    assert (tmp_path / "drawn/a.csv").read_text().splitlines()[1].split(",")[3:] == ["1.5", "a", "", "7"]
    assert "name 1" not in (tmp_path / "data/train/manifest.json").read_text()
    returned(tmp_path, "a.csv", text, Roles(keep_rare=True))
    assert list(columns_of(tmp_path)) == ["x", "near", "code"]


def test_many_categories_are_grouped_beyond_the_commonest(tmp_path: Path) -> None:
    ids = [f"p{row:04}" for row in range(800)]
    rows = [f"{key},c{row % 150 if row >= 150 else row},{row}.5" for row, key in enumerate(ids)]
    told, back = returned(tmp_path, "a.csv", "\n".join(["id,code,x", *rows]))
    assert back.splitlines()[1:] == rows
    values = columns_of(tmp_path)["code"]["values"]
    assert len(values) == 100
    assert values[-1] == "other"
    assert "rare values, modelled together as 'other': code (51 values)" in told


@pytest.mark.parametrize("mark", [".", ","])
def test_synthetic_whole_numbers_have_the_point_that_all_of_the_column_have(tmp_path: Path, mark: str) -> None:
    """A reader, for instance pandas, takes 52.0 for a float and 52 for an integer: synthetic tables have the types."""
    wide = [str(50.0 + row % 7).replace(".", mark) for row in range(ROWS)]
    mixed = ["3" if row % 2 else f"4{mark}5" for row in range(ROWS)]
    text = "\n".join(lines("id wide mixed count", wide, mixed, range(ROWS), mark=";"))
    assert returned(tmp_path, "a.csv", text)[1] == text
    train = Dataset.load(tmp_path / "data/train")
    replace(train, source_values={}).save(tmp_path / "new")
    export(tmp_path / "new", tmp_path / "out")
    _, *rows = (tmp_path / "out/a.csv").read_text().splitlines()
    parts = list(zip(*(row.split(";") for row in rows), strict=True))
    assert set(parts[1]) == set(wide)
    assert set(parts[2]) == set(mixed)
    assert not any(mark in cell for cell in parts[3])


def test_a_column_with_fill_values_keeps_its_decimal_mark(tmp_path: Path) -> None:
    commas, points = [f"{row},5" for row in range(ROWS)], [-999 if row in (3, 9) else row + 0.25 for row in range(ROWS)]
    text = "\n".join(lines("id x y", commas, points, mark=";"))
    assert returned(tmp_path, "a.csv", text)[1] == text
    assert columns_of(tmp_path)["y"]["form"] == {"missing": ["-999"], "decimal": "."}
