"""Names that files, DVC, MLflow, HTML and terminals trip over, from the import to the report and the export."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from torch import nn

from postprior.pipelines.data.names import KEY, keys_of

ESCAPES = "\x1b[31mred\x1b]0;pwn\x07"
ARRAYS = [
    *("基因", "蛋白", "error", "a//b", "a/b", "CON", "RNA", "rna", "joint", "codes", "all", "real", "mean", "average"),
    *("values", "train", "observed", "file", "a_b", "a b", "x ", "x.", "🧬", "שלום\u200f", "e\u0301"),
    *("<script>alert(1)</script>", "$\\frac{a}{b}$", "- &x: *y #", "long" * 75, ESCAPES, "'\"`|", "{x}", "..", "."),
]
"""Names of arrays in an archive, and of modalities."""
FILES = ["labels", "mask", "ids", "表格"]
"""Names of tables."""
COLUMNS = ["误差", "error", "a//b", "p_value", "<b>x</b>", "$x_1$", "A", "a", ESCAPES, "é", "{}", "- #"]
LABELS = ["健康", "<script>", "error", ESCAPES]
N = 120
IDS = [f"患者/{row}" if row % 2 else f"p\x1b{row}" for row in range(N)]


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def sources(home: Path) -> list[Path]:
    """An archive of vectors and a table whose names are the zoo."""
    rng = np.random.default_rng(0)
    label = np.arange(N) % len(LABELS)
    home.mkdir(parents=True)
    arrays: dict[str, Any] = {name: rng.normal(size=(N, 2)) + label[:, None] for name in ARRAYS}
    arrays |= {"ids": np.array(IDS)}
    from zipfile import ZipFile

    with ZipFile(home / "views.npz", "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
    tables: dict[str, dict[str, Any]] = {name: {"识别": IDS, "x": rng.normal(size=N)} for name in FILES}
    tables["表格"] |= {"诊断": [LABELS[k] for k in label]} | {name: rng.normal(size=N).round(3) for name in COLUMNS}
    for name, columns in tables.items():
        pyarrow.csv.write_csv(pa.table(columns), home / f"{name}.csv")
    return [*(home / f"{name}.csv" for name in FILES), home / "views.npz"]


def test_keys_are_safe_stable_and_unique() -> None:
    names = list(dict.fromkeys(map(nfc, ARRAYS)))
    keys = keys_of(names)
    assert len({key.lower() for key in keys.values()}) == len(names)
    assert all(KEY.fullmatch(key) for key in keys.values())
    assert all(keys_of([name])[name] == key for name, key in keys.items() if name not in ("rna", "a_b", "a b", "a/b"))
    assert [keys[name] for name in ("RNA", "joint", "a//b", "all", "a_b")] == ["RNA", "joint", "a__b", "all", "a_b"]
    nn.ModuleDict({key: nn.Identity() for key in keys.values()})  # models have one part per modality
    attributes = [name for name in dir(nn.ModuleDict()) if KEY.fullmatch(name)]
    nn.ModuleDict({key: nn.Identity() for key in keys_of(attributes).values()})
