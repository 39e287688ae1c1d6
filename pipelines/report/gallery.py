"""Samples as pictures: a sheet whose columns are samples and whose rows are modalities."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.dataset import Dataset
from stage1_vae.modalities import Modality

COLUMNS = 8
CELL = 48  # pixels a side at least; small images are enlarged without smoothing
GAP = 4  # pixels between cells, transparent


@dataclass(frozen=True)
class Sheet:
    """Pictures of a few samples; `labels` has one text a column, `rows` one name a modality."""

    labels: tuple[str, ...]
    rows: tuple[str, ...]
    png: bytes


def sheet(
    modalities: Sequence[Modality],
    data: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    label_names: Sequence[str] | None = None,
) -> Sheet | None:
    """The sheet of the first samples, None where no modality is an image of one or three channels.

    Shapes: data[m] (N, C, H, W); labels (N,).
    """
    shown = [m for m in modalities if m.kind == "image" and m.shape[0] in (1, 3)]
    if not shown:
        return None
    cell = max(CELL, *(max(m.shape[1:]) for m in shown))
    rows = [[_picture(image, m, cell) for image in data[m.name][:COLUMNS]] for m in shown]
    if labels is None or label_names is None:
        texts = ("",) * len(rows[0])
    else:
        texts = tuple(label_names[int(label)] for label in labels[:COLUMNS])
    return Sheet(texts, tuple(m.name for m in shown), _png(rows, cell))


def sheet_of(dataset: Dataset) -> Sheet | None:
    """The sheet of a dataset's first samples."""
    return sheet(dataset.modalities, dataset.data, dataset.labels, dataset.label_names)


def _picture(image: np.ndarray, modality: Modality, cell: int) -> np.ndarray:
    """An image (C, H, W) as bytes (cell, cell, 3), in the middle of its cell where it is not square."""
    from PIL import Image

    low, high = modality.range or (float(image.min()), float(image.max()))
    scaled = np.clip((image - low) / (high - low or 1) * 255, 0, 255).round().astype(np.uint8)
    pixels = np.broadcast_to(scaled, (3, *scaled.shape[1:])).transpose(1, 2, 0)
    height, width = pixels.shape[:2]
    factor = cell / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.NEAREST)
    canvas = Image.new("RGB", (cell, cell))
    canvas.paste(resized, ((cell - size[0]) // 2, (cell - size[1]) // 2))
    return np.asarray(canvas)


def _png(rows: Sequence[Sequence[np.ndarray]], cell: int) -> bytes:
    """Cells on a transparent ground, half a gap around each, so that columns are of equal width."""
    from PIL import Image

    pitch = cell + GAP
    canvas = np.zeros((len(rows) * pitch, len(rows[0]) * pitch, 4), np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = i * pitch + GAP // 2, j * pitch + GAP // 2
            canvas[top : top + cell, left : left + cell, :3] = picture
            canvas[top : top + cell, left : left + cell, 3] = 255
    content = io.BytesIO()
    Image.fromarray(canvas).save(content, format="PNG", optimize=True)
    return content.getvalue()
