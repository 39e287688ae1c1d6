"""Synthetic and imputed rows keep the constraints of the data, in the files that are exported; given cells stay."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.commands.app import app
from postprior.pipelines.data.constraints.cells import Cells
from postprior.pipelines.data.constraints.keeping import keep, violations
from postprior.pipelines.data.constraints.kinds import Linear
from postprior.pipelines.data.conversion import ColumnConversion
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import rows_as_data
from postprior.pipelines.data.export import export
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES

N = 400
STATES = {"Bern": "BE", "Biel": "BE", "Genf": "GE", "Nyon": "VD"}
KEPT = [
    *("sex x pregnant", "start < end", "low <= middle", "middle <= high"),
    *("fahrenheit = 1.8 * celsius + 32", "net + tax + tip = total", "city -> state", "age -> group"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tables whose columns determine and bound one another, also across the tables, with holes."""
    home, rng = tmp_path_factory.mktemp("constraints"), np.random.default_rng(0)
    city, sex, age = rng.choice(list(STATES), N), rng.choice(["f", "m"], N), rng.integers(18, 90, N)
    start = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 300, N), "D")
    low = rng.normal(80, 10, N).round()
    high = low + rng.gamma(3, 5, N).round()
    net, tax, tip, celsius = (rng.gamma(3, 10, N).round(2) for _ in range(4))
    tables = {
        "visits": {
            **{"city": city, "sex": sex, "age": age, "start": start.strftime("%Y-%m-%d"), "low": low, "high": high},
            **{"net": net, "tax": tax, "celsius": celsius.round(1), "note": rng.normal(0, 1, N).round(3)},
        },
        "bills": {
            "state": [STATES[name] for name in city],
            "pregnant": np.where((sex == "f") & (rng.random(N) < 0.3), "yes", "no"),
            "end": (start + pd.to_timedelta(rng.geometric(0.1, N), "D")).strftime("%d.%m.%Y"),
            "middle": (low + (high - low) * rng.random(N)).round(),
            **{"tip": tip, "total": (net + tax + tip).round(2), "fahrenheit": (celsius.round(1) * 1.8 + 32).round(1)},
            "group": pd.cut(age, [0, 30, 64, 100], labels=["young", "middle", "old"]),
        },
    }
    for name, columns in tables.items():
        table = pd.DataFrame(columns).mask(rng.random((N, len(columns))) < 0.03)
        table.insert(0, "id", [f"p{i}" for i in range(N)])
        table[rng.random(N) < 0.95].to_csv(home / f"{name}.csv", index=False)
    return home


def imported(folder: Path, out: Path, *options: str) -> str:
    paths = [str(path) for path in (folder / "visits.csv", folder / "bills.csv", out)]
    return CliRunner().invoke(app, ["import", *paths, "--id", "id", *options]).output


@pytest.fixture(scope="module")
def train(folder: Path) -> Dataset:
    imported(folder, folder / "data")
    return Dataset.load(folder / "data/train")


