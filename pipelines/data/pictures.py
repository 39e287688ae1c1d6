"""Samples as pictures: sheets of cells, of which a page cuts what a reader asks for.

A cell is one modality of one line of one sample. A synthetic sample has one line; beside its nearest training row it
has two; a row whose modalities are generated from parts of it has one for every part.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.stage1_vae.modalities import Modality

SAMPLES = 16  # of a row of the leaderboard
PIXELS = 250_000  # of one sheet; larger pictures leave room for fewer samples
FEWEST = 4
CELL = 128  # pixels a side at most
EXACT = 32  # up to so many the pixels are kept as they are
GAP = 2  # pixels between cells, transparent
SPACE = 6  # pixels more between samples of several lines
GIVEN = (0, 114, 178, 255)  # the frame of what was observed


@dataclass(frozen=True)
class Sheet:
    """Pictures of a few samples in one image, a WebP file of `size`, width and height.

    `labels` are a text for every sample, `lines` what the lines of a sample are (one without a name where there is one
    alone). `given` says which cells were observed, by sample, line and modality; it is empty where that is no question.
    `side` are the pixels of a cell, `steps` those right and down to the next sample, line and modality.
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
        """What stands beneath one another: the modalities of a sample, or its lines."""
        return self.lines if self.steps[2][0] else self.modalities


def sheet(
    modalities: Sequence[Modality],
    data: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    label_names: Sequence[str] | None = None,
) -> Sheet | None:
    """The sheet of the first samples of data[m] (N, *shape), one beside the other; None where nothing can be drawn."""
    lines = {m.name: data[m.name][None, :SAMPLES] for m in modalities if m.name in data}
    count = min(SAMPLES, *map(len, data.values())) if data else 0
    texts = [""] * count
    if labels is not None and label_names is not None:
        texts = [label_names[int(label)] for label in labels[:count]]
    return laid_out(modalities, lines, texts, ("",))


def sheet_of(dataset: Dataset) -> Sheet | None:
    """The sheet of a dataset's first samples."""
    return sheet(dataset.modalities, dataset.data, dataset.labels, dataset.label_names)


def laid_out(
    modalities: Sequence[Modality],
    values: Mapping[str, np.ndarray],
    texts: Sequence[str],
    lines: Sequence[str],
    observed: np.ndarray | None = None,
) -> Sheet | None:
    """The sheet of images and of the middle slices of volumes; lines stand beneath one another where some are observed.

    Shapes: values[m] (L, N, *shape); observed (N, L, M).
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
    places = [list(modalities).index(m) for m in shown]
    given = [] if observed is None else observed[:samples, :, places].tolist()
    canvas = np.zeros((height, width, 4), np.uint8)
    for place in np.ndindex(counts):
        sample, line, modality = place
        left, top = (int(at) for at in np.dot(place, steps))
        if given and given[sample][line][modality]:
            canvas[top : top + pitch, left : left + pitch] = GIVEN
        left, top = left + GAP // 2, top + GAP // 2
        m = shown[modality]
        canvas[top : top + side, left : left + side, :3] = _picture(values[m.name][line, sample], m, side)
        canvas[top : top + side, left : left + side, 3] = 255
    content = io.BytesIO()
    Image.fromarray(canvas).save(content, format="WEBP", lossless=side <= EXACT, quality=85, method=4)
    names, image = tuple(m.name for m in shown), content.getvalue()
    return Sheet(tuple(texts[:samples]), tuple(lines), names, given, side, steps, (width, height), image)


def _picture(value: np.ndarray, modality: Modality, side: int) -> np.ndarray:
    """An image (C, H, W), or the middle of a volume (C, D, H, W), as bytes (side, side, 3), centred."""
    from PIL import Image

    image = value[:, value.shape[1] // 2] if modality.kind == "volume" else value
    low, high = modality.range or (float(image.min()), float(image.max()))
    scaled = np.clip((image - low) / (high - low or 1) * 255, 0, 255).round().astype(np.uint8)
    pixels = np.broadcast_to(scaled, (3, *scaled.shape[1:])).transpose(1, 2, 0)
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    way = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, way)
    canvas = Image.new("RGB", (side, side))
    canvas.paste(resized, ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(canvas)
