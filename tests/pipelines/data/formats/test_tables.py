"""Import and export of tables: kinds of columns, matching by id, headers, units and types."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest
from support.importing import ROLES, N, clinic, write

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError

SPLITS = ("train", "validation", "test")


def load(folder: Path) -> dict[str, Dataset]:
    return {split: Dataset.load(folder / split) for split in SPLITS}


def together(folder: Path, out: Path) -> dict[str, pa.Table]:
    """Export the tables of all splits and concatenate them, sorted by patient."""
    tables: dict[str, list[pa.Table]] = {}
    for split in SPLITS:
        for name in export(folder / split, out / split):
            path = out / split / name
            table = parquet.read_table(path) if path.suffix == ".parquet" else csv.read_csv(path)
            tables.setdefault(name, []).append(table)
    return {name: pa.concat_tables(parts).sort_by("patient") for name, parts in tables.items()}


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".tsv"])
def test_a_table_is_restored(tmp_path: Path, suffix: str) -> None:
    table = clinic()
    if suffix == ".tsv":
        path = tmp_path / "clinic.tsv"
        csv.write_csv(table, path, csv.WriteOptions(delimiter="\t"))
        suffix_read = lambda path: csv.read_csv(path, parse_options=csv.ParseOptions(delimiter="\t"))  # noqa: E731
    else:
        path = write(table, tmp_path / f"clinic{suffix}")
        suffix_read = parquet.read_table if suffix == ".parquet" else csv.read_csv
    import_data([path], tmp_path / "data", ROLES)
    parts = []
    for split in SPLITS:
        export(tmp_path / "data" / split, tmp_path / "back" / split)
        parts.append(suffix_read(tmp_path / "back" / split / path.name))
    back, original = pa.concat_tables(parts).sort_by("patient"), suffix_read(path)
    assert back.schema.names == original.schema.names
    assert back.schema.types == original.schema.types
    for name in original.column_names:
        assert back[name].to_pylist() == original[name].to_pylist(), name


def test_kinds_are_recognised(tmp_path: Path) -> None:
    text = "\n".join(import_data([write(clinic(), tmp_path / "clinic.csv")], tmp_path / "data", ROLES))
    (modality,) = Dataset.load(tmp_path / "data/train").modalities
    assert {column.name: column.likelihood for column in modality.columns} == {
        "age": "normal",
        "weight": "normal",
        "site": "categorical",
        "smoker": "bernoulli",
        "arm": "categorical",
        "visits": "negative_binomial",
        "crp": "normal",
    }
    for told in ("clinic", "table", "site (Bern, Genf, Zug)", "visits (0 to", "ill (80)", "train 84"):
        assert told in text
    assert "postprior init PROJECT --from" in text


def test_kinds_and_roles_can_be_given(tmp_path: Path) -> None:
    path = write(clinic(), tmp_path / "clinic.csv")
    kinds = {"age": "count", "crp": "log", "visits": "numeric", "arm": "numeric"}
    groups = {"labs": ("crp", "visits")}
    roles = Roles("patient", None, None, None, ("site", "smoker"), ("diagnosis",), groups, kinds)
    import_data([path], tmp_path / "data", roles)
    train = Dataset.load(tmp_path / "data/train")
    found = {m.name: {c.name: c.likelihood for c in m.columns} for m in train.modalities}
    assert found["labs"] == {"crp": "normal", "visits": "normal"}
    assert found["clinic"] == {"age": "negative_binomial", "weight": "normal", "arm": "normal"}
    assert train.targets is not None
    assert train.targets.shape == (84, 2)
    assert set(train.targets[:, 0]) == {0, 1, 2}
    assert train.labels is None
    back = together(tmp_path / "data", tmp_path / "back")["clinic.csv"]
    assert back.column_names == [name for name in clinic().column_names if name != "diagnosis"]
    original = csv.read_csv(path)
    for name in ("site", "smoker", "arm", "age", "visits", "crp"):
        assert back[name].to_pylist() == original[name].to_pylist(), name


def test_scales_are_those_of_training_rows_alone(tmp_path: Path) -> None:
    import_data([write(clinic(), tmp_path / "clinic.csv")], tmp_path / "data", ROLES)
    splits = load(tmp_path / "data")
    train = splits["train"]
    for column in (0, 1, 6):
        values = train.data["clinic"][:, column]
        seen = train.cells["clinic"][:, column]
        assert abs(values[seen].mean()) < 1e-6
        assert values[seen].std() == pytest.approx(1, abs=1e-5)
        assert (values[~seen] == 0).all()
    assert abs(splits["test"].data["clinic"][:, 1].mean()) > 1e-3
    assert splits["test"].conversion == train.conversion


def test_tables_are_joined_and_absent_rows_are_missing_modalities(tmp_path: Path) -> None:
    table, rng = clinic(), np.random.default_rng(1)
    genes = pa.table({"patient": table["patient"], "g1": rng.poisson(9, N) * 1.0, "g2": rng.normal(size=N)}).take(
        rng.permutation(N)[:90]
    )
    info = table.select(["patient", "diagnosis", "age"]).set_column(2, "age", pa.array(np.arange(N)))
    rest = table.drop_columns(["diagnosis", "age"]).slice(0, 100)
    paths = [write(t, tmp_path / f"{n}.csv") for n, t in (("rest", rest), ("genes", genes), ("info", info))]
    roles = Roles(id="patient", label="diagnosis", targets=("age",))
    text = "\n".join(import_data(paths, tmp_path / "data", roles))
    splits = load(tmp_path / "data")
    has = dict(zip(genes["patient"].to_pylist(), genes["g2"].to_pylist(), strict=True))
    known = set(rest["patient"].to_pylist())
    total = 0
    for dataset in splits.values():
        assert dataset.ids is not None
        assert dataset.targets is not None
        np.testing.assert_array_equal(dataset.targets[:, 0], [int(i[1:]) for i in dataset.ids])
        np.testing.assert_array_equal(dataset.observed[:, 0], [i in known for i in dataset.ids])
        np.testing.assert_array_equal(dataset.observed[:, 1], [i in has for i in dataset.ids])
        total += len(dataset)
    either = len(known | set(has))
    assert total == either
    assert f"left out: {N - either} rows" in text
    back = together(tmp_path / "data", tmp_path / "back")
    assert back["genes.csv"].num_rows == 90
    assert back["genes.csv"].column_names == ["patient", "g1", "g2"]
    assert dict(zip(back["genes.csv"]["patient"].to_pylist(), back["genes.csv"]["g2"].to_pylist(), strict=True)) == has
    assert back["info.csv"].column_names == ["patient", "diagnosis", "age"]
    assert back["info.csv"]["diagnosis"].to_pylist() == [
        name
        for name, i in zip(table["diagnosis"].to_pylist(), table["patient"].to_pylist(), strict=True)
        if i in known | set(has)
    ]


def test_a_folder_of_tables_and_a_semicolon(tmp_path: Path) -> None:
    table = clinic()
    write(table.select(["patient", "crp", "diagnosis"]), tmp_path / "in/labs.parquet")
    csv.write_csv(table.select(["patient", "weight"]), tmp_path / "in/body.csv", csv.WriteOptions(delimiter=";"))
    import_data([tmp_path / "in"], tmp_path / "data", ROLES)
    assert [m.name for m in Dataset.load(tmp_path / "data/train").modalities] == ["body", "labs"]


def test_ids_keep_their_leading_zeros(tmp_path: Path) -> None:
    rows = [f"{row:03},{row},{row + 0.5}" for row in range(60)]
    for name, header in (("a", "id,age,x"), ("b", "code,n,y")):
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]))
    for name, roles, number in (
        ("a", Roles(), False),
        ("b", Roles(id="code"), False),
        ("b", Roles(id="n", skip=("code",)), True),
    ):
        import_data([tmp_path / f"{name}.csv"], tmp_path / "data", roles)
        ids = Dataset.load(tmp_path / "data/train").ids
        assert ids is not None
        assert (7 if number else "007") in ids.tolist()
        assert (ids.dtype.kind == "i") == number


def test_types_of_parquet_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = {
        "patient": pa.array([f"p{row:03}" for row in range(N)], pa.large_string()),
        "site": pa.array(np.array(["Bern", "Zug", "Chur"])[np.arange(N) % 3]).dictionary_encode(),
        "price": pa.array([Decimal(int(cents)) / 100 for cents in rng.integers(0, 10**4, N)], pa.decimal128(6, 2)),
        "half": pa.array(rng.normal(size=N).astype(np.float16)),
        "dose": pa.array(rng.integers(-9, 9, N), pa.int8()),
        "single": pa.array(rng.normal(size=N), pa.float32()),
        "diagnosis": pa.array(["ill", "well"] * (N // 2))
        .dictionary_encode()
        .cast(pa.dictionary(pa.int8(), pa.string())),
    }
    path = write(pa.table(kinds), tmp_path / "clinic.parquet")
    import_data([path], tmp_path / "data", ROLES)
    back = together(tmp_path / "data", tmp_path / "back")["clinic.parquet"]
    assert back.schema.equals(parquet.read_table(path).schema)
    for name, column in kinds.items():
        assert back[name].to_pylist() == column.to_pylist(), name
    made = Dataset.load(tmp_path / "data/test")
    made.data["clinic"] = np.array(made.data["clinic"])
    made.data["clinic"][:, 1] = 1e4  # more digits than the decimal type allows
    replace(made, ids=None).save(tmp_path / "made")
    export(tmp_path / "made", tmp_path / "drawn")
    assert parquet.read_table(tmp_path / "drawn/clinic.parquet")["price"].type == pa.float64()


def test_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    """Spreadsheets write this form in locales with decimal commas; the suffix is in capitals, as on Windows."""
    lines = ["id;größe;ort;n"] + [f"{row};{row % 17},{row % 4}5;{'ab'[row % 2]},c;{row % 5}" for row in range(60)]
    (tmp_path / "LEUTE.CSV").write_text("\n".join(lines), encoding="utf-8-sig")
    text = "\n".join(import_data([tmp_path / "LEUTE.CSV"], tmp_path / "data", Roles()))
    assert "numeric: größe (0.05 to 16.25)" in text
    assert "categorical: ort (a,c, b,c)" in text
    assert "count: n" in text
    export(tmp_path / "data/train", tmp_path / "back")
    header, *back = (tmp_path / "back/LEUTE.CSV").read_text().splitlines()
    assert header == lines[0]
    assert set(back) < set(lines)
    export(tmp_path / "data/train", tmp_path / "plain", "csv")
    for row, size in csv.read_csv(tmp_path / "plain/LEUTE.csv").select(["id", "größe"]).to_pandas().to_numpy():
        assert size == float(f"{row % 17:.0f}.{row % 4:.0f}5")


def test_codes_keep_leading_zeros(tmp_path: Path) -> None:
    """Postal codes are not numbers in any column; padded numbers are numbers only if the user requests the kind."""
    rows = [f"{row},{row % 9 + 0.5},{row % 3:03},{row % 2:02},{row % 7:02},{row % 5}" for row in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(["id,x,place,kind,dose,n", *rows]))
    roles = Roles(label="kind", kinds={"dose": "count"})
    text = "\n".join(import_data([tmp_path / "a.csv"], tmp_path / "data", roles))
    assert "categorical: place (000, 001, 002)" in text
    assert "count: dose (0 to 6), n (0 to 4)" in text
    assert Dataset.load(tmp_path / "data/train").label_names == ("00", "01")
    export(tmp_path / "data/train", tmp_path / "back")
    for line in (tmp_path / "back/a.csv").read_text().splitlines()[1:]:
        row, x, place, kind, dose, n = line.split(",")
        assert [row, x, place, kind, dose, n] == rows[int(row)].split(",")


def test_subjects_stay_in_one_split(tmp_path: Path) -> None:
    table = clinic()
    subjects = pa.array(np.random.default_rng(0).integers(0, 40, N))
    path = write(table.append_column("subject", subjects), tmp_path / "clinic.csv")
    import_data([path], tmp_path / "data", Roles(id="patient", label="diagnosis", group="subject"))
    groups = [set(dataset.groups) for dataset in load(tmp_path / "data").values()]  # type: ignore[arg-type]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]
    assert together(tmp_path / "data", tmp_path / "back")["clinic.csv"]["subject"].to_pylist() == subjects.to_pylist()


def test_a_column_may_name_the_split(tmp_path: Path) -> None:
    wanted = np.array(["train", "train", "validation", "test"])[np.arange(N) % 4]
    told = np.where(np.arange(N) % 8 == 2, "val", wanted)  # as some data sets name the split
    path = write(clinic().append_column("part", pa.array(told)), tmp_path / "clinic.csv")
    import_data([path], tmp_path / "data", Roles(id="patient", label="diagnosis", split="part"))
    for split, dataset in load(tmp_path / "data").items():
        assert sorted(dataset.ids) == [f"p{row:03}" for row in np.flatnonzero(wanted == split)]  # type: ignore[arg-type]
    assert "part" not in together(tmp_path / "data", tmp_path / "back")["clinic.csv"].column_names


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    path = write(clinic(), tmp_path / "clinic.csv")
    for name in ("a", "b"):
        import_data([path], tmp_path / name, ROLES)
    import_data([path], tmp_path / "b", ROLES)  # replaces an earlier import
    assert [d.hash for d in load(tmp_path / "a").values()] == [d.hash for d in load(tmp_path / "b").values()]
    import_data([path], tmp_path / "b", ROLES, seed=1)
    assert load(tmp_path / "a")["train"].hash != load(tmp_path / "b")["train"].hash


def test_ids_beyond_signed_numbers(tmp_path: Path) -> None:
    ids = pa.array([2**63 + row for row in range(N)], pa.uint64())
    path = write(clinic().set_column(0, "patient", ids), tmp_path / "clinic.parquet")
    import_data([path], tmp_path / "data", ROLES)
    back = together(tmp_path / "data", tmp_path / "back")["clinic.parquet"]
    assert back["patient"].type == pa.uint64()
    assert back["patient"].to_pylist() == ids.to_pylist()


def test_synthetic_rows_go_back_into_the_file(tmp_path: Path) -> None:
    """Decoder outputs (probabilities for booleans, means for counts) become values that the file can hold."""
    import_data([write(clinic(), tmp_path / "clinic.csv")], tmp_path / "data", ROLES)
    train = Dataset.load(tmp_path / "data/train")
    rng = np.random.default_rng(0)
    rows = np.zeros((5, len(train.modalities[0].columns)), np.float32)
    for j, column in enumerate(train.modalities[0].columns):
        rows[:, j] = {
            "normal": rng.normal(size=5),
            "bernoulli": rng.random(5),
            "categorical": rng.integers(0, 2, 5),
            "negative_binomial": rng.poisson(3, 5),
        }[column.likelihood]
    made = Dataset(
        train.modalities,
        {"clinic": rows},
        labels=np.array([0, 1, 1, 0, 1]),
        label_names=train.label_names,
        conversion=train.conversion,
    )
    made.save(tmp_path / "made")
    export(tmp_path / "made", tmp_path / "back")
    back = csv.read_csv(tmp_path / "back/clinic.csv")
    assert back.column_names == clinic().column_names
    assert back["patient"].to_pylist() == [0, 1, 2, 3, 4]
    assert back["diagnosis"].to_pylist() == ["ill", "well", "well", "ill", "well"]
    assert back["age"].type == pa.int64()
    assert all(10 < age < 120 for age in back["age"].to_pylist())
    assert back["smoker"].type == pa.bool_()
    assert back["smoker"].to_pylist() == (rows[:, 3] >= 0.5).tolist()


def test_a_synthetic_row_without_cells_keeps_its_label(tmp_path: Path) -> None:
    """It has a line in the file of the labels and none in the other file."""
    table = clinic()
    write(table.drop_columns(["age"]), tmp_path / "clinic.csv")
    write(table.select(["patient", "age"]), tmp_path / "ages.csv")
    import_data([tmp_path / "ages.csv", tmp_path / "clinic.csv"], tmp_path / "data", ROLES)
    train = Dataset.load(tmp_path / "data/train").select(np.arange(3))
    mask = np.array([[True, True], [True, False], [False, True]])
    blank = [m.name for m in train.modalities].index("clinic")
    made = replace(train, ids=None, folder=None, mask=mask, source_values={}, provenance={"sampler": "gmm"})
    labels = [made.label_names[number] for number in made.labels]  # type: ignore[index, union-attr]
    made.save(tmp_path / "made")
    export(tmp_path / "made", tmp_path / "back")
    back = csv.read_csv(tmp_path / "back/clinic.csv")
    assert back["patient"].to_pylist() == [0, 1, 2]
    assert back["diagnosis"].to_pylist() == labels
    empty = int(np.flatnonzero(~mask[:, blank])[0])
    cells = back.drop_columns(["patient", "diagnosis"]).slice(empty, 1).to_pylist()[0]
    assert set(cells.values()) <= {None, ""}
    other = csv.read_csv(tmp_path / "back/ages.csv")
    assert other["patient"].to_pylist() == np.flatnonzero(mask[:, 1 - blank]).tolist()


def test_folders_with_other_files_are_not_overwritten(tmp_path: Path) -> None:
    path = write(clinic(), tmp_path / "clinic.csv")
    with pytest.raises(UserError, match=r"found the input .*clinic\.csv in it"):
        import_data([path], tmp_path, ROLES)
    assert path.exists()
    import_data([path], tmp_path / "data", ROLES)
    with pytest.raises(UserError, match="in it, which this command did not write"):
        export(tmp_path / "data/test", tmp_path / "data/train")


def test_feather_and_times_with_a_zone(tmp_path: Path) -> None:
    start = np.datetime64("2020-01-01T08:00:00", "us") + np.arange(N) * np.timedelta64(3601, "s")
    table = clinic().append_column("seen", pa.array(start).cast(pa.timestamp("us", "UTC")))
    feather.write_feather(table, tmp_path / "clinic.feather")
    import_data([tmp_path / "clinic.feather"], tmp_path / "data", ROLES)
    parts = []
    for split in SPLITS:
        export(tmp_path / "data" / split, tmp_path / "back" / split)
        parts.append(feather.read_table(tmp_path / "back" / split / "clinic.feather"))
    back = pa.concat_tables(parts).sort_by("patient")
    assert back.schema.equals(table.schema)
    assert back.to_pylist() == table.to_pylist()
