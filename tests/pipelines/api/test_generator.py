"""A generator on objects in memory: reconstruction, translation, and the comparison of densities."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from postprior import SOURCES, Dataset, Generator, synthesise
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import read_json


@pytest.fixture(scope="module")
def generator(trained: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> Generator:
    root = shutil.copytree(trained[0], tmp_path_factory.mktemp("generator") / "project")
    return Generator.load(root / "artefacts/densities/gmm")


@pytest.fixture(scope="module")
def rows(trained: tuple[Path, Params]) -> Dataset:
    return Dataset.load(trained[0] / "artefacts/data/test").select(np.arange(20))


def test_reconstructions_are_nearer_to_their_rows_than_to_others(generator: Generator, rows: Dataset) -> None:
    rebuilt = generator.reconstruct(rows)
    assert rebuilt.labels is not None
    assert (rebuilt.labels == rows.labels).all()

    def error(order: np.ndarray) -> float:
        return sum(float(((rows.data[name] - x[order]) ** 2).mean()) for name, x in rebuilt.data.items())

    assert error(np.arange(20)) < error(np.roll(np.arange(20), 1))
    alone = replace(rows, mask=np.arange(5) == np.zeros((20, 1)))
    assert generator.reconstruct(alone).observed.all()


def test_what_is_not_given_does_not_matter(generator: Generator, rows: Dataset) -> None:
    (first,) = generator.impute(rows, given=["m1"])
    blank = {name: x if name == "m1" else np.zeros_like(x) for name, x in rows.data.items()}
    (second,) = generator.impute(replace(rows, data=blank, folder=None), given=["m1"])
    assert first.data["m1"].tobytes() == np.asarray(rows.data["m1"]).tobytes()
    assert all(first.data[name].tobytes() == second.data[name].tobytes() for name in first.data)
    assert first.filled is not None
    assert (first.filled == (np.arange(5) != 1)).all()
    with pytest.raises(UserError, match="given: found m7, expected some of m0, m1, m2, m3, m4"):
        generator.impute(rows, given=["m7"])


def test_densities_are_fitted_to_the_same_codes_and_compared(generator: Generator) -> None:
    gaussian = generator.with_density("gaussian")
    assert gaussian.model.state_dict().keys() == generator.model.state_dict().keys()
    assert (gaussian.root, gaussian.name, gaussian.density.name) == (generator.root, "gaussian", "gaussian")
    assert gaussian.provenance["autoencoder"] == generator.provenance["autoencoder"]
    one = generator.with_density("gmm", components=1)
    assert one.provenance["density"] != generator.provenance["density"]
    root = generator.root
    assert root is not None
    params = load_params(root / "params.yaml")
    assert "gaussian" in params.densities
    assert params.density["gmm"]["components"] == 1
    scores = one.scores(progress=False)
    assert {"real", "reconstruction", "normal", "gmm", "gaussian"} <= set(scores.index)
    for name in ("gmm", "normal"):
        written = read_json(root / f"results/metrics/{name}.json")["joint_coherence"]
        assert scores.loc[name, "joint_coherence"] == written["value"]
        assert scores.loc[name, "joint_coherence_low"] == written["low"]


def test_a_density_that_cannot_be_fitted_leaves_the_settings(generator: Generator) -> None:
    assert generator.root is not None
    before = (generator.root / "params.yaml").read_bytes()
    for options, message in (({"componets": 1}, "density.gmm.componets"), ({"components": -1}, "components")):
        with pytest.raises(UserError, match=message):
            generator.with_density("gmm", **options)
    with pytest.raises(UserError, match="gauss"):
        generator.with_density("gauss")
    assert (generator.root / "params.yaml").read_bytes() == before


def test_datasets_of_a_source_are_data(tmp_path: Path) -> None:
    splits = SOURCES["digits"](seed=0, root=tmp_path, train=40, validation=10, test=20)
    small = {"density.gmm.components": [1], "density.gmm.covariance": "diagonal"}
    made = synthesise(splits, model="mvtcae", density="gmm", epochs=1, settings=small, progress=False)
    assert made.label_names == splits["train"].label_names
    assert [m.name for m in made.modalities] == [m.name for m in splits["train"].modalities]
    assert made.root is not None
    kept = Dataset.load(made.root / "artefacts/data/test")
    assert all(kept.arrays[name].tobytes() == array.tobytes() for name, array in splits["test"].arrays.items())
    with pytest.raises(UserError, match="found datasets train, test, expected train, validation, test"):
        synthesise({split: rows for split, rows in splits.items() if split != "validation"})
    with pytest.raises(UserError, match="found datasets with label, ids or roles"):
        synthesise(splits, "digit")
