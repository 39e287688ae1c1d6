"""Names that files, DVC, MLflow, HTML and terminals trip over, from the import to the report and the export."""

from __future__ import annotations

import html
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml
from support.project import write_params
from torch import nn
from typer.testing import CliRunner

from postprior.pipelines.api.init import init
from postprior.pipelines.commands.app import app
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.rows import import_rows
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.data.names import KEY, keys_of
from postprior.pipelines.report.figures import drawable, numbered
from postprior.pipelines.stages.compare import compare
from postprior.pipelines.stages.encode import encode
from postprior.pipelines.stages.evaluate import evaluate
from postprior.pipelines.stages.fit import fit
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.prepare import prepare
from postprior.pipelines.stages.privacy import privacy
from postprior.pipelines.stages.score_baselines import score_baselines
from postprior.pipelines.stages.train import train
from postprior.pipelines.stages.train_evaluators import train_evaluators
from postprior.pipelines.storage import read_json
from postprior.pipelines.texts import escape_controls
from postprior.pipelines.tracking.client import safe_key

ESCAPES, LONG, SCRIPT = "\x1b[31mred\x1b]0;pwn\x07", "long" * 75, "<script>alert(1)</script>"
ARRAYS = [
    *("基因", "蛋白", "error", "a//b", "a/b", "CON", "RNA", "rna", "joint", "codes", "all", "real", "mean", "average"),
    *("values", "train", "observed", "file", "a_b", "a b", "x ", "x.", "🧬", "שלום\u200f", "e\u0301", "..", ".", LONG),
    *(SCRIPT, "$\\frac{a}{b}$", "- &x: *y #", ESCAPES, "'\"`|", "{x}"),
]
"""Names of arrays in an archive."""
FILES = ["labels", "mask", "ids", "表格"]
"""Names of tables."""
COLUMNS = ["误差", "error", "a//b", "p_value", SCRIPT, "$x_1$", "A", "a", ESCAPES, "e\u0301", "{}", "- #", LONG]
LABELS = ["健康", SCRIPT, "error", ESCAPES]
N = 120
IDS = [f"患者/{row}" if row % 2 else f"p\x1b{row}" for row in range(N)]
ROLES = Roles(id="识别", label="诊断")
SHOWN = {unicodedata.normalize("NFC", name) for name in (*ARRAYS, *FILES)}


def sources(home: Path, names: Sequence[str] = ARRAYS, files: Sequence[str] = FILES) -> list[Path]:
    """An archive of vectors and tables with these names, and with the columns, labels and ids of the zoo."""
    rng, label = np.random.default_rng(0), np.arange(N) % len(LABELS)
    home.mkdir(parents=True)
    with ZipFile(home / "views.npz", "w") as archive:
        vectors = {name: rng.normal(size=(N, 2)) + label[:, None] for name in names}
        for name, array in {**vectors, "ids": np.array(IDS)}.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
    tables: dict[str, dict[str, Any]] = {name: {"识别": IDS, "x": rng.normal(size=N)} for name in files}
    tables["表格"] |= {"诊断": [LABELS[k] for k in label]} | {name: rng.normal(size=N).round(3) for name in COLUMNS}
    for name, columns in tables.items():
        pyarrow.csv.write_csv(pa.table(columns), home / f"{name}.csv")
    return [*(home / f"{name}.csv" for name in files), home / "views.npz"]


def test_keys_are_safe_unique_and_those_of_earlier_versions() -> None:
    keys = keys_of(sorted(SHOWN))
    assert len({key.lower() for key in keys.values()}) == len(SHOWN)
    assert all(KEY.fullmatch(key) for key in keys.values())
    assert {name for name in SHOWN if keys[name] != keys_of([name])[name]} == {"rna", "a b", "a/b", "x."}
    assert [keys[name] for name in ("joint", "a//b", "all", "a_b", "mean")] == ["joint", "a__b", "all", "a_b", "mean"]
    attributes = [name for name in dir(nn.ModuleDict()) if KEY.fullmatch(name)]
    nn.ModuleDict({key: nn.Identity() for key in keys_of({*SHOWN, *attributes}).values()})  # models have one part each


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("zoo")
    import_data(sources(home / "in"), home / "data", ROLES)
    return home


def test_names_come_back_as_written(imported: Path) -> None:
    """Also those in another Unicode form, and after an import like this one."""
    rows = import_rows(sorted((imported / "in").iterdir()), imported / "rows", Roles(), imported / "data")
    assert any(line.startswith(escape_controls(ESCAPES)) for line in rows)
    for folder in (*(imported / "data" / split for split in SPLITS), imported / "rows"):
        dataset = Dataset.load(folder)
        assert {m.title for m in dataset.modalities} == SHOWN
        assert dataset.label_names is not None
        assert set(dataset.label_names) == set(LABELS)
        assert set(dataset.ids) <= set(IDS)
        files = export(folder, imported / "back" / folder.name)
        assert files == sorted([*(f"{name}.csv" for name in FILES), "views.npz"])
        table = pyarrow.csv.read_csv(imported / "back" / folder.name / "表格.csv")
        assert table.column_names == ["识别", "x", "诊断", *COLUMNS]
        with np.load(imported / "back" / folder.name / "views.npz") as arrays:
            assert {*arrays} - {"ids", "labels"} >= SHOWN - {*FILES, ".."}
            np.testing.assert_array_equal(arrays["a//b"].shape, (len(dataset), 2))


