"""Drawing synthetic samples: reproducible bytes, requested labels, and the matching autoencoder."""

import math
import shutil
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.project import small, write_params

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import load_codes, posteriors, save_codes
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.fitting import FrozenEncoder
from postprior.pipelines.generation.generator import ROWS, Generator, drawn_codes
from postprior.pipelines.generation.request import SampleRequest, apportion
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.fit import trained_on
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.storage import folder_hash, load_artefact, save_artefact
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent.task import PartialEncoder

Trained = tuple[Path, Params]


@pytest.fixture(scope="module")
def generator(trained: Trained) -> Generator:
    return Generator.load(trained[0] / "artefacts/densities/gmm")


def same(ours: Dataset, theirs: Dataset, rows: slice = slice(None)) -> bool:
    data = all(np.array_equal(ours.data[name][rows], theirs.data[name]) for name in theirs.data)
    return data and np.array_equal(ours.labels[rows], theirs.labels)


@pytest.mark.parametrize("values", ["mean", "draws"])
def test_a_seed_gives_bytes_that_no_size_changes(generator: Generator, values: str) -> None:
    long = generator.sample(2 * ROWS + 10, seed=3, values=values)
    assert same(long, generator.sample(2 * ROWS + 10, seed=3, values=values))
    for n in (1, ROWS - 1, ROWS, ROWS + 1):
        assert same(long, generator.sample(n, seed=3, values=values), slice(n))
    assert not same(long, generator.sample(2 * ROWS + 10, seed=4, values=values))
    assert not np.array_equal(long.data["m0"][:10], long.data["m0"][ROWS : ROWS + 10])


def test_requested_labels_are_drawn_in_their_order(generator: Generator) -> None:
    asked = np.random.default_rng(0).integers(10, size=ROWS + 30)
    drawn = generator.sample(len(asked), labels=asked)
    assert np.array_equal(drawn.labels, asked)
    assert same(drawn, generator.sample(20, labels=asked[:20]), slice(20)) or ROWS < 20


def test_counts_by_label_are_met_and_shuffled(generator: Generator) -> None:
    labels = generator.sample(labels={"7": 30, "1": 50}).labels
    assert np.bincount(labels).tolist() == [0, 50, 0, 0, 0, 0, 0, 30]
    assert 0 < np.flatnonzero(labels == 7).mean() - 20 < 40
    assert len(set(labels[:20])) == 2


