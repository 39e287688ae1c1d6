"""Imputation: the exact conditional distribution, unchanged observed values, and marked imputed values."""

import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import linear_gaussian as linear
from support.equations import agree
from support.project import small, write_params
from typer.testing import CliRunner

from postprior.pipelines.api.impute import impute
from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.commands.app import app
from postprior.pipelines.data.conversion import ArrayConversion
from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.completion import MOST, ROWS, row_blocks
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.generate import generate
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES

Trained = tuple[Path, Params]
TIMES = 3000


@pytest.fixture(scope="module")
def generator(trained: Trained) -> Generator:
    return Generator.load(trained[0] / "artefacts/densities/gmm")


@pytest.fixture(scope="module")
def holes(trained: Trained) -> Dataset:
    """Test rows that lack modalities and pixels of m0; every fifth row is complete."""
    data = Dataset.load(trained[0] / "artefacts/data/test").select(np.arange(100))
    rng = np.random.default_rng(0)
    mask = rng.random((100, 5)) < 0.6
    mask[np.arange(100), rng.integers(5, size=100)] = True
    cells = rng.random(data.data["m0"].shape) < 0.7
    mask[::5], cells[::5] = True, True
    return replace(data, mask=mask, cells={"m0": cells})


def exact() -> tuple[Generator, Dataset]:
    """Return a linear Gaussian model with its own prior as density, and four rows drawn from it."""
    model: Any = linear.exact(MODELS["mvae"](linear.modalities(3), latent=linear.LATENT, likelihood_scale=linear.SCALE))
    batch = linear.sample(model, 4)
    rows = Dataset(model.modalities, {name: x.float().numpy() for name, x in batch.data.items()})
    model = model.float()
    codes = posteriors(model, rows, 1, torch.Generator())
    return Generator(model, DENSITIES["normal"]().fit(codes), {}), rows


def test_a_missing_modality_is_drawn_from_its_conditional_distribution() -> None:
    """x_3 | x_1, x_2 is Gaussian; its moments follow from the joint covariance of all values."""
    generator, rows = exact()
    repeated = rows.select(np.tile(np.arange(4), TIMES))
    mask = np.tile([True, True, False], (len(repeated), 1))
    (drawn,) = generator.impute(replace(repeated, mask=mask), values="draws")
    decoders = [generator.model.decoders[m.name] for m in rows.modalities]
    weight = torch.cat([d.weight for d in decoders]).double()
    bias = torch.cat([d.bias for d in decoders]).double()
    joint = weight @ weight.T + linear.SCALE**2 * torch.eye(len(bias))
    seen, rest = slice(0, 2 * linear.SIZE), slice(2 * linear.SIZE, None)
    gain = joint[rest, seen] @ torch.linalg.inv(joint[seen, seen])
    known = torch.from_numpy(np.concatenate([rows.data["m0"], rows.data["m1"]], 1)).double()
    mean = bias[rest] + (known - bias[seen]) @ gain.T
    covariance = joint[rest, rest] - gain @ joint[seen, rest]
    x = torch.from_numpy(drawn.data["m2"]).double().unflatten(0, (TIMES, 4)).movedim(0, -1)  # (4, SIZE, TIMES)
    agree(x, mean)
    centred = x - mean.unsqueeze(-1)
    agree(centred[:, :, None] * centred[:, None], covariance.expand(4, -1, -1))


def test_labels_are_a_condition(generator: Generator, trained: Trained) -> None:
    """Given one modality, draws conditioned on a label show it more often than unconditioned draws."""
    data = Dataset.load(trained[0] / "artefacts/data/test").select(np.arange(40))
    data = replace(data, mask=np.tile([True, False, False, False, False], (40, 1)))
    asked = np.full(40, 3)
    plain, under = (next(generator.completed(data, 1, 0, "mean", labels))[1]["m1"] for labels in (None, asked))
    assert not np.array_equal(plain, under)


