"""Everything after training for an autoencoder that is trained already, in memory and in a project."""

from __future__ import annotations

import copy
import gc
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support import own_autoencoder
from support.own_autoencoder import SIZES, Linear, Locations, rows, trained

from postprior import Generator, adapt
from postprior.pipelines.artefacts.adapted import WEIGHTS
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.stages.code import code
from postprior.pipelines.stages.train import train
from postprior.pipelines.storage import load_artefact, write_json

BUILD = {"build": "support.own_autoencoder:Linear", "options": {"noise": 0.3}}
ONE = {"density.gmm.components": [1], "density.gmm.covariance": ["full"], "density.gmm.averaged": 1}  # per label
FAST: dict[str, Any] = {"density": "gmm", "settings": ONE, "progress": False}


@pytest.fixture(scope="module")
def data() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return rows()


@pytest.fixture(scope="module")
def generator(data: tuple[dict[str, np.ndarray], np.ndarray]) -> Generator:
    return adapt(trained(), data[0], label=data[1], **BUILD, **FAST)


@pytest.fixture(scope="module")
def saved(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generator.save(tmp_path_factory.mktemp("adapted") / "project")


def test_samples_have_the_clusters_of_the_rows_which_the_prior_does_not(
    generator: Generator, data: tuple[dict[str, np.ndarray], np.ndarray]
) -> None:
    """By label, the means of samples are those of the rows, in the units of the rows."""
    samples = generator.sample(2000, values="draws")
    drawn, labels = samples.to_numpy(), samples.labels
    assert labels is not None
    for label in range(2):
        for name in SIZES:
            expected, found = data[0][name][data[1] == label], drawn[name][labels == label]
            np.testing.assert_allclose(found.mean(0), expected.mean(0), atol=0.12)
            assert np.abs(found.mean(0) - 5).max() > 1  # the mean under the prior is 5


def test_holes_are_filled_with_the_conditional_means_of_the_model(
    generator: Generator, data: tuple[dict[str, np.ndarray], np.ndarray]
) -> None:
    holes = {name: values.copy() for name, values in data[0].items()}
    holes["a"][:40] = np.nan
    filled = generator.impute(holes)
    assert np.array_equal(filled["b"], data[0]["b"])
    assert np.array_equal(filled["a"][40:], data[0]["a"][40:])
    error = np.sqrt(np.mean((filled["a"][:40] - data[0]["a"][:40]) ** 2))
    assert error < 0.75 * np.sqrt(np.mean((data[0]["a"].mean(0) - data[0]["a"][:40]) ** 2))


def test_rows_of_which_a_modality_is_swapped_are_unusual(
    generator: Generator, data: tuple[dict[str, np.ndarray], np.ndarray]
) -> None:
    swapped = {"a": data[0]["a"], "b": 10 - data[0]["b"]}  # the code changes its sign in one modality only
    assert generator.detect(swapped)["score"].median() > generator.detect(data[0])["score"].quantile(0.95)


def test_a_saved_folder_gives_the_same_bytes_and_holds_no_pickle(generator: Generator, saved: Path) -> None:
    again = Generator.load(saved).sample(30, seed=4)
    for name, values in generator.sample(30, seed=4).data.items():
        assert np.array_equal(again.data[name], values)
    suffixes = {path.suffix for path in saved.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".pt", ".pth", ".bin", ".joblib"}
    artefact = load_artefact(Project(saved).artefacts.autoencoder, "autoencoder")
    assert artefact.manifest["adapted"]["origin"] == {"build": BUILD["build"], "options": BUILD["options"]}


def test_train_publishes_the_same_autoencoder_from_the_weights(saved: Path, tmp_path: Path) -> None:
    root = shutil.copytree(saved, tmp_path / "project")
    params, folder = load_params(root / "params.yaml"), Project(root).artefacts.autoencoder
    before = load_artefact(folder, "autoencoder")
    shutil.rmtree(folder)
    train(params, root)
    assert load_artefact(folder, "autoencoder").hash == before.hash
    (root / WEIGHTS).write_bytes((root / WEIGHTS).read_bytes()[:50])
    with pytest.raises(UserError, match="not a safetensors file"):
        train(params, root)


def test_the_hash_of_the_code_includes_the_weights_and_the_users_module(saved: Path, tmp_path: Path) -> None:
    root = shutil.copytree(saved, tmp_path / "project")
    params, place = load_params(root / "params.yaml"), Project(root).artefacts.code / "train"
    code(params, root)
    before = place.read_text()
    (root / WEIGHTS).write_bytes(b"other")
    code(params, root)
    assert place.read_text() != before


def test_without_its_package_a_folder_says_so_in_a_sentence(saved: Path, tmp_path: Path) -> None:
    root = shutil.copytree(saved, tmp_path / "project")
    manifest = Project(root).artefacts.autoencoder / "manifest.json"
    content = load_artefact(manifest.parent, "autoencoder").manifest
    content["adapted"]["origin"]["build"] = "absent_package.models:build"
    write_json(manifest, content)
    with pytest.raises(UserError, match="No module named 'absent_package'; install its package"):
        Generator.load(root)


def test_an_object_without_an_import_path_lives_as_long_as_its_generator(
    data: tuple[dict[str, np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    model = trained()
    before = copy.deepcopy(model.state_dict())
    generator = adapt(model, {name: torch.from_numpy(x) for name, x in data[0].items()}, **FAST)
    first = generator.sample(5)
    model.offset.data += 100  # the generator has a copy
    assert np.array_equal(generator.sample(5).data["a"], first.data["a"])
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items() if name != "offset")
    root = generator.root
    assert root is not None
    assert np.array_equal(Generator.load(root).sample(5).data["a"], first.data["a"])
    with pytest.raises(UserError, match="expected an import path to build it again"):
        generator.save(tmp_path / "project")
    home = generator.home  # keeps the folder
    del generator
    gc.collect()
    with pytest.raises(UserError, match="an object of another process"):
        Generator.load(root)
    assert home is not None


def test_rows_that_are_held_out_are_validation_and_test_and_masks_are_missing_modalities(
    data: tuple[dict[str, np.ndarray], np.ndarray],
) -> None:
    has = np.arange(200) % 4 > 0
    given = SimpleNamespace(data=data[0], labels=data[1], masks={"a": has, "b": np.ones(200, bool)})
    others, labels = rows(90, seed=2)
    generator = adapt(Locations(0.3, seed=7), given, held_out=(others, labels), **FAST)
    assert generator.root is not None
    splits = {name: Project(generator.root).dataset(name) for name in ("train", "validation", "test")}
    assert {name: len(split) for name, split in splits.items()} == {"train": 200, "validation": 30, "test": 60}
    order = np.argsort(np.asarray(splits["train"].ids).astype(int))
    assert np.array_equal(splits["train"].observed[order, 0], has)
    assert generator.model.scales.keys() == SIZES.keys()  # type: ignore[union-attr]


def test_no_row_needs_all_modalities_and_scales_are_those_of_rows_that_have_the_modality() -> None:
    """The first 600 rows have one modality and the others the other one."""
    data, _ = rows(700)
    absent = np.arange(700) < 600
    data["a"][absent], data["b"][~absent] = np.nan, np.nan
    model: Any = adapt(Locations(0.3, seed=7), data, **FAST).model
    assert all(model.scales[name] < 0.5 for name in SIZES)  # 1 if it was not fitted; the rows have variance 1


def test_arguments_that_do_not_fit_are_told_in_a_sentence(data: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    named = trained()
    named.modalities = ("a", "c")  # type: ignore[assignment]
    with pytest.raises(UserError, match="found modalities a, c, expected those of the data, a, b"):
        adapt(named, data[0], **FAST)
    with pytest.raises(UserError, match="returned Locations, expected Linear"):
        adapt(trained(), data[0], build="support.own_autoencoder:Locations", **FAST)
    with pytest.raises(UserError, match=r"own_autoencoder:SIZES|raised TypeError|cannot be imported"):
        adapt(trained(), data[0], build="support.own_autoencoder:absent", **FAST)
    with pytest.raises(UserError, match="which no other process can import, expected one of a module"):
        adapt(trained(), data[0], build="__main__:build", **FAST)
    with pytest.raises(UserError, match="labels of one part only"):
        adapt(trained(), data[0], label=data[1], held_out=data[0], **FAST)
    assert own_autoencoder.Linear is Linear


@pytest.mark.slow
def test_all_scores_and_the_report(generator: Generator, tmp_path: Path) -> None:
    page = generator.report(tmp_path / "report.html", progress=False)
    assert "trained elsewhere, from support.own_autoencoder:Linear" in page.read_text()
