"""What the report shows of tables and vectors, read from small dataset folders and made-up scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.report_project import make_project
from support.tables import people

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import cells_as_texts, feature_names, values_as_texts, vectors_in_units
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.metrics.tables.associations import associations
from postprior.pipelines.metrics.tables.column_tests import column_tests
from postprior.pipelines.report.cell_tables import checks, sheet
from postprior.pipelines.report.cells import HARDEST, REAL, RELATED, Cells, cells_of
from postprior.pipelines.report.plots import marks
from postprior.pipelines.report.plots.tables import tables
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.storage import save_artefact
from postprior.stage1_vae.modalities import Column, Modality

KINDS = (Column("age", "normal"), Column("visits", "negative_binomial"), Column("group", "categorical", 3))
KINDS += (Column("sex", "bernoulli"), Column("site", "categorical", 4))
TABLE = Modality("t", "table", (5,), "columns", columns=KINDS)
GENES = Modality("rna", "vector", (30,), "negative_binomial")
HALF, SAMPLES = np.arange(0, 120, 2), 50


def rows(seed: int, count: int, shift: float = 0.0) -> Dataset:
    """A table with holes, of which some rows lack all of it, and counts."""
    rng = np.random.default_rng(seed)
    values = people(seed, count)
    values[:, 0] += shift
    seen = rng.random((count, 5)) < 0.9
    mask = np.column_stack([rng.random(count) < 0.9, np.ones(count, bool)])
    counts = rng.poisson(np.linspace(0.1, 20, 30), (count, 30))
    data = {"t": np.where(seen, values, 0).astype(np.float32), "rna": counts.astype(np.float32)}
    return Dataset((TABLE, GENES), data, mask=mask, cells={"t": seen}, provenance={"sampler": "gmm"})


def entries(real: Dataset, made: Dataset) -> dict[str, Any]:
    """The part of results/metrics/<row>.json on columns."""
    return {"samples": len(made), "modalities": {"t": {"columns": column_tests(real, made)["t"]}}}


@pytest.fixture(scope="module")
def sets() -> dict[str, Dataset]:
    found = {"test": rows(0, 120), "gmm": rows(1, 70), "flow": rows(2, 70, shift=3)}
    return found | {REAL: found["test"].select(HALF)}


@pytest.fixture(scope="module")
def cells(sets: dict[str, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return read(sets, tmp_path_factory.mktemp("cells"))


def read(sets: dict[str, Dataset], root: Path, shareable: bool = False) -> Cells:
    """Write the folders that the report reads, and read them; flow is the best density."""
    found = found_in(sets, root, HALF, shareable)
    assert found is not None
    return found


def found_in(sets: dict[str, Dataset], root: Path, half: np.ndarray, shareable: bool = False) -> Cells | None:
    """The same for another reference set, the rows `half` of the test split."""
    sets["test"].save(root / "artefacts/data/test")
    for name in ("gmm", "flow"):
        sets[name].save(root / "artefacts/synthetic" / name)
    save_artefact(root / "artefacts/baselines", "reference", {}, arrays={"rows.reference": half})
    made = {name: sets[name].select(np.arange(SAMPLES)) for name in ("flow", "gmm")}
    scores = {name: entries(sets[REAL], rows) for name, rows in made.items()}
    held_out = Row("real", "data", entries(sets[REAL], sets["test"].select(HALF + 1)))
    results = Results((held_out, *(Row(name, "density", own) for name, own in scores.items())), {}, {}, [])
    params = load_params(make_project(root / "settings") / "params.yaml")
    params = params.model_copy(update={"densities": ("gmm", "flow")})
    return cells_of(params, Project(root), results, shareable)


def test_the_hardest_column_for_the_best_density_comes_first(cells: Cells, sets: dict[str, Dataset]) -> None:
    assert cells.densities == ("flow", "gmm")
    assert cells.rows == {REAL: len(HALF), "flow": SAMPLES, "gmm": SAMPLES}
    assert cells.columns[0].title == "age"  # which flow shifts
    scores = [column.shapes["flow"] for column in cells.columns]
    assert scores == sorted(scores)
    expected = column_tests(sets[REAL], sets["flow"].select(np.arange(SAMPLES)))["t"]
    assert {column.title: column.shapes["flow"] for column in cells.columns} == {
        name: entry["shape"] for name, entry in expected.items()
    }


def test_distributions_are_those_of_the_rows_that_are_compared(cells: Cells, sets: dict[str, Dataset]) -> None:
    group = next(column for column in cells.columns if column.title == "group")
    assert group.marginal is not None
    for name, found in group.marginal.shares.items():
        own = sets[REAL] if name == REAL else sets[name].select(np.arange(SAMPLES))
        values = own.data["t"][:, 2][~own.missing("t")[:, 2]]
        expected = [(values == k).mean() for k in group.marginal.classes]
        np.testing.assert_allclose(found, expected)
    assert group.texts == tuple(str(k) for k in group.marginal.classes)


def test_associations_missing_rates_and_patterns_are_those_of_the_rows(cells: Cells, sets: dict[str, Dataset]) -> None:
    real, missing = sets[REAL], sets[REAL].missing("t")
    assert cells.associations is not None
    values = np.where(missing, np.nan, real.data["t"].astype(float))
    expected = associations([*values.T], [False, False, True, True, True])
    np.testing.assert_allclose(cells.associations.matrices[REAL], expected)
    assert cells.associations.titles == tuple(column.name for column in KINDS)
    assert cells.missing_rates["age"][REAL] == pytest.approx(missing[:, 0].mean())
    assert set(cells.missing_rates) == {column.name for column in KINDS}
    whole = next(pattern for pattern in cells.missing_patterns if pattern.missing == (("t", ""),))
    assert whole.shares[REAL] == pytest.approx(missing.all(1).mean())


def test_vectors_have_exact_zeros_and_sums(cells: Cells, sets: dict[str, Dataset]) -> None:
    (vector,) = cells.vectors
    for name, own in vector.statistics.items():
        counts = sets[name].data["rna"][: SAMPLES if name != REAL else None]
        np.testing.assert_array_equal(own.zeros, (counts == 0).mean(0))
        np.testing.assert_allclose(own.totals, counts.sum(1))
    assert len(vector.groups) == 4
    assert vector.totals is not None
    scores = [score for _, score in vector.hardest.values()]
    assert scores == sorted(scores)


def test_every_figure_says_what_to_look_for(cells: Cells) -> None:
    found = {figure.name: figure for figure in tables(cells, marks(cells.densities))}
    assert list(found) == [
        *("column_shapes", "columns", "associations", "missing_rates", "missing_patterns"),
        *("features_rna", "statistics_rna"),
    ]
    for figure in found.values():
        assert "ook for" in figure.about
        assert len(figure.alt) > 40
        assert "nan" not in figure.alt
        assert all(len(line) == len(figure.header) for line in figure.table)
    shares = [line for line in found["columns"].table if line[:1] + line[4:5] == ("age", REAL)]
    assert sum(line[-1] for line in shares) == pytest.approx(1)


def test_of_many_columns_the_hardest_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    names = tuple(Column(f"x{j}", "normal") for j in range(70))
    wide = Modality("t", "table", (70,), "columns", columns=names)

    def made(seed: int, count: int, scale: float) -> Dataset:
        values = np.random.default_rng(seed).normal(size=(count, 70)) * np.linspace(1, scale, 70)
        return Dataset((wide,), {"t": values.astype(np.float32)}, provenance={"sampler": "gmm"})

    many = {"test": made(0, 120, 1), "gmm": made(1, 70, 1), "flow": made(2, 70, 9)}
    found = read(many | {REAL: many["test"].select(HALF)}, tmp_path)
    assert sum(column.marginal is not None for column in found.columns) == HARDEST
    assert len(found.columns) == 70
    assert found.associations is not None
    assert (len(found.associations.titles), found.associations.left_out) == (RELATED, 70 - RELATED)
    shown = next(iter(tables(found, marks(found.densities))))
    assert "other 50 columns" in shown.about


def test_a_page_to_share_has_no_rows_and_no_rare_class_or_pattern(
    cells: Cells, sets: dict[str, Dataset], tmp_path: Path
) -> None:
    rare = sets["test"].data["t"].copy()
    rare[:, 4] = 0
    rare[HALF[:3], 4] = 3
    shown = sets | {"test": replace(sets["test"], data=sets["test"].data | {"t": rare})}
    found = read(shown | {REAL: shown["test"].select(HALF)}, tmp_path, shareable=True)
    assert (found.examples, cells.examples is None) == (None, False)
    site = next(column for column in found.columns if column.title == "site")
    assert site.marginal is not None
    assert site.marginal.classes == (0,)
    assert all(not 0 < pattern.shares[REAL] * len(HALF) < 9.5 for pattern in found.missing_patterns)


@pytest.mark.filterwarnings("error")
def test_two_rows_are_shown_and_one_row_is_not(sets: dict[str, Dataset], tmp_path: Path) -> None:
    absent = sets["test"].observed & [False, True]
    for name, test in (("holes", sets["test"]), ("without", replace(sets["test"], mask=absent))):
        few = found_in(sets | {"test": test}, tmp_path / name, HALF[:2])
        assert few is not None
        assert all("nan" not in figure.alt for figure in tables(few, marks(few.densities)))
    assert found_in(sets, tmp_path, HALF[:1]) is None


def test_images_alone_have_no_cells(tmp_path: Path) -> None:
    params = load_params(make_project(tmp_path) / "params.yaml")
    assert cells_of(params, Project(tmp_path), Results((), {}, {}, [])) is None


def test_values_that_the_training_rows_do_not_allow_are_listed_the_largest_share_first(cells: Cells) -> None:
    columns = [replace(column, invalid={"real": 0.1, "flow": 0.0, "gmm": 0.0}) for column in cells.columns]
    nothing = checks(replace(cells, columns=tuple(columns)))
    assert nothing is not None
    assert (nothing.lines, nothing.sentence[:9]) == ([], "5 columns")
    columns[3] = replace(columns[3], invalid={"real": 0.0, "flow": 0.25, "gmm": 0.0})
    broken = {"a ≤ b": {REAL: 0.0, "flow": 0.5, "gmm": 0.1}, "a ≤ c": {REAL: 0.0, "flow": 0.0, "gmm": 0.0}}
    found = checks(replace(cells, columns=tuple(columns), constraints=broken))
    assert found is not None
    assert found.sentence.startswith("In 2 of 5 columns and 2 constraints")
    assert [line[0] for line in found.lines] == ["a ≤ b", columns[3].title]
    assert found.lines[1] == (columns[3].title, "0.0\u202f%", "25.0\u202f%", "0.0\u202f%")
    assert checks(replace(cells, constraints={})) is None  # results of an earlier version have no validity


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV with decimal commas, dates, categories and holes, as a dataset."""
    home, rng = tmp_path_factory.mktemp("imported"), np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": [f"p{row:03}" for row in range(120)],
            "bmi": rng.normal(25, 3, 120).round(1),
            "seen": pd.date_range("2020-01-31", periods=120).strftime("%d.%m.%Y"),
            "site": rng.choice(["Łódź", "Lyon"], 120),
            "stays": rng.integers(0, 9, 120),
        }
    )
    frame.loc[::7, ["bmi", "site"]] = None
    frame.to_csv(home / "a.csv", index=False, sep=";", decimal=",")
    np.savez(home / "x.npz", genes=rng.poisson(2, (120, 12)))
    import_data([home / "a.csv"], home / "data", Roles(id="id"))
    import_data([home / "x.npz"], home / "counts", Roles())
    return home