def test_labels_of_rows_are_used_by_name(generator: Generator, trained: Trained) -> None:
    """Rows with a label are imputed given it; rows without one, or with an unknown one, as if there were no labels."""
    data = Dataset.load(trained[0] / "artefacts/data/test").select(np.arange(40))
    assert data.labels is not None
    assert data.label_names is not None
    data = replace(data, mask=np.tile([True, False, False, False, False], (40, 1)))
    known = np.arange(40) < 20
    some = replace(data, labels=np.where(known, data.labels, -1))
    reversed_names = replace(some, labels=np.where(known, 9 - data.labels, -1), label_names=data.label_names[::-1])
    unknown = replace(data, label_names=tuple(f"other {name}" for name in data.label_names))
    without, given, reversed_given, unknown_given = (
        generator.impute(each)[0].data["m1"] for each in (replace(data, labels=None), some, reversed_names, unknown)
    )
    np.testing.assert_array_equal(given, reversed_given)
    np.testing.assert_array_equal(given[~known], without[~known])
    np.testing.assert_array_equal(unknown_given, without)
    assert not np.array_equal(given[known], without[known])


def test_what_training_never_lacked_is_named() -> None:
    """Whole modalities that are not partial, and values that no training row lacked or hid; not what rows have."""
    generator, rows = exact()
    model = generator.model
    model.modalities = tuple(replace(m, partial=m.name == "m1") for m in model.modalities)
    generator = Generator(model, generator.density, {}, None, {"m1": [0, 3]})
    cells = {name: np.ones((4, linear.SIZE), bool) for name in ("m0", "m1", "m2")}
    assert generator.unlearned(replace(rows, cells=cells)) == []
    cells["m0"][2, 1] = cells["m1"][0, 1:] = False
    assert generator.unlearned(replace(rows, cells=cells)) == ["m0", "m1.3"]
    cells["m1"][:] = False
    lacking = replace(rows, cells=cells, mask=np.tile([True, False, True], (4, 1)))
    assert generator.unlearned(lacking) == ["m0"]


def test_observed_values_are_kept_bit_for_bit_and_imputed_ones_are_marked(generator: Generator, holes: Dataset) -> None:
    sets = generator.impute(holes, 3, seed=5)
    lacking = {m.name: holes.missing(m.name) for m in holes.modalities}
    assert holes.mask is not None
    for drawn in sets:
        assert drawn.mask is None
        assert not drawn.cells
        assert drawn.filled is not None
        np.testing.assert_array_equal(drawn.filled[:, 1:], ~holes.mask[:, 1:])
        np.testing.assert_array_equal(drawn.filled_cells["m0"], lacking["m0"])
        assert not drawn.filled[::5].any()
        for name, values in holes.data.items():
            there = ~lacking[name]
            assert np.array_equal(drawn.data[name][there], np.asarray(values)[there])
            assert drawn.data[name].dtype == values.dtype
        for name in ("labels", "groups", "ids"):
            np.testing.assert_array_equal(getattr(drawn, name), getattr(holes, name))
    one, other = (drawn.data["m1"][~holes.mask[:, 1]] for drawn in sets[:2])
    assert not np.array_equal(one, other)
    assert all(0 <= drawn.data[name].min() <= drawn.data[name].max() <= 1 for name in lacking for drawn in sets)
    again = generator.impute(holes, 3, seed=5)
    for ours, theirs in zip(sets, again, strict=True):
        assert all(np.array_equal(ours.data[name], theirs.data[name]) for name in lacking)


def test_complete_rows_come_back_as_they_are(generator: Generator, holes: Dataset) -> None:
    data = holes.select(np.arange(0, 100, 5))
    (drawn,) = generator.impute(data)
    assert all(np.array_equal(drawn.data[name], data.data[name]) for name in data.data)
    assert drawn.filled is not None
    assert not drawn.filled.any()


