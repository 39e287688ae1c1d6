"""Tables to import, and imports that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as parquet
import pytest

from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError

N = 120
ROLES = Roles(id="patient", label="diagnosis")


def clinic(rows: int = N, seed: int = 0) -> pa.Table:
    """Patients with a column of every kind; some ages and weights are missing."""
    rng = np.random.default_rng(seed)
    hole = rng.random(rows) < 0.1
    return pa.table(
        {
            "patient": [f"p{row:03}" for row in range(rows)],
            "age": pa.array(rng.integers(18, 90, rows), pa.int32(), mask=hole),
            "weight": pa.array(rng.normal(70, 12, rows).round(1), mask=~hole & (rng.random(rows) < 0.1)),
            "site": pa.array(rng.choice(["Bern", "Genf", "Zug"], rows)),
            "smoker": rng.random(rows) < 0.3,
            "arm": rng.choice([1, 2], rows),
            "visits": pa.array(rng.poisson(2, rows)),
            "crp": rng.lognormal(1, 1, rows),
            "diagnosis": np.array(["well", "ill", "ill"])[np.arange(rows) % 3],
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        csv.write_csv(table, path)
    return path


def refused(source: Path, folder: Path, sentence: str, roles: Roles) -> None:
    """Assert that an import fails with one sentence and writes nothing."""
    with pytest.raises(UserError, match=sentence) as error:
        import_data([source], folder, roles)
    assert "\n" not in str(error.value)
    assert not folder.exists()


def notes(source: Path, folder: Path, roles: Roles) -> list[str]:
    """Import a folder of images and return what the summary tells about it."""
    return [line for line in import_data([source], folder, roles) if line.startswith(f"{source.name}: ")]
