"""Observed values of a user's file come back unchanged from import, imputation and export."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from support.equations import seeded

from postprior.pipelines.artefacts.exchange import read_codes
from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.rows import import_rows
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES

ROWS = 60
SPLITS = ("train", "validation", "test")
MISSING = ("", "NA", "NaN", "null", "#N/A", "n/a")
Texts = list[str]


def words(*known: str) -> Callable[[np.random.Generator], Texts]:
    """A column of categories."""
    return lambda rng: [*known, *rng.choice(known, ROWS - len(known)).tolist()]


def numbers(form: str, draw: Callable[[np.random.Generator], np.ndarray]) -> Callable[[np.random.Generator], Texts]:
    """A column of numbers in the form of a file."""
    return lambda rng: [form.format(x) for x in draw(rng).tolist()]


def shuffled(*forms: str) -> Callable[[np.random.Generator], Texts]:
    """Numbers of one kind in several notations."""
    return lambda rng: [rng.choice(forms).format(x) for x in rng.normal(0, 30, ROWS).tolist()]


CELLS: dict[str, Callable[[np.random.Generator], Texts]] = {
    "money": numbers("{:.2f}", lambda rng: rng.lognormal(8, 3, ROWS)),
    "two decimals": numbers("{:.2f}", lambda rng: rng.integers(10, 90, ROWS) / 2),
    "seventeen digits": numbers("{!r}", lambda rng: rng.normal(size=ROWS)),
    "epoch": numbers("{}", lambda rng: rng.integers(1_700_000_000, 1_732_000_000, ROWS)),
    "large": numbers("{}", lambda rng: rng.integers(0, 10**12, ROWS)),
    "beyond 2^53": numbers("{}", lambda rng: rng.integers(2**53, 2**62, ROWS)),
    "beyond 64 bits": numbers("{}", lambda rng: rng.integers(1, 9, ROWS).astype(object) * 10**25),
    "scientific": shuffled("{:.3e}", "{:.2E}", "{:+.4f}", "{:.1f}", " {:.2f}", "{:.2f} "),
    "minus zero": words("-0.0", "0.0", "0", "-0", "1.5", "2.50"),
    "subnormal": words("5e-324", "1e-310", "0.1", ".5", "5."),
    "small": numbers("{:.3g}", lambda rng: rng.normal(size=ROWS) * 1e-12),
    "an outlier": lambda rng: [
        "9.97e36",
        "-1e30",
        *(f"{x:.1f}" for x in rng.normal(37, 1, ROWS - 2).tolist()),
    ],
    "counts": numbers("{}", lambda rng: rng.poisson(3, ROWS)),
    "bits": words("0", "1"),
    "truth": words("TRUE", "FALSE"),
    "mixed truth": words("True", "false", "FALSE", "true"),
    "yes": words("yes", "no"),
    "signs": words("+", "-", "=0", "@", "'"),
    "formulas": words('=HYPERLINK("http://x")', "+cmd|' /C calc'!A0", "-2+3"),
    "blanks": words(" x", "x", "x ", "\tx"),
    "quoted": words("a,b", 'say "no"', "two\nlines", "c;d"),
    "padded": words("007", "07", "7"),
    "dates": words("03.01.2020", "2020-01-04x", "1/2/20"),
    "letters": words("Ä", "é", "日本", "<b>", "\u200b"),
}
LABELS = (
    ("01", "02"),
    ("1.0", "2.0"),
    ("+", "=x"),
    ("TRUE", "FALSE"),
    ("yes", "NO "),
    ("3", "7"),
    ("1e1", "2"),
)


def ids(rng: np.random.Generator) -> Texts:
    form = rng.choice(["{}", "{:04}", "={}", "p{}", "-{}", "+{}", " {}"])
    return [form.format(row) for row in rng.permutation(ROWS).tolist()]


def holes(texts: Texts, rng: np.random.Generator, share: float) -> Texts:
    return [str(rng.choice(MISSING)) if rng.random() < share else text for text in texts]


def a_table(rng: np.random.Generator) -> dict[str, Texts]:
    """Columns of texts: an id, a label, two targets, and several kinds of cells, some missing."""
    chosen = rng.choice(list(CELLS), 7, replace=False).tolist()
    table = {name: holes(CELLS[name](rng), rng, 0.12 * rng.integers(2)) for name in chosen}
    label = LABELS[rng.integers(len(LABELS))]
    target = {name: CELLS[name](rng) for name in ("two decimals", "beyond 2^53")}
    known = {"key": ids(rng), "lab": [label[row % 2] for row in range(ROWS)]}
    columns = {**known, **{f"target {name}": texts for name, texts in target.items()}, **table}
    order = ["key", *rng.permutation([name for name in columns if name != "key"]).tolist()]
    return {name: columns[name] for name in order}


def write(table: dict[str, Texts], path: Path) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n")
        writer.writerows([table, *zip(*table.values(), strict=True)])
    return path


def read(path: Path, delimiter: str = ",") -> dict[str, dict[str, str]]:
    """Cells by id and header."""
    with open(path, encoding="utf-8", newline="") as file:
        return {row[next(iter(row))]: row for row in csv.DictReader(file, delimiter=delimiter)}


def imputer(train: Dataset) -> Generator:
    """An imputer with an untrained model, which runs the same code as a trained one."""
    model = MODELS["mvtcae"](train.modalities, latent=2, width=2, seed=0)
    codes = io.BytesIO()
    np.savez(codes, loc=np.random.default_rng(0).normal(size=(40, 2)))
    path = Path(train.folder or "", "../codes.npz")
    path.write_bytes(codes.getvalue())
    density = DENSITIES["gaussian"]().fit(read_codes(path), generator=seeded())
    return Generator(model, density, {"density": "none"}, train.conversion)


ROLES = Roles(id="key", label="lab", targets=("target two decimals", "target beyond 2^53"))


def exported(source: Path, folder: Path, out: Path, draws: int) -> Iterator[Path]:
    """The files of every split: exported directly, with rows in another order, and after imputation."""
    generator = imputer(Dataset.load(folder / "train"))
    for split in SPLITS:
        data = Dataset.load(folder / split)
        backwards = data.select(np.arange(len(data))[::-1])
        made = {"plain": data, "backwards": backwards}
        made |= {f"filled {n}": one for n, one in enumerate(generator.impute(backwards, draws, 1, "draws"))}
        for name, dataset in made.items():
            dataset.save(out / split / name)
            export(out / split / name, out / f"{split} {name}")
            yield out / f"{split} {name}" / source.name


def check_texts(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    suffix = rng.choice([".csv", ".tsv"])
    tmp_path.mkdir(exist_ok=True)
    source = write(a_table(rng), tmp_path / f"cells{suffix}")
    delimiter = "\t" if suffix == ".tsv" else ","
    before = read(source, delimiter)
    import_data([source], tmp_path / "data", ROLES)
    rows = dict.fromkeys(("plain", "backwards", "filled"), 0)
    for path in exported(source, tmp_path / "data", tmp_path / "out", draws=2):
        after, filled = read(path, delimiter), "filled" in path.parent.name
        rows[path.parent.name.split()[1]] += len(after)
        for key, row in after.items():
            assert list(row) == list(before[key]), path
            wrong = {
                name: (before[key][name], text)
                for name, text in row.items()
                if text != before[key][name] and not (filled and before[key][name] in MISSING and text)
            }
            assert not wrong, (path, key)
    assert rows == {"plain": ROWS, "backwards": ROWS, "filled": 2 * ROWS}


@pytest.mark.parametrize("seed", range(2))
def test_observed_cells_of_texts_come_back_to_the_letter(tmp_path: Path, seed: int) -> None:
    check_texts(tmp_path, seed)


@pytest.mark.slow
def test_observed_cells_of_a_hundred_tables_come_back(tmp_path: Path) -> None:
    for seed in (2, 3, *range(100, 170)):
        check_texts(tmp_path / str(seed), seed)
    for seed in (2, *range(100, 130)):
        check_types(tmp_path / f"types {seed}", seed)


def doubles(rng: np.random.Generator) -> np.ndarray:
    """Random bits that are finite numbers."""
    values = rng.integers(0, 2**63, 4 * ROWS).view(np.float64)
    return values[np.isfinite(values)][:ROWS] * rng.choice([1, -1], ROWS)


TYPES: dict[str, Callable[[np.random.Generator], Any]] = {
    "double": lambda rng: pa.array(rng.lognormal(0, 4, ROWS)),
    "any double": lambda rng: pa.array(np.where(rng.random(ROWS) < 0.9, rng.normal(size=ROWS), doubles(rng))),
    "with NaN": lambda rng: pa.array(np.where(rng.random(ROWS) < 0.2, np.nan, rng.normal(size=ROWS))),
    "zeros": lambda rng: pa.array(rng.choice([0.0, -0.0, 1.5], ROWS)),
    "float": lambda rng: pa.array(rng.normal(3, 1, ROWS).astype(np.float32)),
    "halffloat": lambda rng: pa.array(rng.normal(3, 1, ROWS).astype(np.float16)),
    "int64": lambda rng: pa.array(rng.integers(-(2**62), 2**62, ROWS)),
    "uint64": lambda rng: pa.array(rng.integers(2**63, 2**64, ROWS, dtype=np.uint64)),
    "int32": lambda rng: pa.array(rng.integers(-(2**31), 2**31, ROWS).astype(np.int32)),
    "int8": lambda rng: pa.array(rng.integers(-128, 128, ROWS).astype(np.int8)),
    "bool": lambda rng: pa.array(rng.random(ROWS) < 0.5),
    "cents": lambda rng: pa.array([Decimal(int(x)) / 100 for x in rng.integers(0, 10**9, ROWS)], pa.decimal128(12, 2)),
    "long decimal": lambda rng: pa.array(
        [Decimal(int(x)) * 10**12 + 7 for x in rng.integers(0, 2**62, ROWS)], pa.decimal128(38, 0)
    ),
    "text": lambda rng: pa.array(rng.choice(["+", "=1", "NA", "", "null", "é"], ROWS)),
    "long text": lambda rng: pa.array(rng.choice(["a", "b"], ROWS).tolist(), pa.large_string()),
    "dictionary": lambda rng: pa.array(rng.choice(["+", "-"], ROWS).tolist()).dictionary_encode(),
}


def check_types(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(list(TYPES), 8, replace=False).tolist()
    columns = {name: TYPES[name](rng) for name in chosen}
    columns = {
        name: pa.concat_arrays([column.slice(0, ROWS - 5), pa.nulls(5, column.type)]) if rng.random() < 0.4 else column
        for name, column in columns.items()
    }
    known = {
        "key": pa.array(rng.permutation(ROWS) + 2**62),
        "lab": pa.array(np.arange(ROWS, dtype=np.int8) % 2),
        **{f"target {name}": TYPES[name](rng) for name in ("int64", "float")},
    }
    source = tmp_path / "cells.parquet"
    tmp_path.mkdir(exist_ok=True)
    parquet.write_table(pa.table({**known, **columns}), source)
    before = parquet.read_table(source)
    places = {key: row for row, key in enumerate(before["key"].to_pylist())}
    import_data([source], tmp_path / "data", replace(ROLES, targets=("target int64", "target float")))
    for path in exported(source, tmp_path / "data", tmp_path / "out", draws=1):
        after, filled = parquet.read_table(path), "filled" in path.parent.name
        assert after.schema.names == before.schema.names
        rows = [places[key] for key in after["key"].to_pylist()]
        for name in after.column_names:
            assert after[name].type == before[name].type, (path, name)
            found, expected = (repr(of.to_pylist()) for of in (after[name], before[name].take(pa.array(rows))))
            if not filled:
                assert found == expected, (path, name)
                continue
            for one, other in zip(after[name].to_pylist(), before[name].take(pa.array(rows)).to_pylist(), strict=True):
                missing = other is None or other != other
                assert one is not None if missing else repr(one) == repr(other), (path, name)


@pytest.mark.parametrize("seed", range(2))
def test_observed_values_of_types_come_back_to_the_bit(tmp_path: Path, seed: int) -> None:
    check_types(tmp_path, seed)


ARRAYS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "doubles": lambda rng: np.where(rng.random((ROWS, 3)) < 0.9, rng.normal(size=(ROWS, 3)), -0.0),
    "integers": lambda rng: rng.integers(-(2**62), 2**62, (ROWS, 2)),
    "unsigned": lambda rng: rng.integers(2**63, 2**64, (ROWS, 2), dtype=np.uint64),
    "seconds": lambda rng: rng.integers(1_700_000_000, 1_732_000_000, ROWS),
    "single": lambda rng: rng.lognormal(0, 3, (ROWS, 4)).astype(np.float32),
    "picture": lambda rng: rng.normal(100, 30, (ROWS, 5, 6)),
    "channels": lambda rng: rng.normal(size=(ROWS, 5, 6, 3)).astype(np.float32),
    "depths": lambda rng: rng.integers(0, 2**31, (ROWS, 5, 6)).astype(np.int32),
    "volume": lambda rng: rng.normal(size=(ROWS, 2, 3, 4, 5)),
}
EXACT: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "bytes": lambda rng: rng.integers(0, 256, (ROWS, 5, 6), dtype=np.uint8),
    "short": lambda rng: rng.integers(0, 2**16, (ROWS, 5, 6), dtype=np.uint16),
    "unit": lambda rng: rng.random((ROWS, 5, 6)).astype(np.float32),
    "reads": lambda rng: rng.poisson(3, (ROWS, 4)),
    "bits": lambda rng: rng.random((ROWS, 4)) < 0.5,
}


def test_arrays_come_back_to_the_bit_and_are_kept_only_where_they_must_be(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: make(rng) for name, make in (ARRAYS | EXACT).items()}
    arrays["doubles"][rng.random((ROWS, 3)) < 0.1] = np.nan
    arrays["single"][::4] = np.nan
    arrays |= {f"mask_{name}": rng.random(ROWS) < 0.9 for name in ("integers", "picture", "short")}
    known = {"ids": np.arange(ROWS) + 2**62, "targets": rng.integers(2**60, 2**61, (ROWS, 2))}
    np.savez(tmp_path / "views.npz", **arrays, **known)
    import_data([tmp_path / "views.npz"], tmp_path / "data", Roles(nan_is_missing=True))
    kept = {path.name.split(".")[0] for path in (tmp_path / "data/train").glob("*.source.*")}
    assert kept == ARRAYS.keys() | {"targets"}
    rows = 0
    for path in exported(tmp_path / "views.npz", tmp_path / "data", tmp_path / "out", draws=1):
        with np.load(path) as after:
            places, filled = after["ids"] - 2**62, "filled" in path.parent.name
            np.testing.assert_array_equal(after["targets"], known["targets"][places])
            rows += len(places)
            for m, name in enumerate(ARRAYS | EXACT):
                before, found = arrays[name][places], after[name]
                there = arrays.get(f"mask_{name}", np.ones(ROWS, bool))[places].reshape(-1, *[1] * (before.ndim - 1))
                seen = there & ~np.isnan(before)
                assert found.dtype == before.dtype
                assert found[seen].tobytes() == before[seen].tobytes(), (path, name)
                if filled:
                    assert np.isfinite(found).all()
                elif before.dtype.kind == "f":
                    assert np.isnan(found[~np.broadcast_to(seen, found.shape)]).all()
                else:
                    np.testing.assert_array_equal(after["mask"][:, m], there.ravel())
    assert rows == 3 * ROWS


def test_rows_for_a_trained_model_come_back_too(tmp_path: Path) -> None:
    """Also with values far from the training rows, missing columns, and categories in other orders."""
    rng = np.random.default_rng(0)
    table = {"key": ids(rng), "lab": ["01", "02"] * (ROWS // 2)}
    table |= {name: CELLS[name](rng) for name in ("money", "signs", "epoch", "truth", "seventeen digits")}
    import_data([write(table, tmp_path / "cells.csv")], tmp_path / "data", Roles(id="key", label="lab"))
    new = {name: holes(texts, rng, 0.2) if name not in ("key", "lab") else texts for name, texts in table.items()}
    new["money"][:2] = ["1e300", "-9.97e36"]
    del new["epoch"]
    (tmp_path / "new").mkdir()
    source = write(new, tmp_path / "new/cells.csv")
    told = "\n".join(import_rows([source], tmp_path / "rows", Roles(), tmp_path / "data"))
    assert "far outliers: money (-9.97e+36, 2 values)" in told
    rows = Dataset.load(tmp_path / "rows")
    assert np.isfinite(rows.data["cells"]).all()
    generator = imputer(Dataset.load(tmp_path / "data/train"))
    (filled,) = generator.impute(conformed(rows, generator.modalities, generator.conversion), 1, 3)
    filled.save(tmp_path / "filled")
    for name in ("rows", "filled"):
        export(tmp_path / name, tmp_path / f"{name} out")
        before, after = read(source), read(tmp_path / f"{name} out/cells.csv")
        assert after.keys() == before.keys()
        for key, row in before.items():
            for header, text in row.items():
                assert after[key][header] == text or (name == "filled" and text in MISSING), (
                    name,
                    key,
                    header,
                )


def test_ids_keep_the_type_that_each_file_has_them_in(tmp_path: Path) -> None:
    x = pa.array(np.random.default_rng(0).normal(size=ROWS))
    kinds = {"a": pa.int32(), "b": pa.decimal128(20, 0), "c": pa.large_string(), "d": pa.uint64()}
    key = pa.array(np.arange(ROWS) + 10)
    for name, kind in kinds.items():
        parquet.write_table(pa.table({"key": key.cast(kind), f"x{name}": x}), tmp_path / f"{name}.parquet")
    write(
        {"key": [str(number) for number in key.to_pylist()], "y": CELLS["money"](np.random.default_rng(1))},
        tmp_path / "e.csv",
    )
    files = [tmp_path / f"{name}.parquet" for name in kinds]
    import_data([*files, tmp_path / "e.csv"], tmp_path / "data", Roles(id="key"))
    export(tmp_path / "data/train", tmp_path / "out")
    keys = set(read(tmp_path / "out/e.csv"))
    for name, file in zip(kinds, files, strict=True):
        before, after = parquet.read_table(file), parquet.read_table(tmp_path / "out" / file.name)
        assert after.schema == before.schema
        rows = [row for row in before.to_pylist() if str(row["key"]) in keys]
        assert sorted(after.to_pylist(), key=lambda row: int(row["key"])) == rows, name


def test_large_decimals_are_ids_and_labels_to_the_last_digit(tmp_path: Path) -> None:
    numbers = [Decimal(2**60 + row) for row in range(ROWS)]
    table = pa.table(
        {
            "key": pa.array(numbers, pa.decimal128(38, 0)),
            "lab": pa.array([numbers[row % 2] for row in range(ROWS)], pa.decimal128(38, 0)),
            "x": np.random.default_rng(0).normal(size=ROWS),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    import_data([tmp_path / "a.parquet"], tmp_path / "data", Roles(id="key", label="lab"))
    export(tmp_path / "data/train", tmp_path / "out")
    after = parquet.read_table(tmp_path / "out/a.parquet")
    assert after.schema == table.schema
    rows = {row["key"]: row for row in table.to_pylist()}
    assert all(row == rows[row["key"]] for row in after.to_pylist())


def test_texts_become_typed_values_in_another_format(tmp_path: Path) -> None:
    """Texts of a CSV are parsed for a Parquet file, and values of a Parquet file are written in full to a CSV."""
    rng = np.random.default_rng(0)
    kinds = ("money", "truth", "beyond 2^53", "signs", "scientific")
    table = {"key": [f"p{row}" for row in range(ROWS)]} | {name: CELLS[name](rng) for name in kinds}
    table |= {"holes": holes(CELLS["seventeen digits"](rng), rng, 0.2)}
    import_data([write(table, tmp_path / "a.csv")], tmp_path / "data", Roles(id="key"))
    export(tmp_path / "data/train", tmp_path / "typed", "parquet")
    after = parquet.read_table(tmp_path / "typed/a.parquet")
    known = {
        row["key"]: row for row in (dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True))
    }
    types: dict[str, Callable[[str], Any]] = {
        "truth": lambda text: text == "TRUE",
        "beyond 2^53": int,
        "signs": str,
    }
    for row in after.to_pylist():
        for name in (*kinds, "holes"):
            text = known[row["key"]][name]
            assert row[name] == (None if text in MISSING else types.get(name, float)(text)), name
    import_data([tmp_path / "typed/a.parquet"], tmp_path / "again", Roles(id="key"))
    export(tmp_path / "again/train", tmp_path / "spelled", "csv")
    for key, cells in read(tmp_path / "spelled/a.csv").items():
        assert float(cells["money"]) == float(known[key]["money"])
        assert cells["beyond 2^53"] == known[key]["beyond 2^53"]
        assert cells["signs"] == known[key]["signs"]


def a_kept_column(tmp_path: Path) -> Path:
    """A dataset of one column that float32 cannot hold."""
    lines = [f"{row},{row / 7!r}" for row in range(ROWS)]
    (tmp_path / "a.csv").write_text("\n".join(["id,x", *lines]))
    import_data([tmp_path / "a.csv"], tmp_path / "data", Roles())
    return tmp_path / "data/train"


def test_values_that_were_changed_since_are_exported_as_they_are_now(tmp_path: Path) -> None:
    train = Dataset.load(a_kept_column(tmp_path))
    values = np.array(train.data["a"])
    values[0] = 1
    hidden = np.arange(len(train))[:, None] != 1
    replace(train, data={"a": values}, cells={"a": hidden}).save(tmp_path / "changed")
    export(tmp_path / "changed", tmp_path / "out")
    assert train.conversion is not None
    (column,) = train.conversion["modalities"]["a"]["columns"]
    cells = [row["x"] for row in read(tmp_path / "out/a.csv").values()]
    assert float(cells[0]) == pytest.approx(column["offset"] + column["scale"], rel=1e-6)
    assert cells[1] == ""
    assert train.ids is not None
    assert cells[2:] == [repr(int(key) / 7) for key in train.ids[2:]]


def test_folders_without_source_values_are_as_they_were(tmp_path: Path) -> None:
    train = Dataset.load(a_kept_column(tmp_path))
    replace(train, source_values={}).save(tmp_path / "old")
    assert not list((tmp_path / "old").glob("*.source.*"))
    export(tmp_path / "old", tmp_path / "out")
    for key, row in read(tmp_path / "out/a.csv").items():
        assert float(row["x"]) == pytest.approx(int(key) / 7, rel=1e-5, abs=1e-5)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    first, second = (Dataset.load(a_kept_column(folder)) for folder in folders)
    assert "a" in first.source_values
    assert first.hash == second.hash
    first.save(tmp_path / "again")
    assert Dataset.load(tmp_path / "again").hash == first.hash


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "not a complete Parquet file"),
    "of other rows": (
        lambda path: parquet.write_table(parquet.read_table(path).slice(1), path),
        r"a\.source\.parquet: 41 rows found, expected 42",
    ),
    "of no modality": (lambda path: path.rename(path.with_name("b.source.parquet")), r"b\.source"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_source_values_are_told(tmp_path: Path, case: str) -> None:
    folder = a_kept_column(tmp_path)
    spoil, sentence = BROKEN[case]
    spoil(folder / "a.source.parquet")
    with pytest.raises(UserError, match=sentence):
        export(folder, tmp_path / "out")