def test_a_dataset_of_some_modalities_lacks_the_others(generator: Generator, holes: Dataset) -> None:
    whole = holes.select(np.arange(0, 100, 5))
    kept = (whole.modalities[3], whole.modalities[1])
    part = Dataset(kept, {m.name: whole.data[m.name] for m in kept}, labels=whole.labels, label_names=whole.label_names)
    given = conformed(part, generator.modalities)
    assert given.modalities == generator.modalities
    assert given.observed.tolist() == [[False, True, False, True, False]] * len(whole)
    (ours,) = generator.impute(part, seed=1)
    (theirs,) = generator.impute(replace(whole, mask=given.mask, cells={}), seed=1)
    assert all(np.array_equal(ours.data[name], theirs.data[name]) for name in theirs.data)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            Modality("m0", "image", (1, 16, 16), "laplace", (0, 1)),
            r"shape of modality m0: \[1, 16, 16\] found",
        ),
        (
            Modality("scan", "image", (3, 16, 16), "laplace", (0, 1)),
            "modality scan found, expected some of m0, m1",
        ),
    ],
)
def test_modalities_of_other_data_are_refused(generator: Generator, changed: Modality, sentence: str) -> None:
    data = Dataset((changed,), {changed.name: np.zeros((2, *changed.shape), np.float32)})
    with pytest.raises(UserError, match=sentence):
        generator.impute(data)


