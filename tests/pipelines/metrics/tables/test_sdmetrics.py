"""Similarity of tables against SDMetrics itself, which is installed in an environment of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from postprior.pipelines.data.conversion import TableConversion
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.tables.columns import Limits
from postprior.pipelines.metrics.tables.similarity import table_scores

PACKAGE = "sdmetrics==0.32.0"
TABLES = {
    "demography": {"age": "numeric", "sex": "categorical", "smoker": "boolean", "site": "categorical"},
    "laboratory": {"kappa": "log", "lambda": "log", "grade": "count", "mgus": "categorical", "flat": "numeric"},
}
SCRIPT = """
import json, warnings; import pandas as pd; warnings.filterwarnings("ignore")
from sdmetrics.reports.single_table import DiagnosticReport, QualityReport
real, fake, train = (pd.read_csv(f"{name}.csv") for name in ("real", "fake", "train"))
columns = {name: {"sdtype": kind} for name, kind in json.load(open("kinds.json")).items()}
quality, diagnostic = QualityReport(), DiagnosticReport()
quality.generate(real, fake, {"columns": columns}, verbose=False)
diagnostic.generate(train, fake, {"columns": columns}, verbose=False)
both = [report.get_properties().set_index("Property").Score for report in (quality, diagnostic)]
pairs = quality.get_details("Column Pair Trends")
print(json.dumps({**both[0], **both[1], "Quality": quality.get_score(), "pairs": int(pairs["Meets Threshold?"].sum())}))
"""


def patients(rows: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Associated columns of every kind with missing cells and rows without a table; `shift` makes them unlike."""
    rng = np.random.default_rng(seed)
    site, age = rng.integers(0, 3, rows), rng.normal(60 + 10 * shift, 12, rows).round()
    risk = (age - 60) / 12 + site + rng.normal(size=rows)
    frame = pd.DataFrame(
        {
            "age": age,
            "sex": rng.choice(["F", "M"], rows, p=[0.6 - shift / 4, 0.4 + shift / 4]),
            "smoker": (risk + rng.normal(size=rows) > 1).astype(float),
            "site": np.array(["east", "north", "west"])[site],
            "kappa": np.exp(0.6 * risk + 0.5 * rng.normal(size=rows)).round(2),
            "lambda": np.exp((0.6 - shift / 2) * risk + 0.5 * rng.normal(size=rows)).round(3),
            "grade": rng.poisson(np.exp(0.4 * risk.clip(-3, 3))).astype(float),
            "mgus": np.where(risk + rng.normal(size=rows) / 2 > 2.5, "yes", "no"),
            "flat": 3.5 if shift else rng.normal(size=rows).round(1),
        }
    )
    frame["flat"] = frame["flat"].astype(float) if shift else (frame["flat"] + frame["age"]).round(1)
    holes = rng.random((rows, 7)) < 0.1
    frame = frame.mask(pd.DataFrame(np.pad(holes, ((0, 0), (2, 0))), columns=frame.columns))
    frame.loc[rng.random(rows) < 0.15, list(TABLES["laboratory"])] = None
    return frame


def dataset(frame: pd.DataFrame, conversions: list[TableConversion]) -> Dataset:
    """The rows of a frame as an import would encode them."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    data, cells = {}, {}
    for conversion in conversions:
        data[conversion.name], cells[conversion.name] = conversion.encode(table, np.arange(len(frame)))
    entries = {"modalities": {conversion.name: conversion.describe() for conversion in conversions}}
    return Dataset(tuple(c.modality for c in conversions), data, cells=cells, conversion=entries)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the package."""
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    subprocess.run([home / "bin/python", "-m", "pip", "install", "--quiet", PACKAGE], check=True)
    return home / "bin/python"


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_scores_are_those_of_sdmetrics(tmp_path: Path, python: Path, shift: float) -> None:
    frames = {"train": patients(4000, 0), "real": patients(3000, 1), "fake": patients(3000, 2, shift)}
    table = pa.Table.from_pandas(frames["train"], preserve_index=False)
    facts = {"file": "patients.csv"}
    conversions = [TableConversion.fit(name, kinds, table, np.arange(4000), facts) for name, kinds in TABLES.items()]
    train, real, fake = (dataset(frame, conversions) for frame in frames.values())
    ones = np.ones((1, 3000))
    ours = {key: float(value[0]) for key, value in table_scores(real, ones, fake, ones, Limits.of(train)).items()}

    for name, rows in {"train": train, "real": real, "fake": fake}.items():
        decoded = [c.decode(rows.data[c.name], rows.cells[c.name]).to_pandas() for c in conversions]  # as export does
        parts = [part[list(kinds)] for part, kinds in zip(decoded, TABLES.values(), strict=True)]
        pd.concat(parts, axis=1).to_csv(tmp_path / f"{name}.csv", index=False)
    kinds = {name: kind for kinds in TABLES.values() for name, kind in kinds.items()}
    discrete = ("categorical", "boolean")
    types = {name: "categorical" if kind in discrete else "numerical" for name, kind in kinds.items()}
    (tmp_path / "kinds.json").write_text(json.dumps(types))
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, "-c", SCRIPT]
    run = subprocess.run(command, cwd=tmp_path, env=alone, check=True, capture_output=True, text=True)
    theirs = json.loads(run.stdout)
    assert theirs["pairs"] >= 5
    assert theirs["Data Structure"] == 1
    for key, name in {
        "column_shapes": "Column Shapes",
        "column_pair_trends": "Column Pair Trends",
        "quality": "Quality",
        "validity": "Data Validity",
    }.items():
        assert ours[key] == pytest.approx(theirs[name], abs=1e-9), name