@pytest.fixture(scope="module")
def generator(train: Dataset) -> Generator:
    """A generator of wild values: nearly every row of its decoders violates something."""
    torch.manual_seed(0)
    model = MODELS["mvae"](train.modalities, latent=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    density = DENSITIES["normal"]().fit(posteriors(model, train, 1, torch.Generator().manual_seed(0)))
    return Generator(model, density, {}, train.conversion)


def check(folder: Path) -> None:
    """Check exported files cell by cell, without the product's own arithmetic; missing cells violate nothing."""
    rows = pd.merge(*(pd.read_csv(folder / f"{name}.csv", dtype=str) for name in ("visits", "bills")), on="id")
    number = {
        name: pd.to_numeric(rows[name])
        for name in ("low", "middle", "high", "net", "tax", "tip", "total", "celsius", "fahrenheit", "age")
    }
    for one, other in (("low", "middle"), ("middle", "high")):
        assert not (number[one] > number[other]).any(), one
    assert not (pd.to_datetime(rows.start) >= pd.to_datetime(rows.end, format="%d.%m.%Y")).any()
    cents = {name: (number[name] * 100).round() for name in ("net", "tax", "tip", "total")}
    assert not ((cents["net"] + cents["tax"] + cents["tip"] - cents["total"]).abs() > 0).any()
    assert not ((number["celsius"] * 1.8 + 32 - number["fahrenheit"]).abs() > 0.0501).any()
    complete = rows.dropna(subset=["city", "state"])
    assert (complete.city.map(STATES) == complete.state).all()
    groups = pd.cut(number["age"], [0, 30, 64, 100], labels=["young", "middle", "old"]).astype(object)
    complete = rows.dropna(subset=["age", "group"])
    assert (groups[complete.index] == complete.group).all()
    assert not ((rows.sex == "m") & (rows.pregnant == "yes")).any()


@pytest.mark.parametrize("values", ["mean", "draws"])
def test_synthetic_rows_keep_constraints(train: Dataset, generator: Generator, tmp_path: Path, values: str) -> None:
    assert list(violations(train)) == KEPT
    assert not np.any(list(violations(train).values()))
    drawn = generator.sample(300, values=values)
    free = {key: value for key, value in (train.conversion or {}).items() if key != "constraints"}
    bare = Generator(generator.model, generator.density, {}, free).sample(300, values=values)
    assert np.mean(np.any(list(violations(replace(bare, conversion=train.conversion)).values()), 0)) > 0.9
    drawn.save(tmp_path / "drawn")
    export(tmp_path / "drawn", tmp_path / "files")
    for name in ("visits", "bills"):
        assert len(pd.read_csv(tmp_path / f"files/{name}.csv").dropna()) == 300
    check(tmp_path / "files")
    related = {name for text in KEPT for name in text.replace("*", " ").split()}
    for m in train.modalities:
        for j, column in enumerate(m.columns):
            if column.name not in related:
                np.testing.assert_array_equal(drawn.data[m.name][:, j], bare.data[m.name][:, j])


def test_imputed_cells_keep_constraints_with_given_cells(train: Dataset, generator: Generator, tmp_path: Path) -> None:
    draws = generator.impute(train, draws=2, values="draws")
    assert not np.array_equal(draws[0].data["bills"], draws[1].data["bills"])
    for draw in draws:
        for m in train.modalities:
            given = ~train.missing(m.name)
            np.testing.assert_array_equal(draw.data[m.name][given], train.data[m.name][given])
    draws[1].save(tmp_path / "drawn")
    export(tmp_path / "drawn", tmp_path / "files")
    check(tmp_path / "files")


def test_import_tells_constraints_and_drops_them(folder: Path, train: Dataset, tmp_path: Path) -> None:
    assert train.conversion
    told = (folder / "data/import.txt").read_text()
    assert f"constraints of all rows, kept by synthetic rows: {', '.join(KEPT)}\n" in told
    imported(folder, tmp_path / "some", "--drop-constraint", "low<=middle", "--drop-constraint", "city -> state")
    left = list(violations(Dataset.load(tmp_path / "some/train")))
    assert set(left) == {*KEPT, "low <= high"} - {"low <= middle", "city -> state"}
    imported(folder, tmp_path / "none", "--drop-constraint", "all")
    assert "constraints" not in json.loads((tmp_path / "none/train/manifest.json").read_text())["conversion"]
    wrong = imported(folder, tmp_path / "wrong", "--drop-constraint", "low <= midle")
    assert "no constraint 'low <= midle' found (did you mean low <= middle?), expected one of age -> group, " in wrong
    assert not (tmp_path / "wrong").exists()


def test_a_damaged_constraint_is_named(train: Dataset, generator: Generator) -> None:
    conversion = train.conversion or {}
    for broken in ({"kind": "order"}, {"kind": "later"}, conversion["constraints"][1] | {"low": ["visits", "absent"]}):
        damaged = Generator(generator.model, generator.density, {}, conversion | {"constraints": [broken]})
        with pytest.raises(UserError, match="conversion of constraints: damaged"):
            damaged.sample(3)


def test_a_given_total_below_its_parts_leaves_valid_values() -> None:
    """Nothing can keep the sum then; a drawn part does not become negative, where its kind has no such value."""
    refs = [("t", name) for name in ("part", "other", "total")]
    for kind in ("log", "count"):
        columns = {ref: ColumnConversion(ref[1], kind, "double", offset=1.0) for ref in refs}
        values = {ref: np.array([x]) for ref, x in zip(refs, (3.0, 20.0, 5.0), strict=True)}
        free = {ref: np.array([ref == refs[0]]) for ref in refs}
        keep([Linear(refs[2], (refs[0], refs[1]), (1.0, 1.0), 0.0, 0.5)], cells := Cells(columns, values, free))
        assert [cells.values[ref].item() for ref in refs] == pytest.approx([0, 20, 5], abs=1e-6)


def test_values_that_float32_rounds(tmp_path: Path) -> None:
    """Times in seconds over years, and logarithms of large amounts: real rows violate nothing, drawn rows neither."""
    rng = np.random.default_rng(0)
    opened = pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.integers(0, 8 * 365 * 86400, N), "s")
    closed = opened + pd.to_timedelta(np.where(rng.random(N) < 0.3, 0, rng.integers(0, 10**8, N)), "s")
    net, tax = rng.gamma(1, 1e6, N).round(2), rng.gamma(1, 1e6, N).round(2)
    table = {"opened": opened, "closed": closed, "net": net, "tax": tax, "total": (net + tax).round(2)}
    pd.DataFrame(table).to_csv(tmp_path / "cases.csv", index=False)
    logs = [text for name in ("net", "tax", "total") for text in ("--kind", f"{name}=log")]
    CliRunner().invoke(app, ["import", str(tmp_path / "cases.csv"), str(tmp_path / "data"), *logs])
    for split in ("train", "validation", "test"):
        real = Dataset.load(tmp_path / "data" / split)
        assert {text: int(rows.sum()) for text, rows in violations(real).items()} == {
            "opened <= closed": 0,
            "net + tax = total": 0,
        }
    shuffled = {"cases": rng.permuted(np.array(real.data["cases"]), axis=0)}
    drawn = replace(real, data=rows_as_data(shuffled, real.conversion), source_values={}, ids=None, folder=None)
    assert not np.any(list(violations(drawn).values()))
    drawn.save(tmp_path / "drawn")
    export(tmp_path / "drawn", tmp_path / "files")
    rows = pd.read_csv(tmp_path / "files/cases.csv", parse_dates=["opened", "closed"])
    assert (rows.opened <= rows.closed).all()
    assert (rows.net + rows.tax - rows.total).abs().max() <= 2e-6 * rows.total.max()
