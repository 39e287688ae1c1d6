"""The whole product on data frames in memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.frames import everything, labs
from typer.testing import CliRunner

from postprior import Dataset, Generator, synthesise
from postprior.pipelines.api.init import init
from postprior.pipelines.commands.app import app
from postprior.pipelines.data.formats import memory
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_contents
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.checks import load_params

DEMO = everything(60).drop(columns=["arrow", "uint8", "string", "boolean", "dates"])
LABS = labs(DEMO, 45)
FRAMES = {"demo": DEMO, "labs": LABS}
SMALL = {"densities": ["gmm"], "density.gmm.components": [1], "density.gmm.covariance": "diagonal"}
QUICK = {"evaluate.resamples": 20, "utility.seeds": [], "privacy.draws": 0, "imputation.draws": 0}


@pytest.fixture(scope="module")
def generator() -> Generator:
    return synthesise(FRAMES, "death", epochs=2, settings=SMALL | QUICK, progress=False)


def test_samples_have_the_dtypes_of_the_data(generator: Generator) -> None:
    frames = generator.sample(50).to_pandas()
    assert list(frames) == list(FRAMES)
    for name, frame in FRAMES.items():
        assert list(map(repr, frames[name].dtypes)) == list(map(repr, frame.dtypes))
        assert frames[name].columns.equals(frame.columns)
        assert (frames[name].index.dtype, frames[name].index.name) == (frame.index.dtype, "patient")
    days = frames["demo"]["days"].dropna()
    assert (days.dt.normalize() == days).all()
    assert 0 < len(frames["labs"]) < len(frames["demo"]) == 50
    assert frames["demo"]["Int64"].isna().any()
    assert set(generator.sample(8, label=True).to_pandas()["demo"]["death"]) == {True}


def test_arrays_have_the_units_of_the_data(generator: Generator) -> None:
    arrays = generator.sample(50).to_numpy()
    assert arrays["labs"].dtype == np.float64
    assert np.isnan(arrays["labs"]).any()
    assert arrays["demo"].shape == (50, 14)
    low, high = np.nanmin(LABS, 0), np.nanmax(LABS, 0)
    assert (np.nanmin(arrays["labs"], 0) >= low).all()
    assert (np.nanmax(arrays["labs"], 0) <= high).all()


def test_the_commands_give_the_same_bytes(generator: Generator, tmp_path: Path) -> None:
    folder = generator.save(tmp_path / "project")
    samples = generator.sample(300, seed=7)
    arguments = ["--samples", "300", "--seed", "7", "--params", str(folder / "params.yaml")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "off")
        done = CliRunner().invoke(app, ["generate", "gmm", "--out", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 0, done.output
    written = Dataset.load(tmp_path / "out")
    assert written.provenance == samples.provenance
    assert written.arrays.keys() == samples.arrays.keys()
    for loaded in (samples, Generator.load(folder).sample(300, seed=7)):
        assert all(written.arrays[name].tobytes() == array.tobytes() for name, array in loaded.arrays.items())
    with pytest.raises(UserError, match="expected an empty folder"):
        generator.save(folder)


def test_settings_are_those_of_init(tmp_path: Path) -> None:
    made = synthesise(DEMO[["int64", "category"]], seed=3, epochs=1, density="gaussian", progress=False)
    roles = Roles(nan_is_missing=True)
    import_contents(memory.read({"table": DEMO[["int64", "category"]]}, roles), [], tmp_path / "data", roles, seed=3)
    init(tmp_path / "project", tmp_path / "data", git=False)
    expected = load_params(tmp_path / "project/params.yaml").model_dump()
    assert made.root is not None
    found = load_params(made.root / "params.yaml").model_dump()
    assert found["densities"][0] == made.name == "gaussian"
    assert sorted(found.pop("densities")) == sorted(expected.pop("densities"))
    expected["train"]["epochs"], expected["seed"] = 1, 3
    assert found.pop("data")["folder"] == {"path": "data"}
    del expected["data"]
    assert found == expected
    again = synthesise(DEMO[["int64", "category"]], seed=3, epochs=1, density="gaussian", progress=False)
    assert again.sample(20).data["table"].tobytes() == made.sample(20).data["table"].tobytes()
    assert isinstance(made.sample(3).to_pandas(), pd.DataFrame)


def test_imputation_fills_the_holes_and_touches_nothing_else(generator: Generator) -> None:
    frames = {"labs": LABS[LABS.index < "p030"][::2], "demo": DEMO[:30].assign(note="mine")}
    before = {name: frame.copy() for name, frame in frames.items()}
    filled = generator.impute(frames)
    for name, frame in frames.items():
        pd.testing.assert_frame_equal(frame, before[name])
        own = filled[name].loc[frame.index]
        assert list(map(repr, own.dtypes)) == list(map(repr, frame.dtypes))
        pd.testing.assert_frame_equal(own.where(frame.notna()), frame.where(frame.notna()))
    assert not filled["labs"].isna().any(axis=None)
    assert filled["labs"].index[:15].equals(frames["labs"].index)
    assert set(filled["labs"].index) == set(DEMO.index[:30])
    known = DEMO.columns.drop("death")
    assert not filled["demo"][known].isna().any(axis=None)
    several = generator.impute({"labs": LABS}, draws=3)
    assert len({each["labs"].loc[LABS.index[3], "crp"] for each in several}) > 1


def test_rows_are_scored_by_id(generator: Generator) -> None:
    scores = generator.detect({"labs": LABS.assign(crp=LABS["crp"].where(LABS.index != "p002", 900.0))})
    assert scores.index.tolist() == LABS.index.tolist()
    assert scores["score"].idxmax() == "p002"
    assert scores["flagged"].dtype == bool


def test_the_report_is_written_once(generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its figures, which take most of the time, and which the tests of the report draw.

    On two cores, a second process scores the imputation.
    """
    monkeypatch.setattr("postprior.pipelines.report.writing.figures", lambda *rest: {})
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    page = generator.report(tmp_path / "report.html", progress=False)
    assert (generator.root / "results/imputation/gmm.json").exists()
    assert "gmm" in page.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="found a file, expected none"):
        generator.report(page)


