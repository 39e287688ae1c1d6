"""`postprior import` and `export` on invalid files, by the real command: one sentence, no traceback, no files left."""

from __future__ import annotations

import csv
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from postprior.pipelines.commands.app import app
from postprior.pipelines.data.dataset import Dataset

N = 60
X = np.random.default_rng(0).normal(size=(N, 3))
Sources = tuple[str, ...]
"""Arguments that follow `postprior import`, including the folder `data`."""


def rows(header: str, line: Callable[[int], str], count: int = N) -> str:
    return "\n".join([header, *(line(row) for row in range(count))]) + "\n"


def tables(**texts: str) -> Callable[[], None]:
    def make() -> None:
        for name, text in texts.items():
            Path(f"{name}.csv").write_text(text)

    return make


def archive(**arrays: np.ndarray) -> Callable[[], None]:
    return lambda: np.savez("views.npz", **arrays)


def images(odd: Callable[[Path], object]) -> Callable[[], None]:
    def make() -> None:
        Path("scans/mri").mkdir(parents=True)
        for row in range(30):
            Image.fromarray(np.full((5, 4), row, np.uint8)).save(f"scans/mri/{row:02}.png")
        odd(Path("scans/mri/07.png"))

    return make


def volumes(shape: tuple[int, ...], affine: np.ndarray) -> Callable[[], None]:
    def make() -> None:
        nibabel = pytest.importorskip("nibabel")
        Path("scans/T1").mkdir(parents=True)
        for row in range(30):
            voxels = np.random.default_rng(row).normal(size=(4, 5, 6) if row != 7 else shape)
            image = nibabel.Nifti1Image(voxels, np.eye(4) if row != 7 else affine)
            nibabel.save(image, f"scans/T1/{row:02}.nii.gz")

    return make


def a_link(path: Path) -> None:
    path.rename("elsewhere.png")
    path.symlink_to(Path("elsewhere.png").resolve())


