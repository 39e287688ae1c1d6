"""Rows for a trained model get its scales, categories and labels, whatever the rows lack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as parquet
import pytest
from support.archives import saved, views
from support.importing import ROLES, clinic, write

from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.data.export import FILLED, export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.rows import import_rows
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Import patients with a table and targets, and return the folder."""
    root = tmp_path_factory.mktemp("trained")
    roles = Roles(id="patient", label="diagnosis", targets=("arm",), skip=("visits",))
    import_data([write(clinic(), root / "clinic.csv")], root / "data", roles)
    return root / "data"


def test_rows_get_the_numbers_of_the_training_data(trained: Path, tmp_path: Path) -> None:
    """The same patients give the same numbers as in the splits, whether imported alone or together with others."""
    source = write(clinic().slice(0, 9), tmp_path / "new.csv")
    text = "\n".join(import_rows([source], tmp_path / "new", Roles(), trained))
    assert "rows: 9" in text
    assert "not in the training data, left out: visits" in text
    new = Dataset.load(tmp_path / "new")
    assert new.ids is not None
    for split in ("train", "validation", "test"):
        known = Dataset.load(trained / split)
        assert known.ids is not None
        assert new.modalities == known.modalities
        assert new.label_names == known.label_names
        for row, name in enumerate(known.ids):
            for at in np.flatnonzero(new.ids == name):
                for field in ("labels", "targets"):
                    assert getattr(new, field)[at] == getattr(known, field)[row]
                for arrays in ("data", "cells"):
                    found, expected = (getattr(of, arrays)["clinic"] for of in (new, known))
                    np.testing.assert_array_equal(found[at], expected[row])
    assert conformed(new, new.modalities) is new


def test_absent_columns_are_missing_cells(trained: Path, tmp_path: Path) -> None:
    table = clinic(5, 3).drop_columns(["diagnosis", "crp", "arm", "smoker"])
    text = "\n".join(import_rows([write(table, tmp_path / "new.csv")], tmp_path / "new", Roles(), trained))
    assert "missing in every row: smoker, crp" in text
    new = Dataset.load(tmp_path / "new")
    assert new.labels is None
    assert new.targets is None
    columns = [column.name for column in new.modalities[0].columns]
    lacking = ~new.cells["clinic"].any(0)
    assert {name for name, there in zip(columns, lacking, strict=True) if there} == {"crp", "smoker"}
    export(tmp_path / "new", tmp_path / "back")
    back = csv.read_csv(tmp_path / "back/clinic.csv")
    assert back["weight"].to_pylist() == table["weight"].to_pylist()
    assert back["site"].to_pylist() == table["site"].to_pylist()
    assert back["crp"].null_count == 5


def test_an_export_lists_what_was_imputed(trained: Path, tmp_path: Path) -> None:
    table = clinic(5, 3).set_column(7, "crp", pa.array([1.0, None, 2.0, 3.0, None]))
    import_rows([write(table, tmp_path / "new.csv")], tmp_path / "new", Roles(), trained)
    new = Dataset.load(tmp_path / "new")
    wholly = np.arange(5)[:, None] == 4
    lacking = ~new.cells["clinic"]
    filled = replace(
        new,
        cells={},
        filled=wholly | lacking.any(1, keepdims=True),
        filled_cells={"clinic": wholly | lacking},
        folder=None,
    )
    filled.save(tmp_path / "filled")
    export(tmp_path / "filled", tmp_path / "out")
    told = csv.read_csv(tmp_path / "out" / FILLED).to_pylist()
    names = [column.name for column in new.modalities[0].columns]
    assert new.ids is not None
    assert told == [
        {
            "patient": new.ids[row],
            "modality": "clinic",
            "filled": "all" if wholly[row] else "; ".join(np.array(names)[lacking[row]]),
        }
        for row in range(5)
        if wholly[row] or lacking[row].any()
    ]
    assert {line["filled"] for line in told} >= {"all", "crp"}
    new.save(tmp_path / "plain")
    export(tmp_path / "plain", tmp_path / "unmarked")
    assert not (tmp_path / "unmarked" / FILLED).exists()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_rows_without_values_are_restored_if_their_file_had_them(tmp_path: Path, suffix: str) -> None:
    """Every fifth row of one file has only a label, every seventh of the other no value, and some are in one file."""
    rows = np.arange(60)
    y = pa.array(rows / 4, mask=rows % 5 == 0)
    files = {
        "a": pa.table({"id": rows, "y": y, "lab": np.array(["u", "v"])[rows % 2]}),
        "b": pa.table({"id": rows, "x": pa.array(rows / 8, mask=rows % 7 == 0), "z": pa.nulls(60, pa.float64())}),
    }
    z = pa.array(np.random.default_rng(0).normal(size=60), mask=rows % 7 == 0)
    files["b"] = files["b"].set_column(2, "z", z).filter(pa.array(rows % 11 != 3))
    paths = [write(table, tmp_path / f"{name}{suffix}") for name, table in files.items()]
    import_data(paths, tmp_path / "data", Roles(label="lab"))
    for path in paths:
        parts = []
        for split in ("train", "validation", "test"):
            out = tmp_path / split
            if not out.exists():
                export(tmp_path / "data" / split, out)
            parts.append(csv.read_csv(out / path.name) if suffix == ".csv" else parquet.read_table(out / path.name))
        there = pa.concat_tables(parts).sort_by("id").to_pylist()
        dropped = rows[(rows % 5 == 0) & ((rows % 7 == 0) | (rows % 11 == 3))]  # rows without any modality
        assert there == [row for row in files[path.stem].to_pylist() if row["id"] not in dropped]


