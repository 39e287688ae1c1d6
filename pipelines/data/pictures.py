"""Draw samples as image sheets, from which the report page cuts out the samples that a reader selects.

A cell shows one modality of one line of one sample. A synthetic sample has one line, or two if it is shown with its
nearest training row. A row for conditional generation has one line per subset of observed modalities.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from postprior.pipelines.data.arrays import Rows
from postprior.pipelines.data.dataset import Dataset
from postprior.stage1_vae.modalities import Modality

SAMPLES = 16  # samples per row of the leaderboard
PIXELS = 250_000  # pixels of one sheet; larger images leave room for fewer samples
FEWEST = 4  # least number of samples
CELL = 128  # greatest side of a cell in pixels
EXACT = 32  # sheets with cells up to this side are compressed without loss
GAP = 2  # transparent pixels between cells
SPACE = 6  # additional pixels between samples with several lines
GIVEN = (0, 114, 178, 255)  # colour of the frame around observed cells


@dataclass(frozen=True)
class Sheet:
    """Pictures of a few samples in one image.

    Attributes:
        labels: one text per sample.
        lines: the titles of the lines of a sample; one empty title if there is only one line.
        modalities: the titles of the modalities.
        given: which cells were observed, by sample, line and modality; empty if the sheet does not distinguish them.
        side: width and height of a cell in pixels.
        steps: pixels to the right and down to the next sample, line and modality.
        size: width and height of the image.
        image: the content of a WebP file.
    """

    labels: tuple[str, ...]
    lines: tuple[str, ...]
    modalities: tuple[str, ...]
    given: list[list[list[bool]]]
    side: int
    steps: tuple[tuple[int, int], ...]
    size: tuple[int, int]
    image: bytes

    @property
    def rows(self) -> tuple[str, ...]:
        """Titles of the rows of a sample: its modalities, or its lines."""
        return self.lines if self.steps[2][0] else self.modalities


def sheet(
    modalities: Sequence[Modality],
    data: Mapping[str, Rows],
    labels: np.ndarray | None = None,
    label_names: Sequence[str] | None = None,
    mask: np.ndarray | None = None,
) -> Sheet | None:
    """Draw the first samples of data[m] (N, *shape) side by side; None if no modality can be drawn.

    Modalities that a sample lacks, by the mask (N, M), stay empty.
    """
    lines = {m.name: data[m.name][:SAMPLES][None] for m in modalities if m.name in data}
    count = min(SAMPLES, *map(len, data.values())) if data else 0
    texts = [""] * count
    if labels is not None and label_names is not None:
        texts = [label_names[label] if label >= 0 else "" for label in labels[:count].tolist()]
    return laid_out(modalities, lines, texts, ("",), present=mask)


def sheet_of(dataset: Dataset) -> Sheet | None:
    """Draw the first samples of a dataset."""
    return sheet(dataset.modalities, dataset.data, dataset.labels, dataset.label_names, dataset.mask)


def laid_out(
    modalities: Sequence[Modality],
    values: Mapping[str, np.ndarray],
    texts: Sequence[str],
    lines: Sequence[str],
    observed: np.ndarray | None = None,
    present: np.ndarray | None = None,
) -> Sheet | None:
    """Draw a sheet of images and of the middle slices of volumes; None if no modality can be drawn.

    If `observed` is given, the lines of a sample are placed below each other, otherwise its modalities.
    Cells of modalities that are not `present` stay transparent. Shapes: values[m] (L, N, *shape); observed (N, L, M);
    present (N, M).
    """
    from PIL import Image

    drawable = [m for m in modalities if m.kind in ("image", "volume") and m.shape[0] in (1, 3)]
    if not (shown := [m for m in drawable if m.name in values]):
        return None
    side = min(CELL, max(max(m.shape[-2:]) for m in shown))
    samples = min(len(texts), max(FEWEST, PIXELS // (len(lines) * len(shown) * side**2)))
    pitch = side + GAP
    apart = SPACE if len(lines) > 1 else 0
    if observed is None:
        steps = ((len(lines) * pitch + apart, 0), (pitch, 0), (0, pitch))
    else:
        steps = ((len(shown) * pitch + apart, 0), (0, pitch), (pitch, 0))
    counts = (samples, len(lines), len(shown))
    width, height = (
        sum(step[axis] * (count - 1) for step, count in zip(steps, counts, strict=True)) + pitch for axis in (0, 1)
    )
    columns = [list(modalities).index(m) for m in shown]
    given = [] if observed is None else observed[:samples, :, columns].tolist()
    canvas = np.zeros((height, width, 4), np.uint8)
    for cell in np.ndindex(counts):
        sample, line, modality = cell
        if present is not None and not present[sample, columns[modality]]:
            continue
        left, top = (int(offset) for offset in np.dot(cell, steps))
        if given and given[sample][line][modality]:
            canvas[top : top + pitch, left : left + pitch] = GIVEN
        left, top = left + GAP // 2, top + GAP // 2
        m = shown[modality]
        canvas[top : top + side, left : left + side, :3] = _picture(values[m.name][line, sample], m, side)
        canvas[top : top + side, left : left + side, 3] = 255
    content = io.BytesIO()
    Image.fromarray(canvas).save(content, format="WEBP", lossless=side <= EXACT, quality=85, method=4)
    names, image = tuple(m.title for m in shown), content.getvalue()
    return Sheet(tuple(texts[:samples]), tuple(lines), names, given, side, steps, (width, height), image)


def _picture(value: np.ndarray, modality: Modality, side: int) -> np.ndarray:
    """Return an image (C, H, W), or the middle slice of a volume (C, D, H, W), as bytes (side, side, 3), centred."""
    from PIL import Image

    image = value[:, value.shape[1] // 2] if modality.kind == "volume" else value
    low, high = modality.range or (float(image.min()), float(image.max()))
    scaled = np.clip((image - low) / (high - low or 1) * 255, 0, 255).round().astype(np.uint8)
    pixels = np.broadcast_to(scaled, (3, *scaled.shape[1:])).transpose(1, 2, 0)
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    method = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, method)
    canvas = Image.new("RGB", (side, side))
    canvas.paste(resized, ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(canvas)