BODY = rows("id,weight", lambda row: f"{row},{row % 9 + 0.5}")
CASES: dict[str, tuple[Callable[[], None], Sources, str]] = {
    "files of unequal length": (
        tables(body=rows("weight", lambda row: f"{row}.5"), labs=rows("crp", lambda row: f"{row}.5", N - 1)),
        ("body.csv", "labs.csv", "data"),
        "labs.csv: 59 rows found, expected 60 as in body.csv; match rows by a column with --id",
    ),
    "arrays of unequal length": (
        archive(x=X, y=X[1:]),
        ("views.npz", "data"),
        "views.npz: y: shape (59, 3) found, expected 60 rows as in x; give each array one row per sample",
    ),
    "ids that do not match": (
        tables(body=BODY, labs=rows("id,crp", lambda row: f"p{row},{row}.5")),
        ("body.csv", "labs.csv", "data"),
        "labs.csv: no id is also in body.csv (found 'p0' here and '0' there), expected the same ids; correct them or "
        "name another column with --id",
    ),
    "an unreadable image": (
        images(lambda path: path.write_bytes(b"no image")),
        ("scans", "data"),
        "scans/mri/07.png: this image cannot be read (it is not an image of a known format); replace it or "
        "leave it out",
    ),
    "a volume of another shape": (
        volumes((4, 5, 7), np.eye(4)),
        ("scans", "data"),
        "scans/T1/07.nii.gz: shape 4 × 5 × 7 found, expected 4 × 5 × 6 as in 00.nii.gz; add --resample first, "
        "or resample or register the volume",
    ),
    "a volume of other voxels": (
        volumes((4, 5, 6), np.diag([1.0, 1, 2, 1])),
        ("scans", "data"),
        "scans/T1/07.nii.gz: voxel size 1 × 1 × 2 mm found, expected 1 × 1 × 1 mm as in 00.nii.gz; add --resample "
        "first, or resample or register the volume",
    ),
    "a constant array": (
        archive(x=X, y=np.ones((N, 2))),
        ("views.npz", "data"),
        "y: all values are 1 in the training rows, expected two or more different values; leave it out (--skip y)",
    ),
    "one class": (
        tables(body=rows("id,weight,kind", lambda row: f"{row},{row % 9 + 0.5},ill")),
        ("body.csv", "data", "--label", "kind"),
        "label kind: only the class 'ill' found, expected two classes or more; leave --label out",
    ),
    "too few rows": (
        tables(body=rows("id,weight", lambda row: f"{row},{row % 9 + 0.5}", 9)),
        ("body.csv", "data"),
        "train: 6 rows found, expected 10 or more; provide more rows or change the shares",
    ),
    "objects": (
        archive(x=np.array([{}] * N, dtype=object)),
        ("views.npz", "data"),
        "views.npz: x: no array of numbers or texts found (Object arrays cannot be loaded when "
        "allow_pickle=False); write the file again, without Python objects",
    ),
    "a pickle": (
        lambda: Path("views.npz").write_bytes(pickle.dumps({"x": 1})) and None,
        ("views.npz", "data"),
        "views.npz: this is not an .npz file, or only a part of one, expected a complete .npz file as "
        "numpy.savez writes it; write it again",
    ),
    "a path that climbs out of a folder": (
        images(a_link),
        ("scans", "data"),
        "scans/mri/07.png: this link leads out of scans, expected files inside it; copy the file there",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_invalid_input_gives_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    make, arguments, sentence = CASES[case]
    monkeypatch.chdir(tmp_path)
    make()
    before = sorted(path.name for path in tmp_path.iterdir())
    answer = CliRunner().invoke(app, ["import", *arguments])
    assert answer.exit_code == 1, answer.output
    assert answer.stderr == f"postprior: error: {sentence}\n"
    assert not answer.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_process_ends_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "body.csv").write_text("")
    command = [str(Path(sys.executable).with_name("postprior")), "import", "body.csv", "data"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr.startswith("postprior: error: body.csv: this is not a table with one header")
    assert answer.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["body.csv"]


def test_a_category_unknown_from_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("body.csv").write_text(rows("id,weight,site", lambda row: f"{row},{row}.5,{['Bern', 'Zug'][row % 2]}"))
    assert CliRunner().invoke(app, ["import", "body.csv", "data"]).exit_code == 0
    Path("body.csv").write_text(rows("id,weight,site", lambda row: f"{row},{row}.5,{['Bern', 'Chur'][row % 2]}", 8))
    answer = CliRunner().invoke(app, ["import", "body.csv", "new", "--like", "data"])
    assert answer.exit_code == 1
    assert answer.stderr == (
        "postprior: error: body.csv: column site: 'Chur' found, which no training row has, expected one of Bern, Zug; "
        "correct the value or leave the row out\n"
    )
    assert not Path("new").exists()


FORMULAS = ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", "+", "-1", "plain"]


def test_formulas_are_guarded_on_request_and_only_in_generated_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Observed texts, ids and headers are unchanged; imputed and drawn texts get an apostrophe on request."""
    monkeypatch.chdir(tmp_path)
    lines = [f"={row},{row}.5,{FORMULAS[row % 7] if row % 5 else ''},{'=ab'[row % 2 :]}" for row in range(N)]
    Path("notes.csv").write_text("\n".join(["id,x,=note,kind", *lines]) + "\n")

    def run(*arguments: str) -> None:
        answer = CliRunner().invoke(app, list(arguments))
        assert answer.exit_code == 0, answer.output

    run("import", "notes.csv", "data", "--label", "kind")
    train = Dataset.load(Path("data/train"))
    assert train.ids is not None
    places = np.arange(len(train)) % 7
    values = np.array(train.data["notes"])
    values[:, 1] = np.where(train.cells["notes"][:, 1], values[:, 1], places)
    categories = train.conversion["modalities"]["notes"]["columns"][1]["values"]  # type: ignore[index]
    holes = ~np.asarray(train.cells["notes"])
    known = {"data": {"notes": values}, "cells": {}, "folder": None}
    filled = {"filled": holes.any(1, keepdims=True), "filled_cells": {"notes": holes}}
    replace(train, **known, **filled).save(Path("filled"))
    replace(train, **known, ids=None, provenance={"sampler": "gmm"}, source_values={}).save(Path("drawn"))
    for name in ("data/train", "filled", "drawn"):
        run("export", name, f"{name}-plain")
        run("export", name, f"{name}-safe", "--excel-safe")
    assert sorted(Path("data/train-plain/notes.csv").read_text().splitlines()[1:]) == sorted(
        line for line in lines if line.split(",")[0] in train.ids
    )
    assert Path("data/train-safe/notes.csv").read_bytes() == Path("data/train-plain/notes.csv").read_bytes()

    def rows_of(folder: str) -> list[dict[str, str]]:
        with open(f"{folder}/notes.csv", newline="") as file:
            return list(csv.DictReader(file))

    def safe(text: str) -> str:
        return text if text in ("plain", "-1", "ab") else f"'{text}"

    for row, (plain, guarded) in enumerate(zip(rows_of("filled-plain"), rows_of("filled-safe"), strict=True)):
        expected = categories[places[row]] if holes[row, 1] else plain["=note"]
        assert plain["=note"] == expected
        assert guarded == {**plain, "=note": safe(expected) if holes[row, 1] else expected}
    for plain, guarded in zip(rows_of("drawn-plain"), rows_of("drawn-safe"), strict=True):
        assert guarded == {**plain, "=note": safe(plain["=note"]), "kind": safe(plain["kind"])}


def test_marks_of_missing_cells_are_given_for_all_columns_or_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("body.csv").write_text(rows("id,a,b", lambda row: f"{row},{row}.5,{row % 7 + 1}"))
    answer = CliRunner().invoke(app, ["import", "body.csv", "data", "--na", "3.5", "--na", "b=2"])
    assert answer.exit_code == 0, answer.output
    train = json.loads(Path("data/train/manifest.json").read_text())["conversion"]["modalities"]["body"]["columns"]
    assert [column["form"]["missing"] for column in train] == [["3.5"], ["3.5", "2"]]
    Path("body.csv").write_text(rows("id,a,b", lambda row: f"{row},{row}.5,2", 8))
    assert CliRunner().invoke(app, ["import", "body.csv", "new", "--like", "data"]).exit_code == 0
    assert not np.load("new/body.observed.npy")[:, 1].any()
