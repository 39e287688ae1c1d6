"""The stage `refine`, and values that the refiner draws: in samples and in imputed rows."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.project import small, write_params

from postprior.pipelines.api.impute import impute
from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.checkpoint import Checkpoint
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import ROWS, Generator
from postprior.pipelines.generation.refinement import LabelledRows, Refinement, build_refiner
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.refine import refine
from postprior.pipelines.storage import folder_hash, load_artefact
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.models import MODELS

Trained = tuple[Path, Params]
SETTINGS = {"epochs": 2, "batch_size": 64, "width": 8, "ode_steps": 1, "patience": 0}


@pytest.fixture(scope="module")
def project(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """A copy of the trained project whose refiner is trained for two epochs on 300 rows."""
    root = tmp_path_factory.mktemp("refined") / "project"
    shutil.copytree(trained[0], root)
    params = write_params(root, small(refine=SETTINGS, generate__values="refined"))
    refine(params, root)
    return root, params


@pytest.fixture(scope="module")
def generator(project: tuple[Path, Params]) -> Generator:
    return Generator.load(project[0] / "artefacts/densities/gmm")


def test_the_held_out_loss_falls_and_the_origins_are_recorded(project: tuple[Path, Params]) -> None:
    artefact = load_artefact(project[0] / "artefacts/refiner", "refiner")
    losses = [epoch["validation_loss"] for epoch in artefact.manifest["history"]]
    assert len(losses) == 2
    assert losses[1] < losses[0] < 2.5  # without training: the variances of the residual and of the noise, 1 each
    assert artefact.manifest["autoencoder"] == folder_hash(project[0] / "artefacts/autoencoder")
    assert artefact.manifest["data"] == folder_hash(project[0] / "artefacts/data/train")
    assert len(list((project[0] / ".postprior/checkpoints").glob("refine-*"))) == 1


def test_a_seed_gives_bytes_that_no_size_changes(generator: Generator) -> None:
    long = generator.sample(ROWS + 3, seed=3, values="refined")
    for n in (1,):
        short = generator.sample(n, seed=3, values="refined")
        assert all(np.array_equal(long.data[name][:n], short.data[name]) for name in long.data)
    assert not np.array_equal(long.data["m0"], generator.sample(ROWS + 3, seed=4, values="refined").data["m0"])


def test_refined_values_vary_about_the_means_within_the_range(generator: Generator) -> None:
    refined, means = (generator.sample(100, seed=0, values=values) for values in ("refined", "mean"))
    assert np.array_equal(refined.labels, means.labels)
    for name in means.data:
        difference = refined.data[name] - means.data[name]
        assert 0.01 < difference.std() < 0.5
        assert refined.data[name].min() >= 0
        assert refined.data[name].max() <= 1
    assert "refiner" not in means.provenance
    assert refined.provenance["refiner"] == generator.refiner[1]


def test_the_stage_writes_what_the_generator_draws(project: tuple[Path, Params], generator: Generator) -> None:
    root, params = project
    generate("gmm", params, root, out=root / "drawn")
    drawn, expected = Dataset.load(root / "drawn"), generator.sample(60, seed=0, values="refined")
    assert all(np.array_equal(drawn.data[name], expected.data[name]) for name in expected.data)
    assert drawn.provenance == expected.provenance
    assert drawn.provenance["values"] == "refined"
    assert drawn.provenance["refiner"] == folder_hash(root / "artefacts/refiner")


def test_imputation_refines_what_is_missing_and_nothing_else(project: tuple[Path, Params]) -> None:
    root, params = project
    data = Dataset.load(root / "artefacts/data/test").select(np.arange(70))
    mask = np.ones((70, 5), bool)
    mask[::2, 1] = mask[::3, 4] = False
    cells = np.random.default_rng(0).random(data.data["m0"].shape) < 0.8
    replace(data, mask=mask, cells={"m0": cells}).save(root / "rows")
    impute("gmm", root / "rows", params, root, root / "filled", draws=2, values="refined")
    draws = [Dataset.load(root / "filled" / str(draw)) for draw in (1, 2)]
    for draw in draws:
        assert np.array_equal(draw.data["m0"][cells], data.data["m0"][cells])
        assert np.array_equal(draw.data["m1"][1::2], data.data["m1"][1::2])
        assert draw.provenance["refiner"] == folder_hash(root / "artefacts/refiner")
    differs = draws[0].data["m1"] != draws[1].data["m1"]
    assert differs[::2].any((1, 2, 3)).all()
    assert (draws[0].data["m0"] != draws[1].data["m0"])[~cells].mean() > 0.5


def test_an_interrupted_run_ends_with_the_same_bytes_and_leaves_no_refiner(
    project: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, params = project
    again = tmp_path / "project"
    shutil.copytree(root, again, ignore=shutil.ignore_patterns("refiner", ".postprior"))
    save = Checkpoint.save

    def interrupted(self: Checkpoint, history: list[dict[str, float]], snapshot: object) -> None:
        save(self, history, snapshot)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        refine(params, again)
    assert not (again / "artefacts/refiner").exists()
    monkeypatch.undo()
    refine(params, again)
    assert folder_hash(again / "artefacts/refiner") == folder_hash(root / "artefacts/refiner")


def test_other_settings_of_draws_train_nothing(
    project: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    shutil.copytree(project[0], root)
    params = write_params(root, small(refine=SETTINGS | {"temperature": 0.5}))
    monkeypatch.setattr(Refinement, "objective", None)
    refine(params, root)
    before, after = (load_artefact(each / "artefacts/refiner", "refiner") for each in (project[0], root))
    assert after.manifest["refiner"]["temperature"] == 0.5
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
    assert after.manifest["history"] == before.manifest["history"]


def test_rows_and_pixels_that_are_missing_train_nothing(project: tuple[Path, Params]) -> None:
    root, _ = project
    model, _ = load_autoencoder(root / "artefacts/autoencoder")
    data = Dataset.load(root / "artefacts/data/train").select(np.arange(40))
    mask = np.random.default_rng(0).random((40, 5)) < 0.6
    mask[:, 0], mask[:5, 0], mask[:5, 1] = True, False, True
    cells = np.random.default_rng(1).random(data.data["m0"].shape) < 0.7
    refiner = build_refiner(model, data, {"width": 8}, 0)
    losses = []
    for fill in (0.0, 1.0):
        values = {
            name: np.where(mask[:, index].reshape(-1, 1, 1, 1), x, np.float32(fill))
            for index, (name, x) in enumerate(data.data.items())
        }
        values["m0"] = np.where(cells, values["m0"], np.float32(fill))
        rows = LabelledRows(replace(data, data=values, mask=mask, cells={"m0": cells}))
        generator = torch.Generator().manual_seed(0)
        losses.append(Refinement(refiner, model).objective(rows.batch(np.arange(40)), generator).per_sample)
    assert torch.equal(*losses)
    assert (losses[0] > 0).all()


def test_off_is_the_default_and_says_how_to_switch_it_on(trained: Trained, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(trained[0], root)
    density = root / "artefacts/densities/gmm"
    for made in (False, True):
        if made:
            refine(trained[1], root)
        with pytest.raises(
            UserError, match=r"has no refiner; set refine: \{\} in params.yaml and run postprior refine"
        ):
            Generator.load(density).sample(3, values="refined")
        Generator.load(density).sample(3)
    write_params(root, small(refine={}))
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("refine: {}", "refine: null"))
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("values: mean", "values: refined"))
    with pytest.raises(UserError, match=r"generate.values: found refined, but refine is null"):
        load_params(root / "params.yaml")


def test_the_refiner_of_another_autoencoder_is_refused(project: tuple[Path, Params], tmp_path: Path) -> None:
    root, _ = project
    other = tmp_path / "project"
    shutil.copytree(root, other)
    manifest = other / "artefacts/refiner/manifest.json"
    own = folder_hash(root / "artefacts/autoencoder")
    manifest.write_text(manifest.read_text().replace(own, "0" * 64))
    with pytest.raises(UserError, match="found the refiner of autoencoder 000000000000, expected that of"):
        Generator.load(other / "artefacts/densities/gmm").sample(3, values="refined")


def test_data_without_images_are_refused_in_one_sentence() -> None:
    modalities = [
        Modality("labs", "vector", (4,), "normal"),
        Modality("notes", "sequence", (9,), "categorical", classes=5),
    ]
    data = Dataset(tuple(modalities), {"labs": np.zeros((3, 4), np.float32), "notes": np.zeros((3, 9), np.float32)})
    with pytest.raises(UserError) as error:
        build_refiner(MODELS["mvtcae"](modalities, latent=2, width=4), data, {}, 0)
    assert str(error.value) == (
        "refine: found modalities of kind sequence (categorical), vector (normal), expected an image or a volume with "
        "likelihood normal or laplace or bernoulli; set refine to null"
    )