def test_names_in_another_unicode_form_match(tmp_path: Path) -> None:
    """In options, in ids, and in two columns of one file, which is refused; the file gets its own spelling back."""
    composed, decomposed = "\xe9", "e\u0301"
    rng = np.random.default_rng(0)
    left = pa.table({"id": [f"{composed}{n}" for n in range(60)], decomposed: rng.integers(0, 3, 60) + 0.5})
    right = pa.table({"id": [f"{decomposed}{n}" for n in range(60)], "y": rng.normal(size=60)})
    pyarrow.parquet.write_table(left, tmp_path / "a.parquet")
    pyarrow.csv.write_csv(right, tmp_path / "b.csv")
    paths = [tmp_path / "a.parquet", tmp_path / "b.csv"]
    told = import_data(paths, tmp_path / "data", Roles(kinds={composed: "numeric"}))
    assert "b.csv: 60 ids matched in another form" in "\n".join(told)
    assert Dataset.load(tmp_path / "data/train").mask is None
    export(tmp_path / "data/test", tmp_path / "back")
    assert pyarrow.parquet.read_table(tmp_path / "back/a.parquet").column_names == ["id", decomposed]


def test_a_figure_shows_names_that_its_font_lacks_as_numbers() -> None:
    assert drawable(["age", "基因", "$x$", "a\nb"]) == {"age": "age", "基因": "no. 2", "$x$": "$x$", "a\nb": r"a\nb"}
    assert len(drawable([LONG])[LONG]) < 40
    assert numbered(["age", "基因", "🧬"]) == " In the figure, no. 2 is 基因 and no. 3 is 🧬."
    assert numbered(["age"]) == ""


def test_long_names_of_metrics_stay_different_and_within_the_limit() -> None:
    names = [f"columns.{LONG}.{score}" for score in ("p_value", "statistic")]
    assert len({safe_key(name) for name in names}) == 2
    assert all(len(safe_key(name)) <= 250 for name in names)


@pytest.mark.slow
def test_names_in_results_and_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    names = ["基因", "error", "a//b", SCRIPT, "$\\frac{a}{b}$", LONG, ESCAPES, "values", "mean"]
    import_data(sources(tmp_path / "in", names, ["表格", "labels"]), tmp_path / "data", ROLES)
    root = tmp_path / "project"
    init(root, tmp_path / "data")
    tree = yaml.safe_load((root / "params.yaml").read_text()) | {"densities": ["gmm"]}
    tree["evaluators"] |= {"epochs": 2, "features": 8}
    tree["vae"] |= {"latent": 4, "width": 4}
    tree["train"] |= {"epochs": 2, "device": "cpu"}
    tree["generate"]["samples"], tree["evaluate"]["resamples"] = 60, 20
    monkeypatch.chdir(root)
    params = write_params(root, tree)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Gg]lyph|.*layout")
        for stage in (prepare, train_evaluators, train, encode, score_baselines):
            stage(params, root)
        for stage in (fit, generate, evaluate, privacy):
            stage("gmm", params, root)
        compare(params, root)
    page = (root / "results/report.html").read_text()
    for name in names:
        assert html.escape(escape_controls(name), quote=False) in page.replace("&#34;", '"')
    assert "<script>alert" not in page
    assert "\x1b" not in page
    titles = {m.title for m in Dataset.load(root / "artefacts/synthetic/gmm").modalities}
    assert titles == {*names, "表格", "labels"}
    keys = read_json(root / "results/metrics/gmm.json")["modalities"].keys()
    assert all(KEY.fullmatch(key) for key in keys)
    assert "error" not in keys
    answer = CliRunner().invoke(app, ["generate", "gmm", "--label", f"{LABELS[0]}=3", "--out", "few"])
    assert answer.exit_code == 0, answer.output
    export(root / "few", tmp_path / "few")
    table = pyarrow.csv.read_csv(tmp_path / "few/表格.csv")
    assert table["诊断"].to_pylist() == [LABELS[0]] * 3
    assert table.column_names == ["识别", "x", "诊断", *COLUMNS]
    runs = mlflow.search_runs(search_all_experiments=True)
    assert set(runs["status"]) == {"FINISHED"}
    command = [sys.executable, "-m", "dvc", "metrics", "show", "results/summary.json"]
    dvc = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ailed" not in dvc.stderr
    assert "\x1b]0" not in dvc.stdout
