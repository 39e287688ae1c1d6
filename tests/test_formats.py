"""Artefacts that an earlier version wrote: they load, say what they said then, and are worked on further."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as tables
import pytest
import torch
from support import formats

from postprior.pipelines.api.impute import impute
from postprior.pipelines.api.track import track
from postprior.pipelines.api.upgrade import Upgrade
from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.baselines import Baselines
from postprior.pipelines.artefacts.checkpoint import Checkpoint
from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.density import load_density
from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.exchange import read_codes
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.rows import import_rows
from postprior.pipelines.data.sources import check_source
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.settings.checks import check_density, check_model, load_params
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.compare import compare
from postprior.pipelines.stages.evaluate import evaluate
from postprior.pipelines.stages.evaluate_imputation import evaluate_imputation
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.train import train
from postprior.pipelines.stages.utility import utility
from postprior.pipelines.storage import FORMAT, read_json, write_json
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES

HOMES = sorted(path.parent for path in formats.FOLDER.glob("*/expected.json"))
EXPECTED = {home: read_json(home / "expected.json") for home in HOMES}
EVERY = pytest.mark.parametrize("home", HOMES, ids=lambda home: home.name)


def measured(group: str) -> pytest.MarkDecorator:
    """A test of everything that was measured in a group, in every format."""
    cases = [(home, name) for home in HOMES for name in EXPECTED[home][group]]
    return pytest.mark.parametrize(("home", "name"), cases, ids=[f"{home.name}-{name}" for home, name in cases])


def agree(found: Any, expected: Any, place: str = "") -> None:
    """The same numbers but for the last digits, which differ between families of processors; all else is equal."""
    if isinstance(expected, dict):
        assert found.keys() >= expected.keys(), place
        for key, value in expected.items():
            agree(found[key], value, f"{place}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for row, (one, other) in enumerate(zip(found, expected, strict=True)):
            agree(one, other, f"{place}[{row}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), place
    elif expected is None:  # where results have since said why there is no number, there is none still
        assert found is None or found["value"] is None, place
    else:
        assert found == expected, place


def upgraded(home: Path, folder: Path) -> tuple[Path, Params]:
    """A copy of the project of a format under the current names: root and settings."""
    root = Path(shutil.copytree(home / "project", folder / "project"))
    if not (root / "dvc.yaml").exists():
        (root / "dvc.yaml").write_text("stages: {}\n")
    Upgrade.of(root).write()
    return root, load_params(root / "params.yaml")


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Params]:
    """A copy of the project of a format that can be worked on: root and settings."""
    return upgraded(request.getfixturevalue("home"), tmp_path)


# ---- what is loaded ----


@measured("datasets")
def test_datasets(home: Path, name: str) -> None:
    dataset = Dataset.load(home / name)
    agree(formats.of_dataset(dataset), EXPECTED[home]["datasets"][name])


@measured("autoencoders")
def test_autoencoders(home: Path, name: str) -> None:
    data = Dataset.load(home / "project/artefacts/data/test")
    model, artefact = load_autoencoder(formats.autoencoders(home)[name])
    found = formats.of_autoencoder(model, data)
    agree(found, EXPECTED[home]["autoencoders"][name])
    assert artefact.manifest["data"] == Dataset.load(home / "project/artefacts/data/train").hash
    tensors, description = model.state()
    again = MODELS[name].from_state(tensors, json.loads(json.dumps(description)))
    assert formats.of_autoencoder(again, data) == found


@measured("codes")
def test_codes(home: Path, name: str) -> None:
    codes = read_codes(home / name) if name.endswith(".npz") else load_codes(home / name)
    agree(formats.of_codes(codes), EXPECTED[home]["codes"][name])
    assert 0 < int(codes.complete.sum()) < len(codes)  # rows that lack a modality have no code of its own


@EVERY
def test_codes_in_a_file_are_those_of_the_folder(home: Path) -> None:
    alone, folder = read_codes(home / "own/codes.npz"), load_codes(home / "project/artefacts/codes/test")
    torch.testing.assert_close(alone.mean, folder.mean, equal_nan=True)
    assert alone.ids == folder.ids


@measured("densities")
def test_densities(home: Path, name: str) -> None:
    codes = load_codes(home / "project/artefacts/codes/test")
    density = load_density(home / name)
    found = formats.of_density(density, codes)
    agree(found, EXPECTED[home]["densities"][name])
    tensors, meta = density.state()
    again = DENSITIES[density.name].from_state(tensors, json.loads(json.dumps(meta)))
    assert formats.of_density(again, codes) == found


@measured("readers")
def test_evaluators(home: Path, name: str) -> None:
    data = Dataset.load(home / "project/artefacts/data/test")
    agree(formats.of_reader(load_evaluators(home / name), data), EXPECTED[home]["readers"][name])


@measured("references")
def test_references(home: Path, name: str) -> None:
    data = Dataset.load(home / "project/artefacts/data/test")
    (evaluators,) = (place for place in EXPECTED[home]["readers"] if place.startswith("project"))
    outputs = load_evaluators(home / evaluators).outputs(data)
    agree(formats.of_standard(Baselines.load(home / name), outputs), EXPECTED[home]["references"][name])


@EVERY
def test_settings(home: Path, tmp_path: Path) -> None:
    """An upgrade adds what is new: an older params.yaml says all else that is needed."""
    _, params = upgraded(home, tmp_path)
    check_source(params)
    for name in params.density:
        check_density(params, name)
    for name in params.vae.options:
        check_model(params, name)


# ---- what is worked on further ----


@EVERY
def test_datasets_are_drawn_and_completed_as_they_were(home: Path, project: tuple[Path, Params]) -> None:
    """In the places of the old ones, which are known to be the product's."""
    root, params = project
    generate("gmm", params, root)
    impute("gmm", root / "artefacts/data/test", params, root, root / "artefacts/imputed")
    unlabelled = replace(Dataset.load(root / "artefacts/data/test"), labels=None, label_names=None)
    (imputed,) = Generator.load(root / "artefacts/densities/gmm").impute(unlabelled)  # labels were not used then
    for name in ("artefacts/synthetic/gmm", "artefacts/imputed"):
        old, new = Dataset.load(home / "project" / name), Dataset.load(root / name)
        agree(new.provenance, old.provenance)  # with the hashes of all that it came from
        entries = (new.conversion or {})["modalities"]
        for m in old.modalities:
            values = (new if old.filled is None else imputed).data[m.name]
            rounding = 0.5 / entries[m.name]["scale"] if m.kind == "image" else 0  # to integers, which is new
            np.testing.assert_allclose(values, old.data[m.name], rtol=1e-4, atol=1e-4 + rounding)
        np.testing.assert_array_equal(new.labels, old.labels)
        if old.filled is not None:
            np.testing.assert_array_equal(new.filled, old.filled)