def test_values_are_the_decoders_means_or_draws_within_the_range(generator: Generator) -> None:
    sets = [generator.sample(200, values=values).data.values() for values in ("mean", "draws")]
    mean, draws = (np.stack(list(arrays)) for arrays in sets)
    assert min(mean.min(), draws.min()) >= 0
    assert max(mean.max(), draws.max()) <= 1
    noise = (draws - mean)[(mean > 0.1) & (mean < 0.9)]  # clipping does not affect medians there
    assert len(noise) > 10_000
    assert abs(np.median(noise)) < 0.002
    assert abs(np.median(abs(noise)) - 0.1 * np.log(2)) < 0.002  # a Laplace distribution of scale 0.1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n": 0}, "samples: found 0, expected a whole number of at least 1; request one sample or more"),
        ({"n": -5}, "samples: found -5"),
        ({"labels": {}}, "samples: found 0"),
        ({"labels": {"x": 3}}, "labels: found 'x', which is not a known label of the codes; known: 0, 1"),
        ({"labels": {"1": -3}}, r"labels: found counts \[-3\], expected whole numbers of at least 0"),
        ({"n": 4, "labels": {"1": 3}}, "labels: found 3 labels for 4 samples, expected one label per sample"),
        ({"n": 2, "labels": [0, 10]}, "labels: found 10, expected labels among 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        ({"n": 2, "values": "median"}, "values: found 'median', expected one of auto, mean, draws"),
        ({"n": 2, "temperature": 0.0}, "temperature: found 0.0, expected a number above 0 and at most 1"),
        ({"n": 2, "temperature": 1.5}, "temperature: found 1.5, expected a number above 0 and at most 1"),
        ({"n": 2, "temperature": math.nan}, "temperature: found NaN, expected a number above 0 and at most 1"),
        ({"n": 2, "seed": -1}, "seed: found -1, expected a whole number from 0 to 4294967295"),
        ({"n": 10**12}, "samples: 1000000000000 rows need at least "),
        ({"n": 10**30}, "samples: 1" + "0" * 30 + " rows need at least "),
        ({"labels": {"3": 10**30}}, "samples: 1" + "0" * 30 + " rows need at least "),
        ({"n": 2, "truncation": 1.0}, "truncation: found 1.0, expected a number of at least 0 and below 1"),
    ],
)
def test_requests_that_cannot_be_met(generator: Generator, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        generator.sample(**arguments)


def test_a_density_without_labels_takes_none(trained: Trained) -> None:
    normal = Generator.load(trained[0] / "artefacts/densities/normal")
    assert normal.sample(3).labels is None
    with pytest.raises(UserError, match="labels: density normal was fitted without labels, expected none; leave"):
        normal.sample(2, labels=[0, 1])


def test_a_density_refuses_another_autoencoder(trained: Trained, tmp_path: Path) -> None:
    artefact = load_artefact(trained[0] / "artefacts/autoencoder", "autoencoder")
    moved = {key: tensor + 1 for key, tensor in artefact.tensors.items()}
    save_artefact(tmp_path / "autoencoder", "autoencoder", dict(artefact.manifest), moved)
    with pytest.raises(
        UserError,
        match=r"gmm: this density was fitted to codes of autoencoder \w{12}, found \w{12} in .* fit it again",
    ):
        Generator.load(trained[0] / "artefacts/densities/gmm", autoencoder=tmp_path / "autoencoder")


def test_a_missing_density_is_reported(trained: Trained) -> None:
    with pytest.raises(UserError, match=r"manifest\.json: no such file"):
        Generator.load(trained[0] / "artefacts/densities/spline")


def test_the_stage_writes_a_dataset_that_is_a_valid_input(trained: Trained, tmp_path: Path) -> None:
    root, params = trained
    for folder, seed in (("one", 1), ("again", 1), ("other", 2)):
        generate("gmm", params, root, SampleRequest(ROWS + 5, seed), out=tmp_path / folder)
    one = Dataset.load(tmp_path / "one")
    assert len(one) == ROWS + 5
    assert one.modalities == Dataset.load(root / "artefacts/data/train").modalities
    assert one.provenance["labels_from"] == "density"
    assert one.provenance["density"] == folder_hash(root / "artefacts/densities/gmm")
    assert one.provenance["autoencoder"] == folder_hash(root / "artefacts/autoencoder")
    assert one.provenance["data"] == folder_hash(root / "artefacts/data/train")
    assert folder_hash(tmp_path / "one") == folder_hash(tmp_path / "again") != folder_hash(tmp_path / "other")
    assert same(Generator.load(root / "artefacts/densities/gmm").sample(ROWS + 5, seed=1), one)


def test_evaluators_label_samples_of_a_density_without_labels(trained: Trained, tmp_path: Path) -> None:
    root, params = trained
    generate("normal", params, root, SampleRequest(40), out=tmp_path / "normal")
    drawn = Dataset.load(tmp_path / "normal")
    assert drawn.provenance["labels_from"] == "judges"
    assert drawn.label_names == Dataset.load(root / "artefacts/data/train").label_names


def test_a_balance_of_classes_is_kept(trained: Trained, tmp_path: Path) -> None:
    root, _ = trained
    params = write_params(tmp_path, small(generate__balance={"0": 1, "3": 2}))
    generate("gmm", params, root, out=tmp_path / "balanced")
    assert np.bincount(Dataset.load(tmp_path / "balanced").labels).tolist() == [20, 0, 0, 40]


def test_colder_and_truncated_draws_are_more_likely_and_recorded(
    generator: Generator, trained: Trained, tmp_path: Path
) -> None:
    asked = {"plain": {}, "cold": {"temperature": 0.5}, "truncated": {"truncation": 0.5}}
    score = {}
    for name, options in asked.items():
        z = drawn_codes(generator.density, SampleRequest(2 * ROWS, **options)).loc[:, 0]
        score[name] = float(generator.density.log_prob(z).mean())
        told = generator.sample(3, **options).provenance
        assert (told["temperature"], told["truncation"]) == (
            options.get("temperature", 1.0),
            options.get("truncation", 0.0),
        )
    assert score["cold"] > score["plain"] + 0.5
    assert score["truncated"] > score["plain"] + 0.2
    root, _ = trained
    params = write_params(tmp_path, small(generate__temperature=0.5, generate__samples=20))
    generate("gmm", params, root, out=tmp_path / "cold")
    warmer = SampleRequest.from_settings(params.generate, temperature=1.0, truncation=0.5)
    generate("gmm", params, root, warmer, out=tmp_path / "truncated")
    cold, truncated = (Dataset.load(tmp_path / name) for name in ("cold", "truncated"))
    assert (cold.provenance["temperature"], cold.provenance["truncation"]) == (0.5, 0.0)
    assert (truncated.provenance["temperature"], truncated.provenance["truncation"]) == (1.0, 0.5)
    assert same(generator.sample(20, temperature=0.5), cold)
    assert same(generator.sample(20, truncation=0.5), truncated)


def test_shares_become_counts_that_sum() -> None:
    for rows in (1, 7, 100):
        counts = apportion({"a": 0.2, "b": 0.5, "c": 0.3}, rows)
        assert sum(counts.values()) == rows
        assert all(abs(counts[k] - rows * s) < 1 for k, s in (("a", 0.2), ("b", 0.5), ("c", 0.3)))


def test_memory_does_not_grow_with_the_number_of_rows(trained: Trained, tmp_path: Path) -> None:
    root, params = trained

    def peak(samples: int) -> int:
        tracemalloc.start()
        generate("gmm", params, root, SampleRequest(samples), out=tmp_path / "large")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(ROWS), peak(8 * ROWS)
    assert many - few < 8 * ROWS * 5 * 3 * 16 * 16 * 4 / 4  # a quarter of what the rows alone would hold


@pytest.mark.parametrize("name", MODELS)
def test_codes_are_the_posteriors_and_survive_the_disk(name: str, trained: Trained, tmp_path: Path) -> None:
    data = Dataset.load(trained[0] / "artefacts/data/validation")
    model = MODELS[name](data.modalities, latent=3, width=2).eval()
    size = sum(block.size for block in model.layout)
    codes = posteriors(model, data, 8, torch.Generator().manual_seed(0))
    with torch.no_grad():
        q = model.encode(data.batch(slice(None)), torch.Generator())
    assert codes.loc.shape == (len(data), min(8, q.weights.shape[1]), size)
    if q.weights.shape[1] <= 8:
        torch.testing.assert_close(codes.mean, q.mean)
    save_codes(tmp_path / "codes", codes, {"autoencoder": "x", "data": "y"})
    again = load_codes(tmp_path / "codes")
    assert again.family == codes.family
    assert again.layout == model.layout
    assert again.label_names == data.label_names
    assert again.ids == [str(one) for one in data.ids]
    assert bool(again.whole.all())
    for field in ("loc", "scale", "weights", "observed", "labels", "whole"):
        assert torch.equal(getattr(again, field), getattr(codes, field))
    z = torch.zeros(1, size)
    torch.testing.assert_close(again.prior.log_prob(z), model.prior().log_prob(z))


def test_the_frozen_encoder_gives_inputs_and_gradients_to_them_alone(trained: Trained) -> None:
    root, _ = trained
    model, artefact = load_autoencoder(root / "artefacts/autoencoder")
    encoder = FrozenEncoder(partial(trained_on, Project(root), artefact.hash))
    data = Dataset.load(root / "artefacts/data/train")
    rows = torch.tensor([5, 0, 7])
    inputs = encoder.inputs(rows)
    assert all(np.array_equal(inputs[m.name], data.data[m.name][rows.numpy()]) for m in data.modalities)
    some = PartialEncoder(encoder, torch.tensor([9, 5, 2, 0, 7])).inputs(torch.tensor([1, 3, 4]))
    assert all(torch.equal(some[name], values) for name, values in inputs.items())
    torch.testing.assert_close(encoder(inputs).mean, model.encode(data.batch(rows.numpy()), torch.Generator()).mean)
    inputs["m0"].requires_grad_()
    encoder(inputs).mean.sum().backward()
    assert inputs["m0"].grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in encoder.trained[0].parameters())


