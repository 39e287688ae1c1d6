"""Tables that cannot be imported: each gives one sentence."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.importing import ROLES, N, clinic, refused, write

from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError


def put(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    """Return a change that replaces a column, or appends it if there is none of this name."""

    def change(table: pa.Table) -> pa.Table:
        if name in table.column_names:
            return table.set_column(table.column_names.index(name), name, pa.array(values))
        return table.append_column(name, pa.array(values))

    return change


FACES: dict[str, tuple[Callable[[pa.Table], pa.Table], Roles, str]] = {
    "constant columns alone": (
        lambda t: put("crp", [1.5] * N)(t).select(["patient", "crp"]),
        ROLES,
        "no modality found|no such column found",
    ),
    "one label": (
        put("diagnosis", ["ill"] * N),
        ROLES,
        "label diagnosis: only the class 'ill' found, expected two classes",
    ),
    "a label that is a number": (
        put("diagnosis", np.arange(N) / 7),
        ROLES,
        r"label diagnosis: values such as 0\.\d+ found, expected at most 1000 classes; for a quantity use --target",
    ),
    "one row of a label": (
        put("diagnosis", ["rare"] + ["a", "b"] * 59 + ["a"]),
        Roles(id="patient", label="diagnosis", split="part", rare_labels="keep"),
        "label rare: 1 rows found, and none of them in train",
    ),
    "an id twice": (
        put("patient", ["p"] * 2 + list("0" * 0) + [f"q{i}" for i in range(N - 2)]),
        ROLES,
        "'p' found 2 times",
    ),
    "a long id": (
        put("patient", ["x" * 200_000] + [f"q{i}" for i in range(N - 1)]),
        ROLES,
        r"clinic\.parquet: patient: a text of 200000 characters, x{20}…x{20}, found, expected at most 1000",
    ),
    "a long subject": (
        put("age", ["x" * 1001] + ["a"] * (N - 1)),
        Roles(id="patient", group="age"),
        r"clinic\.parquet: age: a text of 1001 characters",
    ),
    "no id": (put("patient", [None] + [f"q{i}" for i in range(N - 1)]), ROLES, "1 rows without an id"),
    "a text among numbers": (
        put("crp", ["unknown" if row == 9 else f"{row}.5" for row in range(N)]),
        Roles(id="patient", label="diagnosis", split="part"),
        r"clinic\.parquet: column crp: the text 'unknown' found among numbers, expected only numbers and empty cells",
    ),
    "categories that are all rare": (
        put("crp", [f"c{row}" for row in range(N)]),
        Roles(id="patient", kinds={"crp": "categorical"}),
        rf"clinic\.parquet: column crp: {N} values found, 0 of them in 5 rows or more, expected two categories or "
        "more; add --keep-rare",
    ),
    "numbers whose squares are none": (
        put("crp", [1e300, 1.5] * 60),
        ROLES,
        r"clinic\.parquet: column crp: values from 1\.5 to 1e\+300 found, .* rescale the column or leave it out",
    ),
    "infinity": (put("crp", [np.inf] * N), ROLES, "column crp: infinity found"),
    "a date that is a category": (
        put("seen", np.arange(N).astype("datetime64[D]")),
        Roles(id="patient", kinds={"seen": "categorical"}),
        "column seen: dates found, expected --kind seen=numeric",
    ),
    "a label that is a list": (
        put("tags", [[1, 2]] * N),
        Roles(id="patient", label="tags"),
        "column tags: type list.* found, expected numbers",
    ),
    "a subject on two sides": (
        put("subject", np.arange(N) % 50),
        Roles(id="patient", group="subject", split="part"),
        r"subject \d+: rows found in \d splits, expected all rows in one",
    ),
    "a misspelt name to skip": (
        lambda t: t,
        Roles(id="patient", skip=("crpp",)),
        r"--skip crpp: no such column, array or folder found \(did you mean crp",
    ),
    "a column in two groups": (
        lambda t: t,
        Roles(modalities={"labs": ("crp", "visits"), "blood": ("crp",)}),
        "--modality: column 'crp' found in two modalities, expected it in only one",
    ),
    "a misspelt label": (
        lambda t: t,
        Roles(label="diagnose"),
        r"--label diagnose: no such column found \(did you mean diagnosis",
    ),
    "a misspelt group": (
        lambda t: t,
        Roles(modalities={"labs": ("crp", "visit")}),
        r"--modality labs: clinic.parquet has no column 'visit' without a role \(did you mean visits",
    ),
    "a group that is nowhere": (
        lambda t: t,
        Roles(modalities={"labs": ("a", "b")}),
        "labs: none of its columns",
    ),
    "a kind that is none": (
        lambda t: t,
        Roles(kinds={"age": "number"}),
        "'number', which is not a known kind of column",
    ),
    "a kind of texts": (
        lambda t: t,
        Roles(kinds={"site": "count"}),
        "column site: texts found, expected numbers",
    ),
    "a kind of halves": (lambda t: t, Roles(kinds={"weight": "count"}), "column weight: .* whole numbers"),
    "a kind of what is not there": (lambda t: t, Roles(kinds={"ag": "count"}), "--kind ag: no such column"),
    "a split that is none": (lambda t: t, Roles(id="patient", split="site"), "--split site: 'Bern' found"),
    "too few rows": (
        lambda t: t.slice(0, 12),
        Roles(id="patient"),
        "train: . rows found, expected 10|.*rows found, expected [23]",
    ),
    "no rows": (lambda t: t.slice(0, 0), ROLES, "no rows found below the headers"),
    "nothing but roles": (lambda t: t.select(["patient", "diagnosis"]), ROLES, "no modality found"),
}


@pytest.mark.parametrize("case", FACES)
def test_invalid_tables_give_one_sentence(tmp_path: Path, case: str) -> None:
    spoil, roles, sentence = FACES[case]
    table = spoil(clinic().append_column("part", pa.array(["test"] * 20 + ["validation"] * 20 + ["train"] * 80)))
    if "part" in table.column_names and roles.split is None:
        table = table.drop_columns(["part"])
    path = write(table, tmp_path / "clinic.parquet")
    refused(path, tmp_path / "data", sentence, roles)


def test_files_that_are_not_tables_are_refused(tmp_path: Path) -> None:
    for name, content, sentence in (
        ("twice.csv", b"a,b,a\n1,2,3\n", "header 'a' found twice"),
        ("ids.csv", b"id,id\n1,2\n", "header 'id' found twice"),
        ("nameless.csv", b"a,,c\n1,2,3\n", "column 2 has an empty header"),
        ("short.csv", b"a,b\n1,2\n3\n", r"line 3 has 1 cell, expected 2, as in the headers \(a, b\)"),
        (
            "title.csv",
            b"# by X\nReport\n\na,b\n1,2\n",
            "the title .Report. found above the headers, .* delete the lines above them",
        ),
        ("packed.csv", gzip.compress(b"a,b\n1,2\n"), r"gzip compressed found, .* add \.gz to its name"),
        ("sheet.csv", b"PK\x03\x04\0\0", "spreadsheet or a zip archive found, .* save the sheet as CSV"),
        ("bytes_8.csv", "a,b\né,ü\nà,".encode() + b"\xfc\n", "UTF-8 with other bytes found, the first in line 3"),
        ("numbers.csv", b"5,5\n1,2\n", "header '5' found twice, .* or add a row of headers if there is none"),
        ("lone.csv", b"id,v\n1,2\n", r"no modality found, .* \(lone.csv: constant or free text"),
        ("commas.csv", b",,,\n,,,\n", "column 1 has an empty header"),
        ("lines.csv", b"\n\n\n", "no text found, expected a row of headers"),
        ("bytes.csv", bytes(range(256)), "not a table with one header per column"),
        ("none.parquet", b"PAR1", "not a table with one header per column"),
        ("none.csv", b"", "no text found, expected a row of headers"),
        ("none.pdf", b"", "no data in a known format found, expected an .npz archive"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        refused(path, tmp_path / "data", sentence, Roles())
    with pytest.raises(UserError, match="no such file or folder"):
        import_data([tmp_path / "gone.csv"], tmp_path / "data", Roles())


def test_a_duplicate_header_in_parquet_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1.0, 2.0])] * 2, names=["a", "a"])
    refused(write(table, tmp_path / "a.parquet"), tmp_path / "data", "header 'a' found twice", Roles())


def test_a_link_to_a_table_outside_is_refused(tmp_path: Path) -> None:
    write(clinic().select(["patient", "age"]), tmp_path / "in/age.csv")
    (tmp_path / "in/crp.csv").symlink_to(write(clinic().select(["patient", "crp"]), tmp_path / "crp.csv"))
    refused(tmp_path / "in", tmp_path / "data", r"crp\.csv: this link leads out of .*in, expected files inside", ROLES)


def test_folders_that_an_import_would_destroy_are_refused(tmp_path: Path) -> None:
    """A folder of the user may contain folders with the names of the splits."""
    path = write(clinic(), tmp_path / "clinic.csv")
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / "data/train/picture.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"found train/picture\.png in it, which this command did not write"):
        import_data([path], tmp_path / "data", ROLES)
    assert (tmp_path / "data/train/picture.png").read_bytes() == b"mine"
    import_data([path], tmp_path / "made", ROLES)
    inside = write(clinic(), tmp_path / "made/train/clinic.csv")
    with pytest.raises(UserError, match=r"found the input .*clinic\.csv in it"):
        import_data([inside], tmp_path / "made", ROLES)
    assert inside.exists()
    with pytest.raises(UserError, match="--seed: -1 found, expected a whole number of at least 0"):
        import_data([path], tmp_path / "new", ROLES, seed=-1)


def test_tables_that_do_not_match_are_refused(tmp_path: Path) -> None:
    table = clinic()
    body = write(table.select(["patient", "weight"]), tmp_path / "body.csv")
    labs = write(table.select(["crp"]).slice(1), tmp_path / "labs.csv")
    with pytest.raises(UserError, match=r"labs.csv: 119 rows found, expected 120 as in body.csv"):
        import_data([body, labs], tmp_path / "data", Roles())
    with pytest.raises(UserError, match=r"labs.csv: no ids found, expected ids as in body.csv"):
        import_data([body, labs], tmp_path / "data", Roles(id="patient"))
    other = pa.table({"patient": [f"x{row}" for row in range(N)], "crp": table["crp"]})
    with pytest.raises(UserError, match=r"no id is also in body.csv \(found 'x0' here and 'p000' there\)"):
        import_data([body, write(other, tmp_path / "labs.csv")], tmp_path / "data", Roles(id="patient"))
    with pytest.raises(UserError, match="modality body: found in two sources"):
        import_data(
            [body, write(table.select(["patient", "crp"]), tmp_path / "b/body.csv")],
            tmp_path / "data",
            Roles(id="patient"),
        )


def test_a_file_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"clinic\xff.csv")
    try:
        write(clinic(), tmp_path / "clinic.csv").rename(path)
    except OSError:
        pytest.skip("This disk has names in UTF-8 alone")
    with pytest.raises(UserError, match="expected file names in UTF-8; rename the file"):
        import_data([path], tmp_path / "data", ROLES)
    assert not (tmp_path / "data").exists()
