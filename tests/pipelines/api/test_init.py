"""Projects for custom data: suitable settings, and a pipeline that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.kinds import example
from support.project import REPOSITORY

from postprior.pipelines.api.choice.rules import settings
from postprior.pipelines.api.init import init, init_demo
from postprior.pipelines.commands.app import app
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.data.sources import check_source
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.checks import check_density, check_model, load_params
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES

BINARIES = Path(sys.executable).parent


def imported(folder: Path, rows: int = 60) -> Path:
    """Write dataset folders with a modality of every kind."""
    for seed, (split, share) in enumerate((("train", 0.6), ("validation", 0.2), ("test", 0.2))):
        example(int(rows * share), seed).save(folder / split)
    return folder


def test_the_settings_are_valid_and_say_where_the_data_are(tmp_path: Path) -> None:
    told = init(tmp_path / "a/project", imported(tmp_path / "data"))
    root = tmp_path / "a/project"
    params = load_params(root / "params.yaml")
    assert params.data.options == {"path": "../../data"}
    check_source(params)
    check_model(params, params.vae.model)
    for name in params.densities:
        check_density(params, name)
    sizes = params.vae.sizes
    model = MODELS[params.vae.model](example().modalities, seed=0, **sizes, **params.vae.chosen)
    assert model.latent == params.vae.latent
    assert "settings for 36 training rows" in told[0]
    assert told[-1] == f"Go on with: cd {root} && dvc repro"
    text = (root / "params.yaml").read_text()
    assert 'precision: "no"' in text
    assert "# width of the networks" in text  # the comments on the keys are kept
    assert "\ndensities: [gmm, gaussian, vamp] " in text
    assert yaml.safe_load(text)["data"].keys() == {"source", "folder"}


def test_the_pipeline_is_that_of_the_repository_and_depends_on_the_data(tmp_path: Path) -> None:
    init(tmp_path / "project", imported(tmp_path / "data"))
    stages: dict[str, Any] = yaml.safe_load((tmp_path / "project/dvc.yaml").read_text())["stages"]
    ours: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    ours["prepare"]["deps"].append("${data.folder.path}")
    assert stages == ours


def test_the_demo_is_that_of_the_repository(tmp_path: Path) -> None:
    """Byte for byte; with another profile, one line of the settings differs."""
    from typer.testing import CliRunner

    root = tmp_path / "demo"
    answer = CliRunner().invoke(app, ["init", str(root)])
    assert answer.exit_code == 0, answer.output
    *_, report, last = answer.output.splitlines()
    assert report.startswith(f"dvc repro will write {root}/results/report.html")
    assert last == f"Go on with: cd {root} && dvc repro"
    for name in ("params.yaml", "dvc.yaml"):
        assert (root / name).read_bytes() == (REPOSITORY / name).read_bytes()
    init_demo(tmp_path / "other", "full", git=False)
    ours, full = ((folder / "params.yaml").read_text().splitlines() for folder in (REPOSITORY, tmp_path / "other"))
    (changed,) = [pair for pair in zip(ours, full, strict=True) if len(set(pair)) > 1]
    assert [line.split(" #")[0].rstrip() for line in changed] == ["profile: quick", "profile: full"]


def test_only_a_project_named_demo_needs_no_data(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    answer = CliRunner().invoke(app, ["init", str(tmp_path / "project")])
    assert answer.exit_code == 1
    assert answer.stderr.startswith("postprior: error: --from: found none, expected the folder that postprior import")
    assert not list(tmp_path.iterdir())
    answer = CliRunner().invoke(app, ["init", str(tmp_path / "demo"), "--from", str(imported(tmp_path / "data"))])
    assert answer.exit_code == 0, answer.output
    assert load_params(tmp_path / "demo/params.yaml").data.source == "folder"
    with pytest.raises(UserError, match=r"params\.yaml: found an existing project"):
        init_demo(tmp_path / "demo")


def test_codes_of_tables_keep_what_their_columns_say(tmp_path: Path) -> None:
    for rows, split in ((60, "train"), (20, "validation"), (20, "test")):
        whole = example(rows)
        tables = tuple(m for m in whole.modalities if m.kind == "table")
        names = [m.name for m in tables]
        of_tables = {
            field: {n: x for n, x in getattr(whole, field).items() if n in names} for field in ("data", "cells")
        }
        places = [m.kind == "table" for m in whole.modalities]
        replace(whole, modalities=tables, **of_tables, mask=whole.observed[:, places]).save(tmp_path / "data" / split)
    init(tmp_path / "project", tmp_path / "data")
    vae = load_params(tmp_path / "project/params.yaml").vae
    columns = sum(m.shape[0] for m in tables)
    assert columns / 2 < vae.latent <= columns
    assert vae.chosen["beta"] == 0.2


def dvc(warm: Path, root: Path, *arguments: str) -> str:
    """Run DVC and return its output."""
    environment = os.environ | {
        "PATH": f"{warm}{os.pathsep}{BINARIES}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }
    answer = subprocess.run(
        ["dvc", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=1700
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_dvc_runs_there_at_once(tmp_path: Path, warm: Path) -> None:
    """As an experiment, in a folder of a git repository in which the project is not yet committed."""
    data, root = imported(tmp_path / "data"), tmp_path / "repository/project"
    root.mkdir(parents=True)
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], cwd=root.parent, check=True)
    init(root, data)
    assert "Running stage 'prepare'" in dvc(warm, root, "exp", "run", "-S", "vae.model=mopoe", "prepare")
    assert load_params(root / "params.yaml").vae.model == "mopoe"
    made = Dataset.load(root / "artefacts/data/test")
    np.testing.assert_array_equal(made.data["reads"], Dataset.load(data / "test").data["reads"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_table_becomes_synthetic_rows_in_three_commands(tmp_path: Path, warm: Path) -> None:
    """Real measurements of breast tumours are joined from two files, one of which lacks rows."""
    import pyarrow as pa
    import pyarrow.csv as csv
    from sklearn.datasets import load_breast_cancer

    tumours = load_breast_cancer()
    ids = np.array([f"p{row:03}" for row in range(len(tumours.data))])
    names = [str(name) for name in tumours.feature_names]
    labels = tumours.target_names[tumours.target]
    first = pa.table([ids, labels, *tumours.data.T[:10]], names=["patient", "diagnosis", *names[:10]])
    second = pa.table([ids, *tumours.data.T[20:]], names=["patient", *names[20:]]).slice(50)
    csv.write_csv(first, tmp_path / "mean.csv")
    csv.write_csv(second, tmp_path / "worst.csv")
    roles = Roles(id="patient", label="diagnosis")
    import_data([tmp_path / "mean.csv", tmp_path / "worst.csv"], tmp_path / "data", roles)
    root = tmp_path / "project"
    init(root, tmp_path / "data")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["train"]["epochs"], params["densities"] = 60, ["gmm"]
    for stage in ("utility", "augment"):
        params[stage] |= {"seeds": [0], "steps": 100}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    dvc(warm, root, "repro")
    assert "Data and pipelines are up to date" in dvc(warm, root, "repro")
    assert (root / "results/report.html").exists()
    export(root / "artefacts/synthetic/gmm", tmp_path / "synthetic")
    made = csv.read_csv(tmp_path / "synthetic/mean.csv")
    assert made.column_names == first.column_names
    drawn, real = (table["mean area"].to_numpy() for table in (made, first))
    assert abs(np.median(drawn) - np.median(real)) < real.std() / 2
    malignant = np.array(made["diagnosis"].to_pylist()) == "malignant"
    assert np.median(drawn[malignant]) > 1.3 * np.median(drawn[~malignant])


@pytest.mark.parametrize("rows", [30, 400, 3000])
def test_nothing_needs_more_rows_than_there_are(rows: int) -> None:
    splits = {"train": example(rows), "validation": example(8), "test": example(max(8, rows // 4))}
    chosen = settings(splits)
    half = len(splits["test"]) // 2
    assert chosen["evaluators.features"] < max(half, 3)
    assert chosen["evaluate.neighbours"] < half
    assert chosen["density.vamp.pseudo_inputs"] <= rows
    assert chosen["augment.sizes"][0] <= rows // 2
    assert chosen["privacy.dimensions"] < rows
    assert max(chosen["density.gmm.components"]) * 2 <= rows
    assert ("flow" in chosen["densities"]) == (rows >= 1000)
    steps = chosen["train.epochs"] * rows / chosen["train.batch_size"]
    assert steps <= 3100
    assert chosen["vae.rescaling"] == "dimensions"  # 120 voxels beside two counts
    assert chosen["vae.likelihood_scale"] == 0.1  # no vector has a normal likelihood


@pytest.mark.parametrize(
    ("rows", "change", "model"),
    [
        (999, {}, "mvtcae"),
        (1000, {}, "unimodal"),
        (1000, {"labels": None, "label_names": None}, "mvtcae"),
        (1000, {"mask": np.arange(2000).reshape(1000, 2) != 7}, "mvtcae"),  # a row lacks a modality
    ],
    ids=["few", "many", "without labels", "incomplete"],
)
def test_images_with_many_labelled_complete_rows_have_codes_of_their_own(
    rows: int, change: dict[str, Any], model: str
) -> None:
    modalities = tuple(Modality(name, "image", (1, 4, 4), "laplace", (0.0, 1.0)) for name in "ab")
    data = {m.name: np.zeros((rows, *m.shape), np.float32) for m in modalities}
    images = Dataset(modalities, data, labels=np.arange(rows) % 2, label_names=("0", "1"))
    chosen = settings({"train": replace(images, **change), "test": images.select(np.arange(100))})
    assert chosen["vae.model"] == model
    conditional = {name for name, density in DENSITIES.items() if density.conditional}
    assert model == "mvtcae" or set(chosen["densities"]) <= conditional  # the density alone ties the modalities


def test_data_that_cannot_be_scored_are_reported_before_training(tmp_path: Path) -> None:
    data = imported(tmp_path / "data")
    assert not any("scores will be missing" in line for line in init(tmp_path / "a", data))
    test = Dataset.load(data / "test")
    test.select(np.arange(7)).save(data / "test")  # eight rows are needed
    (line,) = [line for line in init(tmp_path / "b", data) if "scores will be missing" in line]
    assert line.startswith("Found 7 test rows, but scores")


def test_a_project_is_never_overwritten_and_needs_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no train/manifest\.json, expected a folder written by postprior"):
        init(tmp_path / "project", tmp_path)
    data = imported(tmp_path / "data")
    (tmp_path / "project").mkdir()
    (tmp_path / "project/params.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"params\.yaml: found an existing project"):
        init(tmp_path / "project", data)
    assert (tmp_path / "project/params.yaml").read_text() == "mine"
    for place in (data, data / "train/project"):
        with pytest.raises(UserError, match=r"lies inside the data .*, expected a folder outside of it"):
            init(place, data)
    assert not (data / "params.yaml").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file: found a file, expected a folder or nothing"):
        init(tmp_path / "file", data)


def test_the_commands_hand_over_their_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    rows = ["id,age,sex,note,y"] + [f"{row},{row % 37 + 0.5},{row % 3},n{row},{'ab'[row % 3 % 2]}" for row in range(60)]
    Path("people.csv").write_text("\n".join(rows))
    options = [
        *("--label", "y", "--skip", "note"),
        *("--target", "age", "--modality", "who=sex", "--kind", "sex=numeric"),
    ]
    answer = CliRunner().invoke(app, ["import", "people.csv", "data", *options, "--test-share", "0.3"])
    assert answer.exit_code == 0, answer.output
    assert "who:\n  numeric: sex (0 to 2)" in answer.output
    assert "targets: age" in answer.output
    assert "rows: train 36, validation 6, test 18" in answer.output
    answer = CliRunner().invoke(app, ["init", "project", "--from", "data"])
    assert answer.exit_code == 0, answer.output
    answer = CliRunner().invoke(app, ["export", "data/test", "back", "--format", "parquet"])
    assert answer.exit_code == 0, answer.output
    assert answer.output == "people.parquet\nThese files are in back\n"
    answer = CliRunner().invoke(app, ["import", "people.csv", "other", "--modality", "who"])
    assert answer.exit_code == 1
    assert "--modality: found 'who', expected NAME=COLUMN,…" in answer.output
    answer = CliRunner().invoke(app, ["import", "people.csv", "other", "--kind", "y=log", "--kind", "y=count"])
    assert answer.exit_code == 1
    assert "--kind: found 'y' twice, expected each name once" in answer.output