def test_pseudo_inputs_start_from_observed_values(trained: Trained) -> None:
    root, _ = trained
    data = Dataset.load(root / "artefacts/data/train").select(np.arange(6))
    data.data["m1"][[1, 4]] = 0.25  # fill values
    holes = np.ones((6, 5), bool)
    holes[[1, 4], 1] = False
    masked = Dataset(data.modalities, data.data, mask=holes)
    model, _ = load_autoencoder(root / "artefacts/autoencoder")
    inputs = FrozenEncoder(lambda: (model, masked)).inputs(torch.arange(6))
    mean = torch.from_numpy(data.data["m1"][[0, 2, 3, 5]]).mean(0)
    torch.testing.assert_close(inputs["m1"][1], mean)
    torch.testing.assert_close(inputs["m1"][0], torch.from_numpy(data.data["m1"][0]))


def test_codes_of_another_autoencoder_are_refused(trained: Trained) -> None:
    with pytest.raises(UserError, match=r"codes of autoencoder other, expected .* run postprior encode"):
        trained_on(Project(trained[0]), "other")


Edit = Callable[[Path], None]


def cut(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def age(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 0'))


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (cut, r"tensors.safetensors: found \d+ bytes, expected \d+"),
        (age, "found format 0, expected 1"),
    ],
)
def test_damaged_artefacts_are_refused(trained: Trained, tmp_path: Path, edit: Edit, sentence: str) -> None:
    shutil.copytree(trained[0] / "artefacts", tmp_path / "artefacts")
    edit(tmp_path / "artefacts/densities/gmm")
    with pytest.raises(UserError, match=sentence):
        Generator.load(tmp_path / "artefacts/densities/gmm")
