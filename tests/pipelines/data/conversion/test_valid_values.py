"""What leaves a decoder is data: the range, the decimals and the whole numbers of the training rows; real rows stay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.commands.app import app
from postprior.pipelines.data.conversion import ArrayConversion, ColumnConversion
from postprior.pipelines.data.conversion.precision import fewest_decimals
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import as_data
from postprior.pipelines.data.export import export
from postprior.pipelines.generation.generator import Generator
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES

N = 60
DECIMALS = {"age": 0, "weight": 1, "dose": 2, "visits": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of whole, decimal and skewed numbers with holes, and a vector of counts beside one of scores."""
    home, rng = tmp_path_factory.mktemp("valid"), np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": rng.integers(20, 80, N),
            "weight": rng.normal(70, 9, N).round(1),
            "dose": np.exp(rng.normal(3, 1.5, N)).round(2),
            "visits": rng.poisson(2, N),
            "part": np.repeat(["train", "validation", "test"], N // 3),
        }
    )
    table.loc[N - 1, ["age", "weight", "dose"]] = 130, 180.25, 9999.125  # a held-out row beyond the training rows
    table.loc[3, "weight"] = np.nan
    table.to_csv(home / "clinic.csv", index=False)
    amounts = ((1 + rng.gamma(2, 1, (N, 3))) * (rng.random((N, 3)) < (0.3, 0.6, 1))).round(3)
    scores = np.c_[rng.random(N).round(2), rng.random(N)]
    np.savez(home / "arrays.npz", scores=scores, reads=rng.poisson(3, (N, 2)), amounts=amounts)
    done(home, "--kind", "dose=log", "--kind", "visits=count")
    return home


def done(home: Path, *options: str) -> str:
    """Import the files of a folder; return what was told."""
    paths = (str(home / name) for name in ("clinic.csv", "arrays.npz", "data"))
    result = CliRunner().invoke(app, ["import", *paths, "--split", "part", *options], catch_exceptions=False)
    return result.output