def test_cells_are_written_as_export_writes_them(imported: Path, tmp_path: Path) -> None:
    data = Dataset.load(imported / "data/test")
    export(imported / "data/test", tmp_path / "out")
    written = pd.read_csv(tmp_path / "out/a.csv", sep=";", dtype=str, keep_default_na=False).set_index("id")
    (table,) = data.modalities
    assert data.ids is not None
    for name, texts in cells_as_texts(table, data).items():
        assert ["" if text is None else text for text in texts] == written.loc[data.ids, name].tolist()
    place = [column.name for column in table.columns].index("site")
    assert values_as_texts(table, place, np.array([0.0, 1.0]), data.conversion) == ["Lyon", "Łódź"]


def test_vectors_have_the_values_of_their_file(imported: Path) -> None:
    data = Dataset.load(imported / "counts/train")
    (vector,) = data.modalities
    with np.load(imported / "x.npz") as file:
        values = {tuple(line) for line in file["genes"].tolist()}
    assert {tuple(line) for line in vectors_in_units(vector, data).tolist()} <= values
    assert feature_names(vector, data.conversion)[:2] == ["feature 1", "feature 2"]


def test_rows_in_full_stand_side_by_side(cells: Cells, sets: dict[str, Dataset]) -> None:
    found = sheet(cells.examples, cells.densities)
    assert found is not None
    assert found.counts == (4, 4)
    assert [name for name, _ in found.lines] == [column.name for column in KINDS]
    made = sets["flow"].select(np.arange(4))
    holes = [text is None for text in dict(found.lines)["age"][4:]]
    assert holes == made.missing("t")[:, 0].tolist()
    assert list(found.others) == ["gmm"]
    assert cells.examples is not None
    assert sheet(None, cells.densities) is None
