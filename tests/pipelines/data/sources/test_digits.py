"""The data of the demo: five modalities that share a digit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.sources import SOURCES
from postprior.pipelines.data.sources.compose import Pool, compose, crops
from postprior.pipelines.data.sources.digits import LAYERS, SIZE, Layer, enlarge, make_digits, paint, picture, turn
from postprior.pipelines.errors import UserError

SAMPLES = {"train": 300, "validation": 60, "test": 160}


@pytest.fixture(scope="module")
def splits() -> dict[str, Dataset]:
    return make_digits(seed=3, root=Path(), **SAMPLES)


def test_the_source_is_listed() -> None:
    assert SOURCES["digits"] is make_digits


def test_splits_are_valid_and_labelled(splits: dict[str, Dataset], tmp_path: Path) -> None:
    assert {split: len(dataset) for split, dataset in splits.items()} == SAMPLES
    for split, dataset in splits.items():
        dataset.save(tmp_path / split)
        loaded = Dataset.load(tmp_path / split)
        assert [modality.name for modality in loaded.modalities] == ["m0", "m1", "m2", "m3", "m4"]
        assert {modality.shape for modality in loaded.modalities} == {(3, SIZE, SIZE)}
        assert {modality.likelihood for modality in loaded.modalities} == {"laplace"}
        assert loaded.label_names == tuple("0123456789")
        assert loaded.labels is not None
        assert np.ptp(np.bincount(loaded.labels, minlength=10)) <= 1 + len(dataset) // 30
        assert loaded.ids is not None
        assert loaded.ids[-1] == f"{split}-{len(dataset) - 1}"
        assert loaded.provenance["seed"] == 3


def test_held_out_groups_have_one_label(splits: dict[str, Dataset]) -> None:
    assert splits["train"].groups is None
    for split in ("validation", "test"):
        groups, labels = splits[split].groups, splits[split].labels
        assert groups is not None
        assert labels is not None
        of_group = {group: set(labels[groups == group]) for group in np.unique(groups)}
        assert all(len(found) == 1 for found in of_group.values())
        assert np.ptp(np.bincount(groups)) <= 1
    assert len(np.unique(splits["test"].groups)) == 80  # 450 source images, about six per group


def test_splits_share_no_source_image(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[Pool] = []

    def keep(pool: Pool, *arguments: Any) -> Dataset:
        pools.append(pool)
        return compose(pool, *arguments)

    monkeypatch.setattr("postprior.pipelines.data.sources.compose.compose", keep)
    make_digits(seed=0, root=Path(), **SAMPLES)
    assert [len(pool.labels) for pool in pools] == [1168, 179, 450]
    assert len(np.unique(np.concatenate([pool.images for pool in pools]).reshape(1797, -1), axis=0)) == 1797


def test_the_seed_determines_every_byte(splits: dict[str, Dataset]) -> None:
    again = make_digits(seed=3, root=Path(), **SAMPLES)
    other = make_digits(seed=4, root=Path(), **SAMPLES)
    for split in SAMPLES:
        assert again[split].data["m2"].tobytes() == splits[split].data["m2"].tobytes()
        assert other[split].data["m2"].tobytes() != splits[split].data["m2"].tobytes()


def test_modalities_of_a_sample_show_different_images(splits: dict[str, Dataset]) -> None:
    white = splits["train"].data["m0"].min(1) > 0.95
    yellow = splits["train"].data["m4"][:, :2].min(1) > 0.95
    assert (white != yellow).any((1, 2)).mean() > 0.99


@pytest.mark.parametrize("layer", LAYERS)
def test_backgrounds_are_as_varied_as_photographs(layer: Layer) -> None:
    left, top, right, bottom = layer.box
    photograph = load_sample_image(layer.photo)[top:bottom, left:right] / 255
    windows = crops(picture(layer), 1000, (SIZE, SIZE), np.random.default_rng(0))
    assert windows.shape == (1000, 3, SIZE, SIZE)
    assert windows.std() > 0.65 * photograph.std()
    assert len(np.unique(windows.reshape(1000, -1), axis=0)) > 850


def test_enlarging_keeps_the_digit() -> None:
    images = load_digits().images[:50] / 16
    large = enlarge(images)
    assert large.shape == (50, SIZE, SIZE)
    np.testing.assert_allclose(large.mean((1, 2)), images.mean((1, 2)), atol=0.03)
    expected = Image.fromarray(images[7].astype(np.float32)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(large[7], np.clip(np.asarray(expected), 0, 1), atol=1e-5)


@pytest.mark.parametrize("degrees", [0, 77, 120, 250])
def test_turning_hues_keeps_grey_and_lengths(degrees: float) -> None:
    matrix = turn(degrees)
    np.testing.assert_allclose(matrix @ [1, 1, 1], [1, 1, 1], atol=1e-12)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(turn(360 - degrees) @ matrix, np.eye(3), atol=1e-12)


def test_paint_covers_the_background() -> None:
    background = np.full((1, 3, 2, 2), 0.4, np.float32)
    digit = np.array([[[[0.0, 1.0], [0.5, 0.0]]]], np.float32)
    image = paint(background, digit, ink=(1, 0, 0))
    np.testing.assert_allclose(image[0, 0], [[0.4, 1.0], [0.7, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(image[0, 1], [[0.4, 0.0], [0.2, 0.4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"test": 0}, "digits: test: 0 samples requested"),
        ({"validation_share": 1e-6, "test_share": 0.2531}, "of 1797 images leave one split empty"),
        ({"validation_share": 0.5, "test_share": 0.5}, "shares of the splits"),
        ({"test_share": -0.1}, "shares of the splits"),
    ],
)
def test_impossible_options(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_digits(seed=0, root=Path(), **options)  # type: ignore[arg-type]