def generators(train: Dataset) -> Iterator[Generator]:
    """A generator of wild values, with the limits of the data and without."""
    torch.manual_seed(0)
    model = MODELS["mvae"](train.modalities, latent=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    density = DENSITIES["normal"]().fit(posteriors(model, train, 1, torch.Generator().manual_seed(0)))
    yield Generator(model, density, {}, train.conversion)
    yield Generator(model, density, {}, None)


@pytest.mark.parametrize("values", ["mean", "draws"])
def test_synthetic_and_imputed_values_are_those_of_the_training_rows(folder: Path, tmp_path: Path, values: str) -> None:
    train, table = Dataset.load(folder / "data/train"), pd.read_csv(folder / "clinic.csv")
    limited, wild = generators(train)
    drawn = limited.sample(200, values=values)
    drawn.save(tmp_path / "drawn")
    export(tmp_path / "drawn", tmp_path / "files")
    synthetic = pd.read_csv(tmp_path / "files/clinic.csv")
    known = table[table.part == "train"]
    for name, decimals in DECIMALS.items():
        low, high = known[name].min(), known[name].max()
        assert synthetic[name].between(low, high).all(), name
        assert np.array_equal(synthetic[name], synthetic[name].round(decimals)), name
    arrays, train_arrays = np.load(tmp_path / "files/arrays.npz"), np.load(folder / "arrays.npz")
    for name in ("scores", "reads", "amounts"):
        ends = (bound(train_arrays[name][: N // 3], axis=0) for bound in (np.min, np.max))
        low, high = ends
        assert ((arrays[name] >= low - 1e-7) & (arrays[name] <= high + 1e-7)).all()
    amounts = arrays["amounts"]
    assert (amounts == 0).any(0).tolist() == [True, True, False]
    assert np.array_equal(amounts, amounts.round(3))
    assert np.array_equal(arrays["scores"][:, 0], arrays["scores"][:, 0].round(2))
    assert not np.array_equal(arrays["scores"][:, 1], arrays["scores"][:, 1].round(6))
    free = wild.sample(200, values=values)
    assert not np.array_equal(free.data["clinic"], drawn.data["clinic"])  # without limits, the values are others
    holes = train.missing("clinic")
    assert holes.sum() == 1
    (imputed,) = limited.impute(train, values=values)
    assert np.array_equal(imputed.data["clinic"][~holes], train.data["clinic"][~holes])
    imputed.save(tmp_path / "imputed")
    export(tmp_path / "imputed", tmp_path / "filled")
    (filled,) = pd.read_csv(tmp_path / "filled/clinic.csv")["weight"][holes.any(1)]
    assert known["weight"].min() <= filled <= known["weight"].max()
    assert filled == round(filled, 1)


def test_drawn_fractions_sum_to_one(tmp_path: Path) -> None:
    """Rows that all have one sum in training have it in what is drawn, as far as the range lets them."""
    rng = np.random.default_rng(1)
    shares = rng.gamma(0.5, 1, (N, 6)) * (rng.random((N, 6)) < 0.6) + np.eye(N, 6, dtype=bool) + np.eye(N, 6, -6)
    shares += 1e-3 * (shares.sum(1, keepdims=True) == 0)
    np.savez(tmp_path / "arrays.npz", shares=shares / shares.sum(1, keepdims=True), unequal=shares)
    CliRunner().invoke(app, ["import", str(tmp_path / "arrays.npz"), str(tmp_path / "data")], catch_exceptions=False)
    train = Dataset.load(tmp_path / "data/train")
    limited = next(generators(train))
    entries = (train.conversion or {})["modalities"]
    scale, high = np.array(entries["shares"]["scale"]), np.array(entries["shares"]["valid_range"][1])
    drawn = limited.sample(300).data["shares"] * scale
    assert (drawn.sum(1) < 1 + 1e-4).all()
    assert (drawn.sum(1) > 1 - 1e-4).mean() > 0.8
    assert (drawn == 0).any(0).all()
    assert (drawn <= high + 1e-6).all()
    assert "total" not in entries["unequal"]


def test_real_rows_are_not_changed(folder: Path, tmp_path: Path) -> None:
    """Values of training rows are valid already, bit for bit; held-out rows keep values that are not."""
    train = Dataset.load(folder / "data/train")
    for m in train.modalities:
        seen = ~train.missing(m.name)
        np.testing.assert_array_equal(as_data(m, train.data[m.name], train.conversion)[seen], train.data[m.name][seen])
    export(folder / "data/test", tmp_path / "test")
    last = pd.read_csv(tmp_path / "test/clinic.csv").iloc[-1]
    assert last[["age", "weight", "dose"]].tolist() == [130, 180.25, 9999.125]


def test_a_conversion_of_an_earlier_version_limits_nothing(folder: Path) -> None:
    entries = json.loads((folder / "data/train/manifest.json").read_text())["conversion"]["modalities"]
    column = next(entry for entry in entries["clinic"]["columns"] if entry["name"] == "weight")
    assert (column.pop("decimals"), len(column.pop("valid_range"))) == (1, 2)
    x = np.array([-50.0, 0.1234567, 50.0], np.float32)
    np.testing.assert_array_equal(ColumnConversion.from_description(column).valid(x), x)
    array = {key: entries["scores"][key] for key in entries["scores"] if key not in ("valid_range", "decimals")}
    wide = np.array([[-50.0, 50.0]], np.float32)
    np.testing.assert_array_equal(ArrayConversion.from_description("scores", array).valid(wide), wide)
    assert np.abs(ArrayConversion.from_description("scores", entries["scores"]).valid(wide)).max() < 50


def test_the_user_widens_or_drops_limits(folder: Path, tmp_path: Path) -> None:
    for name in ("clinic.csv", "arrays.npz"):
        (tmp_path / name).symlink_to(folder / name)
    names = ["--kind", "dose=log", "--kind", "visits=count"]
    done(
        tmp_path, *names, "--range", "none", "--range", "age=0,120", "--range", "scores=-1,2", "--decimals", "dose=none"
    )
    conversion = Dataset.load(tmp_path / "data/train").conversion or {}
    columns = {entry["name"]: entry for entry in conversion["modalities"]["clinic"]["columns"]}
    ranges = {name: entry.get("valid_range") for name, entry in columns.items()}
    assert ranges == {"age": [0, 120], "weight": None, "dose": None, "visits": None}
    assert {name: entry.get("decimals") for name, entry in columns.items()} == {
        **{"age": 0, "weight": 1},
        **{"dose": None, "visits": None},
    }
    assert conversion["modalities"]["scores"]["valid_range"] == [-1, 2]
    assert conversion["modalities"]["scores"]["decimals"] == [2, None]
    assert "valid_range" not in conversion["modalities"]["reads"]
    conversion = ColumnConversion.from_description(columns["age"])
    far = conversion.valid(np.array([-9.0, 9.0]))
    np.testing.assert_allclose(far * conversion.scale + conversion.offset, [0, 120])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--range", "age=5"], "--range: found 'age=5', expected [NAME=]LOW,HIGH or [NAME=]none"),
        (["--range", "age=5,2"], "--range: found 'age=5,2', expected"),
        (["--range", "agee=0,9"], "--range: found 'agee', which is not a known column or array (did you mean age?)"),
        (["--range", "none", "--range", "0,1"], "--range: found a value for all twice, expected it once"),
        (["--decimals", "weight=1.5"], "--decimals: found 'weight=1.5', expected [NAME=]N or [NAME=]none"),
        (
            ["--decimals", "reads=2"],
            "--decimals reads: the kind count found, expected a vector or a column of the kind",
        ),
    ],
)
def test_limits_that_cannot_be_met(folder: Path, tmp_path: Path, options: list[str], sentence: str) -> None:
    paths = (str(folder / "clinic.csv"), str(folder / "arrays.npz"), str(tmp_path / "data"))
    result = CliRunner().invoke(app, ["import", *paths, *options])
    assert result.exit_code == 1
    assert sentence in result.output
    assert not (tmp_path / "data").exists()


def test_decimals_are_the_fewest_that_write_a_value() -> None:
    single = np.array([[0.1, 1e-9], [2.25, 1.0]], np.float32)
    assert fewest_decimals(single).tolist() == [2, 7]
    assert fewest_decimals(np.array([1200, 1300])) == 0
    assert fewest_decimals(np.array([0.1 + 0.2])) == 7  # 0.30000000000000004
    dates = ColumnConversion("x", "numeric", "date32[day]", decimals=0, scale=100.0)
    assert replace(dates, valid_range=(10.0, 20.0)).valid(np.array([0.004, 0.123, 9.0])) == pytest.approx(
        [0.1, 0.12, 0.2]
    )