def test_two_tables_may_have_columns_of_one_name(tmp_path: Path) -> None:
    first, second = (clinic().select(["patient", "age", of]) for of in ("crp", "weight"))
    paths = [write(first, tmp_path / "labs.csv"), write(second, tmp_path / "body.csv")]
    import_data(paths, tmp_path / "data", Roles(id="patient"))
    known = Dataset.load(tmp_path / "data/train")
    for chosen in (paths, paths[1:]):
        import_rows(chosen, tmp_path / "new", Roles(), tmp_path / "data")
        new = Dataset.load(tmp_path / "new")
        assert new.modalities == known.modalities[-len(chosen) :]
        assert new.ids is not None
        rows = [new.ids.tolist().index(name) for name in known.ids]  # type: ignore[union-attr]
        np.testing.assert_array_equal(new.data["body"][rows], known.data["body"])


def change(name: str, values: list[Any]) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, pa.array(values))

    return changed


SITES = ["Bern", "Chur"] * 4
TABLES: dict[str, tuple[Callable[[pa.Table], pa.Table], Roles, str]] = {
    "a category that training never saw": (
        change("site", SITES),
        Roles(),
        r"new\.csv: column site: 'Chur' found, which no training row has, expected one of Bern, Genf, Zug; correct",
    ),
    "a label that training never saw": (
        change("diagnosis", ["ill", "dead"] * 4),
        Roles(),
        "label diagnosis: 'dead' found, which no training row has, expected one of ill, well",
    ),
    "a label that is not there": (
        lambda table: table.drop_columns(["diagnosis"]),
        Roles(label="diagnosis"),
        "--label diagnosis: no such column",
    ),
    "texts for numbers": (change("age", ["old"] * 8), Roles(), "column age: texts found, expected numbers"),
    "nothing that is known": (
        lambda table: table.select(["patient"]),
        Roles(),
        r"new\.csv: no modality found",
    ),
    "an id twice": (change("patient", ["p"] * 8), Roles(), "patient 'p' found 8 times"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_do_not_fit_are_refused(trained: Path, tmp_path: Path, case: str) -> None:
    spoil, roles, sentence = TABLES[case]
    path = write(spoil(clinic(8, 5)), tmp_path / "new.csv")
    with pytest.raises(UserError, match=sentence) as error:
        import_rows([path], tmp_path / "new", roles, trained)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_arrays_may_lack_modalities_and_labels(tmp_path: Path) -> None:
    import_data([saved(tmp_path, views())], tmp_path / "data", Roles())
    known = Dataset.load(tmp_path / "data/train")
    some = {key: array[:7] for key, array in views().items() if key in ("vector", "grey", "bits", "ids")}
    some["bits"] = np.zeros_like(some["bits"])  # new rows may have only one of two values
    (tmp_path / "some").mkdir()
    text = "\n".join(import_rows([saved(tmp_path / "some", some)], tmp_path / "new", Roles(), tmp_path / "data/train"))
    assert "missing in every row: scalar, reads, colour, scan" in text
    new = Dataset.load(tmp_path / "new")
    assert [m.name for m in new.modalities] == ["vector", "bits", "grey"]
    assert known.ids is not None
    for row, name in enumerate(known.ids):
        if int(name[1:]) < 7:
            np.testing.assert_array_equal(new.data["vector"][int(name[1:])], known.data["vector"][row])
    assert not conformed(new, known.modalities).observed[:, 1].any()
    other = {"grey": np.zeros((7, 6, 5), np.float32)}
    for changed, sentence in (
        ({**some, **other}, r"grey: float32 of shape \(6, 5\) found, expected uint8 of shape \(6, 5\)"),
        (
            {**some, "vector": some["vector"][:, :3]},
            r"vector: float64 of shape \(3,\) found, expected .* \(4,\)",
        ),
        (
            {**some, "extra": np.arange(7.0)},
            "modality extra: not in the training data, expected some of bits",
        ),
    ):
        with pytest.raises(UserError, match=sentence):
            import_rows([saved(tmp_path / "some", changed)], tmp_path / "new", Roles(), tmp_path / "data")
    assert Dataset.load(tmp_path / "new").hash == new.hash  # the existing folder is unchanged
    import_rows([saved(tmp_path / "some", some)], tmp_path / "new", Roles(), tmp_path / "data")
    with pytest.raises(UserError, match=r"found the input .*data in it"):
        import_rows([saved(tmp_path / "some", some)], tmp_path / "data", Roles(), tmp_path / "data")
    with pytest.raises(UserError, match=r"found \S+ in it, which this command did not write"):
        import_rows([saved(tmp_path / "some", some)], tmp_path / "data/test", Roles(), tmp_path / "data/train")


def test_manifests_decide_between_the_likelihoods_of_real_arrays(tmp_path: Path) -> None:
    """Rows follow the training data, and come back byte for byte; other changes of a manifest are refused."""
    import_data([saved(tmp_path, views())], tmp_path / "data", Roles())
    manifest = tmp_path / "data/train/manifest.json"
    before = manifest.read_text()
    manifest.write_text(before.replace('"laplace"', '"normal"'))
    (tmp_path / "some").mkdir()
    some = {key: array[:7] for key, array in views().items() if key in ("vector", "grey", "scan", "ids")}
    import_rows([saved(tmp_path / "some", some)], tmp_path / "new", Roles(), tmp_path / "data/train")
    new, known = Dataset.load(tmp_path / "new"), Dataset.load(tmp_path / "data/train")
    assert {m.name: m.likelihood for m in new.modalities} == {"vector": "normal", "grey": "normal", "scan": "normal"}
    assert conformed(new, known.modalities, known.conversion).observed.sum() == 7 * 3
    export(tmp_path / "new", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.npz")
    with np.load(path) as found:
        for name in ("vector", "grey", "scan"):
            np.testing.assert_array_equal(found[name], some[name])
    manifest.write_text(before.replace('"laplace"', '"bernoulli"'))
    with pytest.raises(UserError, match="it belongs to other data"):
        import_rows([saved(tmp_path / "some", some)], tmp_path / "new", Roles(), tmp_path / "data/train")


def test_data_without_a_conversion_are_refused(tmp_path: Path) -> None:
    from support.kinds import example

    example(12).save(tmp_path / "data")
    path = write(clinic(), tmp_path / "clinic.csv")
    with pytest.raises(
        UserError, match="no conversion found in its manifest, expected a folder that postprior import wrote"
    ):
        import_rows([path], tmp_path / "new", ROLES, tmp_path / "data")


def test_rows_are_read_in_the_form_of_the_training_data(tmp_path: Path) -> None:
    """Month and day come in the order that the training data show; rare texts are one category, whatever they are."""
    seen = [f"{row % 12 + 1}/{row % 28 + 1}/2020" for row in range(60)]
    rows = [f"{row},{seen[row]},{'queen' if row < 6 else 'Bern' if row % 2 else 'Zug'},k" for row in range(60)]
    rare = [row.replace("queen", f"queen {place % 2}") for place, row in enumerate(rows)]
    head = "id,seen,job,same"
    (tmp_path / "a.csv").write_text("\n".join([head, *rare]))
    import_data([tmp_path / "a.csv"], tmp_path / "data", Roles())
    (tmp_path / "a.csv").write_text("\n".join([head, "7,2/3/2020,king,k", "9,3/2/2020,Zug,"]))
    import_rows([tmp_path / "a.csv"], tmp_path / "new", Roles(), tmp_path / "data")
    new = Dataset.load(tmp_path / "new")
    assert new.conversion is not None
    date, job = new.conversion["modalities"]["a"]["columns"]
    days = date["offset"] + date["scale"] * new.data["a"][:, 0]
    expected = [np.datetime64(day).astype(int) for day in ("2020-02-03", "2020-03-02")]
    np.testing.assert_allclose(days, expected, atol=1e-2)
    assert [job["values"][int(place)] for place in new.data["a"][:, 1]] == ["other", "Zug"]
    export(tmp_path / "new", tmp_path / "back")
    assert (tmp_path / "back/a.csv").read_text().splitlines() == [head, "7,2/3/2020,king,k", "9,3/2/2020,Zug,"]
    (tmp_path / "a.csv").write_text("\n".join([head, "7,20,king,k"]))
    with pytest.raises(UserError, match="column seen: type int64 found, expected type date32"):
        import_rows([tmp_path / "a.csv"], tmp_path / "newer", Roles(), tmp_path / "data")