def test_objects_show_themselves(generator: Generator, capsys: pytest.CaptureFixture[str]) -> None:
    samples = generator.sample(30)
    assert "kreatinin" in samples._repr_html_()
    samples.show()
    shown = capsys.readouterr()
    assert shown.out.startswith("30 rows: demo (table 14), labs (table 2)\n")
    assert shown.err == ""
    assert repr(generator) == "Generator of demo (table 14), labs (table 2); labels False, True; density gmm"
    assert "labs.parquet" not in repr(generator)
    assert "rows: train 42" in generator.summary


def test_arrays_with_labels_of_a_density_without() -> None:
    rng = np.random.default_rng(0)
    vectors, images = rng.normal(size=(40, 3)), rng.integers(0, 255, (40, 4, 4)).astype(np.uint8)
    vectors[4] = vectors[5, 1] = np.nan
    label = pd.Series(np.arange(40) % 2, name="ill")
    made = synthesise({"v": vectors, "i": images}, label, epochs=1, density="gaussian", progress=False)
    samples = made.sample(9)
    assert samples.provenance["labels_from"] == "judges"
    frames = samples.to_pandas()
    assert frames["ill"]["ill"].dtype == np.int64
    assert frames["i"]["i"][0].shape == (4, 4)
    assert samples.to_numpy()["i"].dtype == np.uint8
    assert 'src="data:image/webp' in samples._repr_html_()
    filled = made.impute({"v": vectors, "i": images})["v"]
    np.testing.assert_array_equal(np.where(np.isnan(vectors), 0, vectors), np.where(np.isnan(vectors), 0, filled))
    assert not np.isnan(filled).any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"label": "dead"}, "^label dead: no such column found, expected one of"),
        ({"settings": {"vae.foo": 1}}, "^vae.foo: found no such setting"),
        ({"density": "gm"}, "densities: found 'gm', which has no entry under `density`"),
    ],
)
def test_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        synthesise(LABS, **arguments, progress=False)  # type: ignore[arg-type]


def test_a_density_outside_of_a_project_has_no_data(trained: tuple[Path, object], tmp_path: Path) -> None:
    artefacts = trained[0] / "artefacts"
    shutil.copytree(artefacts / "densities/gmm", tmp_path / "gmm")
    made = Generator.load(tmp_path / "gmm", artefacts / "autoencoder")
    assert len(made.sample(3)) == 3
    with pytest.raises(UserError, match="found a density outside of a project"):
        made.detect({"labs": LABS})
    assert Generator.load(artefacts / "densities/gmm").root == trained[0].resolve()