@EVERY
@pytest.mark.parametrize("split", formats.SPLITS)
def test_a_dataset_goes_back_into_its_files(home: Path, split: str, tmp_path: Path) -> None:
    folder = home / "project/artefacts/data" / split
    export(folder, tmp_path / "out")
    options = tables.ConvertOptions(strings_can_be_null=True)
    old, new = (
        tables.read_csv(path / "clinic.csv", convert_options=options).to_pylist()
        for path in (home / "sources", tmp_path / "out")
    )
    old = [row for row in old if row.pop("split") == split]
    assert new == old
    ids = np.load(home / "sources/arrays.npz")["ids"]
    rows = np.isin(ids, [row["id"] for row in old])
    dataset = Dataset.load(folder)
    with np.load(home / "sources/arrays.npz") as source, np.load(tmp_path / "out/arrays.npz") as written:
        np.testing.assert_array_equal(written["ids"], ids[rows])
        np.testing.assert_array_equal(written["mask"], source["mask"][rows])
        for name, there in zip(("scan", "genes", "words"), source["mask"][rows].T, strict=True):
            assert written[name].dtype == source[name].dtype
            np.testing.assert_array_equal(written[name][there], source[name][rows][there])
            column = [m.name for m in dataset.modalities].index(name)
            np.testing.assert_array_equal(dataset.observed[:, column], there)


@EVERY
def test_new_rows_are_imported_like_old_ones(home: Path, tmp_path: Path) -> None:
    sources = [home / "sources" / name for name in ("clinic.csv", "arrays.npz")]
    old = Dataset.load(home / "project/artefacts/data/train")
    import_rows(sources, tmp_path / "rows", Roles(), home / "project/artefacts/data/train")
    new = Dataset.load(tmp_path / "rows").select(np.arange(len(old)))  # the sources begin with them
    assert formats.of_dataset(new) == formats.of_dataset(old)


COMPLETE = ("genes", "scan", "words")
"""Modalities of the fixture without missing cells: complete samples have since been scored without the cells that the
rows of the reference set lack."""
STAGES: dict[Callable[..., None], tuple[str, tuple[str, ...]]] = {
    evaluate: ("metrics", ("joint_coherence", *(f"modalities.{name}.frechet_distance" for name in COMPLETE))),
    utility: ("utility", ("ratio_to_real", "train_real_test_synthetic")),
    evaluate_imputation: ("imputation", ("modalities.rows", "modalities.label_agreement", "cells.rows")),
}
"""Stages that score with the evaluators, baselines, classifiers of real data and imputers of the fixture, and their
scores; draws of imputations have since been calibrated and given the labels."""


