"""Classical augmentation: which values change and by how much."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.utility.augmentation import (
    ANGLE,
    BRIGHTNESS,
    JITTER,
    NOISE,
    ZOOM,
    Classical,
    shaded,
    warped,
)
from postprior.stage1_vae.modalities import Column, Modality

TABLE = (
    Column("size", "normal"),
    Column("kind", "categorical", 3),
    Column("visits", "negative_binomial"),
    Column("smokes", "bernoulli"),
)
MODALITIES = {
    "picture": Modality("picture", "image", (1, 8, 8), "laplace", (0, 1)),
    "scan": Modality("scan", "volume", (1, 4, 4, 4), "normal"),
    "regions": Modality("regions", "image", (1, 8, 8), "categorical", classes=4),
    "vector": Modality("vector", "vector", (3,), "normal"),
    "genes": Modality("genes", "vector", (3,), "negative_binomial"),
    "words": Modality("words", "sequence", (5,), "categorical", classes=7),
    "table": Modality("table", "table", (4,), "columns", columns=TABLE),
}


def values_of(modality: Modality, rows: int = 400) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (rows, *modality.shape)
    if modality.columns:
        columns = (
            rng.normal(5, 3, rows),
            rng.integers(3, size=rows),
            rng.poisson(4, rows),
            rng.integers(2, size=rows),
        )
        return np.stack(columns, 1).astype(np.float32)
    if modality.classes:
        return rng.integers(modality.classes, size=shape).astype(np.float32)
    if modality.likelihood == "negative_binomial":
        return rng.poisson(4, shape).astype(np.float32)
    return rng.random(shape).astype(np.float32) * np.arange(1, 1 + shape[-1], dtype=np.float32) / shape[-1]


def changed(name: str, seed: int = 0, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    modality, values = MODALITIES[name], values_of(MODALITIES[name])
    rows = Dataset((modality,), {name: values})
    generator = torch.Generator().manual_seed(seed)
    return torch.from_numpy(values), Classical(rows)(modality, torch.from_numpy(values), generator)


@pytest.mark.parametrize("name", MODALITIES)
def test_values_stay_in_the_modality_s_support(name: str) -> None:
    before, after = changed(name)
    modality = MODALITIES[name]
    assert after.shape == before.shape
    assert after.dtype == torch.float32
    assert torch.equal(modality.to_support(after), after)
    if modality.classes:
        assert set(after.unique().tolist()) <= set(range(modality.classes))
    assert torch.equal(changed(name)[1], after)


@pytest.mark.parametrize("name", ["genes", "words"])
def test_counts_and_tokens_are_left_alone(name: str) -> None:
    before, after = changed(name)
    assert torch.equal(before, after)


@pytest.mark.parametrize("name", ["picture", "scan", "regions", "vector"])
def test_rows_are_changed_at_random(name: str) -> None:
    before, after = changed(name)
    assert not torch.equal(before, after)
    assert not torch.equal(after, changed(name, seed=1)[1])


def test_noise_is_in_units_of_each_column_s_deviation() -> None:
    before, after = changed("vector")
    spread = before.std(0, correction=0)
    assert ((after - before).std(0) / spread).numpy() == pytest.approx(JITTER, rel=0.15)
    before, after = changed("table")
    difference = after - before
    assert float(difference[:, 0].std()) == pytest.approx(JITTER * float(before[:, 0].std()), rel=0.15)
    assert (difference[:, 1:] == 0).all()  # classes, counts, yes and no


@pytest.mark.parametrize("d", [2, 3])
def test_a_warp_is_a_rotation_a_zoom_and_a_shift_without_reflection(d: int) -> None:
    size = 17
    axes = torch.meshgrid(*[torch.linspace(-1, 1, size)] * d, indexing="ij")
    image = torch.stack(axes)[None].expand(200, -1, *[-1] * d)  # channel i is the coordinate along axis i
    after = warped(image, "bilinear", torch.Generator().manual_seed(0))
    middle, step = (slice(None), slice(None), *[size // 2] * d), 2 / (size - 1)
    gradients = []
    for axis in range(2, d + 2):
        ahead = list(middle)
        ahead[axis] = size // 2 + 1
        gradients.append((after[tuple(ahead)] - after[middle]) / step)
    maps = torch.stack(gradients, 2)  # (B, d, d): derivative of the map
    determinant = torch.linalg.det(maps)
    assert (determinant > 0).all()
    zoom = determinant ** (1 / d)
    assert (zoom.log().abs() <= ZOOM + 1e-4).all()
    assert zoom.log().abs().max() > ZOOM / 2
    turned = maps / zoom[:, None, None]
    assert torch.allclose(turned @ turned.mT, torch.eye(d).expand(200, d, d), atol=1e-4)
    cosine = ((turned.diagonal(dim1=1, dim2=2).sum(1) - (d - 2)) / 2).clamp(-1, 1)
    assert (cosine.arccos() <= ANGLE * math.sqrt(d * (d - 1) / 2) + 1e-3).all()
    assert cosine.arccos().max() > ANGLE / 2


def test_light_and_noise_are_in_units_of_the_deviation() -> None:
    flat = torch.full((500, 1, 12, 12), 3.0)
    lit = shaded(flat, torch.tensor(2.0), torch.Generator().manual_seed(0))
    levels = lit.mean((1, 2, 3)) - 3
    assert levels.abs().max() <= 2 * BRIGHTNESS + 0.1
    assert float(levels.std()) == pytest.approx(2 * BRIGHTNESS / math.sqrt(3), rel=0.1)
    assert float(lit.std((1, 2, 3)).mean()) == pytest.approx(2 * NOISE, rel=0.05)


def test_deviations_are_those_of_observed_values() -> None:
    modality = MODALITIES["vector"]
    values = values_of(modality, 600)
    values[::2] = 1e6
    picture = values_of(MODALITIES["picture"], 600)
    mask = np.ones((600, 2), bool)
    mask[::2, 0] = False
    modalities, data = (modality, MODALITIES["picture"]), {"vector": values, "picture": picture}
    deviations = Classical(Dataset(modalities, data, mask)).deviations
    assert deviations["vector"].numpy() == pytest.approx(values[1::2].std(0), rel=1e-4)
    assert float(deviations["picture"]) == pytest.approx(float(picture.std()), rel=1e-4)
