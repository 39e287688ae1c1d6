"""What import prints: at most twelve lines, whatever the files; options that no source reads are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest
from typer.testing import CliRunner

from postprior.pipelines.commands.app import app
from postprior.pipelines.data.formats import FORMATS, NAMING, check_options
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.errors import UserError

N, MANY, LONG = 60, 100, "列" * 120
Write = Callable[[Path], list[str]]


def a_table(home: Path, columns: dict[str, Any], *options: str) -> list[str]:
    csv.write_csv(pa.table(columns), home / "t.csv")
    return [str(home / "t.csv"), str(home / "data"), *options]


def numbers(rows: int = N) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=rows).round(3)


def marked(home: Path) -> list[str]:
    """Constants, marks of missing cells, stray texts, far outliers, dates in either order, free text, rare values."""
    x = numbers().astype(str)
    kinds = {
        "constant": np.full(N, "1"),
        "mark": np.where(np.arange(N) % 9 == 0, "NA", x),
        "stray": np.where(np.arange(N) == 7, "5 mg\x1b[2J", x),
        "far": np.where(np.arange(N) == 9, "-999", x),
        "outlier": np.where(np.arange(N) == 9, "1e9", x),
        "date": np.array([f"0{1 + n % 9}/0{1 + n % 7}/2020" for n in range(N)]),
        "text": np.array([f"a sentence {n} that is of some length {n * n}" for n in range(N)]),
        "rare": np.array(["u", "v", *(f"w{n // 2}" for n in range(N - 2))]),
    }
    columns = {f"{kind} {n} {LONG}": values for n in range(MANY // len(kinds)) for kind, values in kinds.items()}
    return a_table(home, columns | {"x": x, "label": np.arange(N) % 5}, "--label", "label", "--target", "x")


def many_modalities(home: Path) -> list[str]:
    rows = {f"{n} {LONG}": np.where(np.random.default_rng(n).random((N, 1)) < 0.8, 1.0, np.nan) for n in range(80)}
    values = {name: np.random.default_rng(1).normal(size=(N, 2)) * mask for name, mask in rows.items()}
    np.savez(home / "views.npz", **(values | {"whole": numbers()[:, None]}))
    return [str(home / "views.npz"), str(home / "data"), "--nan-is-missing"]


def many_bad_rows(home: Path) -> list[str]:
    (home / "t.csv").write_text("a,b\n" + "1,2\n" * 40 + ("1," * 500 + "\n") * 500)
    return [str(home / "t.csv"), str(home / "data")]


def many_kinds(home: Path) -> list[str]:
    columns = {f"{name}{n}": numbers() for n in range(MANY) for name in ("a", LONG)}
    return a_table(home, columns, "--kind", f"{LONG}x=count")


def many_labels(home: Path) -> list[str]:
    labels = [f"{n // 5} {LONG}" for n in range(5 * MANY)]
    return a_table(home, {"x": numbers(5 * MANY), "y": numbers(5 * MANY), "label": labels}, "--label", "label")


CASES: dict[str, tuple[Write, int, str]] = {
    "600 constant columns": (
        lambda home: a_table(home, {f"c{n}": np.ones(N) for n in range(600)} | {"x": numbers()}),
        0,
        "c599",
    ),
    "every kind of note": (marked, 0, f"rare {MANY // 8 - 1} {LONG}"),
    "many modalities": (many_modalities, 0, f"79 {LONG}"),
    "many labels": (many_labels, 0, f"{MANY - 1} {LONG} (5)"),
    "many bad rows": (many_bad_rows, 1, ""),
    "a name among many": (many_kinds, 1, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_a_message_has_at_most_twelve_lines(tmp_path: Path, case: str) -> None:
    make, code, last = CASES[case]
    answer = CliRunner().invoke(app, ["import", *make(tmp_path)])
    assert answer.exit_code == code, answer.output
    assert 0 < len(answer.output.splitlines()) <= 12
    assert len(answer.output.encode()) <= 5000
    assert "\x1b" not in answer.output
    if code == 0:
        whole = (tmp_path / "data/import.txt").read_text()
        assert f"the whole summary is in {tmp_path}/data/import.txt" in answer.output
        assert last in whole
        assert "\x1b" not in whole
    else:
        assert not (tmp_path / "data").exists()


VALUES: dict[str, Any] = {"nan_is_missing": True, "keep_rare": True, "slices": "axial", "dates": "dmy"}
VALUES |= {"repeated": "first", "na": {"": ("9",)}}
VALUES |= {"folders": "classes", "size": (4, 4), "mode": "L", "alpha": "white", "first_frame": True}
VALUES |= {"layer": {"": "counts"}, "obsm": ("protein",), "series": "rows", "resample": "first"}


def test_every_option_is_read_by_a_format_or_names_something() -> None:
    options = {field.name for field in fields(Roles)} - {*NAMING}
    assert options == {option for format in FORMATS.values() for option in format.OPTIONS}
    assert options <= {*VALUES}


@pytest.mark.parametrize("option", VALUES)
@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npz", "a.h5ad", "images", "volumes"])
def test_an_option_applies_or_is_refused(tmp_path: Path, name: str, option: str) -> None:
    source = tmp_path / name
    inside = {"images": "m/0.png", "volumes": "T1/0.nii"}.get(name)
    (path := source / inside if inside else source).parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    format = next(format for format in FORMATS.values() if format.recognises(source))
    roles = replace(Roles(), **{option: VALUES[option]})
    if option in format.OPTIONS:
        check_options([source], roles)
    else:
        with pytest.raises(UserError, match=rf"^--{option.replace('_', '-')}: .* found, .* expected .*leave it out$"):
            check_options([source], roles)
    other = tmp_path / "other.csv"
    other.touch()
    if option in FORMATS["tables"].OPTIONS:
        check_options([source, other], roles)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--slices", "axial"), "--slices: .*t.csv found, .*volumes"),
        (("--nan-is-missing",), "--nan-is-missing: .*t.csv found"),
        (("--like", "data", "--seed", "1"), "--seed: 1 found together with --like"),
        (("--like", "data", "--split", "x"), "--split: x found together with --like"),
        (("--split", "x", "--test-share", "0.3"), "--test-share: 0.3 found together with --split"),
    ],
)
def test_options_that_do_not_apply_are_refused(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    arguments = a_table(tmp_path, {"x": numbers(), "y": numbers()}, *options)
    answer = CliRunner().invoke(app, ["import", *arguments])
    assert answer.exit_code == 1
    assert re.search(sentence, answer.stderr), answer.stderr
    assert not (tmp_path / "data").exists()