@EVERY
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_a_stage_finds_the_scores_that_it_found(
    home: Path, stage: Callable[..., None], project: tuple[Path, Params]
) -> None:
    root, params = project
    folder, scores = STAGES[stage]
    path = root / "results" / folder / "gmm.json"
    old = read_json(path)
    path.unlink()
    stage("gmm", params, root)
    found = read_json(path)
    for key in scores:
        agree(*(reduce(lambda tree, name: tree[name], key.split("."), tree) for tree in (found, old)), key)


@EVERY
def test_results_are_compared(home: Path, project: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postprior.pipelines.report.writing.figures", lambda *_: {})  # no figures, which take long
    root, params = project
    old = tables.read_csv(root / "results/comparison.csv").to_pylist()
    compare(params, root)
    agree(tables.read_csv(root / "results/comparison.csv").to_pylist(), old)
    assert {path.name for path in (root / "results/datasheets").iterdir()} == {"gmm.md"}


@pytest.mark.slow
@EVERY
def test_results_are_drawn_and_tracked(
    home: Path, project: tuple[Path, Params], capsys: pytest.CaptureFixture[str]
) -> None:
    root, params = project
    compare(params, root)
    assert any((root / "results/plots").glob("*.png"))
    track(params, root)
    assert "MLflow" not in capsys.readouterr().err


@EVERY
def test_a_run_resumes(home: Path, project: tuple[Path, Params], capsys: pytest.CaptureFixture[str]) -> None:
    """From the first epoch of the second of two phases; the end is that of the run that was not interrupted."""
    root, params = project
    (saved,) = home.glob("checkpoints/*.safetensors")
    model = saved.stem
    params = params.model_copy(update={"vae": params.vae.model_copy(update={"model": model})})
    data = [Dataset.load(root / "artefacts/data" / split) for split in ("train", "validation")]
    checkpoint = Checkpoint.of(
        Project(root).checkpoints, params, *data
    )  # another name than of the time: code is part of it
    checkpoint.path.parent.mkdir(parents=True)
    shutil.copy(saved, checkpoint.path)
    train(params, root)
    told = capsys.readouterr().err
    assert f"train {model}: 4/4" in told
    assert f"train {model}: 2/4" not in told
    old, new = (
        tables.read_csv(path).to_pylist() for path in (saved.with_suffix(".csv"), root / "results/training.csv")
    )
    assert new[:-1] == old[:-1]  # they come from the checkpoint
    agree(new, old)
    tensors, expected = (
        load_autoencoder(path)[0].state()[0]
        for path in (root / "artefacts/autoencoder", formats.autoencoders(home)[model])
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-3, atol=1e-4)


# ---- what is refused ----

LOADERS: dict[str, Callable[[Path], Any]] = {
    "project/artefacts/autoencoder": load_autoencoder,
    "project/artefacts/codes/train": load_codes,
    "project/artefacts/data/train": Dataset.load,
    "project/artefacts/densities/gmm": load_density,
    "project/artefacts/judges": load_evaluators,
    "project/artefacts/reference": Baselines.load,
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_later_format_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(HOMES[-1] / name, tmp_path / "later"))
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"format": FORMAT + 1}, sort_keys=False)
    with pytest.raises(UserError, match=f"found format {FORMAT + 1}, expected {FORMAT}; update postprior") as error:
        LOADERS[name](folder)
    assert "\n" not in str(error.value)


CHANGED: dict[str, tuple[str, Any]] = {
    "project/artefacts/autoencoder": ("options", {"depth": 3}),
    "project/artefacts/codes/train": ("layout", [{"name": "z"}]),
    "project/artefacts/densities/gmm": ("learned", {}),
    "project/artefacts/judges": ("space", {}),
    "project/artefacts/reference": ("critic", {}),
}
"""Entries of manifests as a version that forgot to raise the number might write them."""


@pytest.mark.parametrize("name", CHANGED)
def test_what_cannot_be_rebuilt_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(HOMES[-1] / name, tmp_path / "changed"))
    key, value = CHANGED[name]
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {key: value})
    with pytest.raises(UserError, match=r"changed: this was written by another version of postprior \(") as error:
        LOADERS[name](folder)
    assert "\n" not in str(error.value)