def test_rows_with_scales_of_their_own_are_refused(generator: Generator, holes: Dataset) -> None:
    pixels = ArrayConversion("m0", "numeric", "HWC", "uint8", (*generator.modalities[0].shape[1:], 3))
    ours, theirs = ({"modalities": {"m0": replace(pixels, scale=scale).describe()}} for scale in (255.0, 254.0))
    pair = Generator(generator.model, generator.density, {}, ours)
    assert pair.impute(replace(holes, conversion=ours))[0].conversion == ours
    with pytest.raises(UserError, match=r"modality m0 has other scales or categories, .* --like"):
        pair.impute(replace(holes, conversion=theirs))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"draws": 0}, "draws: found 0, expected"),
        ({"values": "mode"}, "values: found 'mode', expected one of"),
    ],
)
def test_impossible_requests(generator: Generator, holes: Dataset, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        generator.impute(holes, **options)


def test_the_command_writes_what_python_gives(
    generator: Generator, trained: Trained, holes: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, params = trained
    source = np.arange(100.0)
    replace(holes, source_values={"m0": source}).save(tmp_path / "holes")
    told = impute("gmm", tmp_path / "holes", params, root, tmp_path / "out", 2, "draws", 4)
    assert "impute: no training row lacked m0, so that" in capsys.readouterr().err
    loaded = Dataset.load(tmp_path / "holes")
    held_out = Dataset.load(root / "artefacts/data/validation")
    for number, expected in enumerate(generator.impute(loaded, 2, 4, "draws", held_out), 1):
        found = Dataset.load(tmp_path / f"out/{number}")
        assert all(np.array_equal(found.data[name], expected.data[name]) for name in expected.data)
        np.testing.assert_array_equal(found.filled, expected.filled)
        np.testing.assert_array_equal(found.filled_cells["m0"], expected.filled_cells["m0"])
        np.testing.assert_array_equal(found.ids, loaded.ids)
        np.testing.assert_array_equal(found.source_values["m0"], source)
        assert found.label_names == loaded.label_names
        assert found.provenance == expected.provenance
        assert found.provenance["draw"] == number - 1
    assert "80 rows had missing values" in told[0]
    once = impute("gmm", tmp_path / "holes", params, root, tmp_path / "once")
    assert Dataset.load(tmp_path / "once").filled is not None
    assert str(tmp_path / "once") in once[0]


def test_more_draws_than_files_that_may_be_open(trained: Trained, holes: Dataset, tmp_path: Path) -> None:
    root, params = trained
    holes.select(np.arange(2, 6)).save(tmp_path / "holes")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 30, before[1]))
    try:
        impute("gmm", tmp_path / "holes", params, root, tmp_path / "out", 20, "mean", 4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert sorted(int(folder.name) for folder in (tmp_path / "out").iterdir()) == [*range(1, 21)]
    assert len(Dataset.load(tmp_path / "out/20")) == 4


def test_samples_from_given_rows_have_what_these_have(trained: Trained, holes: Dataset, tmp_path: Path) -> None:
    root, params = trained
    kept = holes.modalities[:2]
    whole = holes.select(np.arange(0, 100, 5))
    source = np.random.default_rng(0).normal(size=(20, 4))  # values of a file that float32 cannot represent
    given = {m.name: whole.data[m.name] for m in kept}
    Dataset(kept, given, source_values={"m0": source}).save(tmp_path / "given")
    given_rows = tmp_path / "given"
    generate("gmm", params, root, SampleRequest(50), tmp_path / "plain", given_rows)
    drawn = Dataset.load(tmp_path / "plain")
    assert len(drawn) == 50
    for m in kept:
        np.testing.assert_array_equal(drawn.data[m.name], np.resize(whole.data[m.name], (50, *m.shape)))
    np.testing.assert_array_equal(drawn.source_values["m0"], np.resize(source, (50, 4)))
    first, again = drawn.data["m4"][0], drawn.data["m4"][len(whole)]
    assert not np.array_equal(first, again)
    assert drawn.provenance["labels_from"] == "judges"
    generate("gmm", params, root, SampleRequest(labels={"3": 8, "5": 4}), tmp_path / "asked", given_rows)
    asked = Dataset.load(tmp_path / "asked")
    assert asked.labels is not None
    assert np.bincount(asked.labels, minlength=10).tolist() == [0, 0, 0, 8, 0, 4, 0, 0, 0, 0]
    assert asked.provenance["labels_from"] == "density"
    with pytest.raises(UserError, match=r"--given: found temperature 0\.5"):
        generate("gmm", params, root, SampleRequest(50, temperature=0.5), tmp_path / "cold", given_rows)
    assert not (tmp_path / "cold").exists()


def test_the_command_line(trained: Trained, holes: Dataset, tmp_path: Path) -> None:
    root, _ = trained
    write_params(tmp_path, small())
    (tmp_path / "artefacts").symlink_to(root / "artefacts")
    holes.save(tmp_path / "holes")
    run = CliRunner().invoke(
        app,
        [
            "impute",
            "gmm",
            str(tmp_path / "holes"),
            str(tmp_path / "out"),
            "--params",
            str(tmp_path / "params.yaml"),
        ],
    )
    assert run.exit_code == 0, run.output
    assert "m1:" in run.output
    wrong = CliRunner().invoke(
        app, ["impute", "gmm", "nowhere", str(tmp_path / "none"), "--params", str(tmp_path / "params.yaml")]
    )
    assert wrong.exit_code == 1
    assert not (tmp_path / "none").exists()


def test_a_block_has_as_many_rows_that_lack_values_as_fit() -> None:
    lacking = np.random.default_rng(0).random(3000) < 0.3
    lacking[1000:1600] = False
    data = Dataset(
        (Modality("v", "vector", (1,), "normal"),),
        {"v": np.zeros((3000, 1), np.float32)},
        cells={"v": ~lacking[:, None]},
    )
    blocks = row_blocks(data)
    assert np.array_equal(np.concatenate([np.arange(3000)[block] for block in blocks]), np.arange(3000))
    sizes = [(lacking[block].sum(), block.stop - block.start) for block in blocks]
    assert max(few for few, _ in sizes) == ROWS
    assert max(rows for _, rows in sizes) == MOST
    assert all(few == ROWS or rows == MOST for few, rows in sizes[:-1])
    whole = replace(data, cells={"v": np.zeros((3000, 1), bool)})
    assert row_blocks(whole) == [slice(start, min(start + ROWS, 3000)) for start in range(0, 3000, ROWS)]
