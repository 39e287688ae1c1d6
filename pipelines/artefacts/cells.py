"""Cells of the augmentation curve: their arrays, and the cells loaded."""

from pathlib import Path

import numpy as np

from postprior.pipelines.metrics.utility.augmentation import Cell
from postprior.pipelines.storage import load_artefact

KIND = "augmentation"
ARRAYS = ("hits", "groups", "labels", "mask")  # of a cell, each a file; all but the first may be absent


def arrays_of(cell: Cell) -> dict[str, np.ndarray]:
    """The arrays of a cell, as they are saved."""
    return {name: array for name in ARRAYS if (array := getattr(cell, name)) is not None}


def load_cell(folder: Path) -> Cell:
    """What the arms of one cell answered."""
    found = load_artefact(folder, KIND)
    hits, *known = (found.arrays.get(name) for name in ARRAYS)
    size, seed, arms, modalities = (found.manifest[key] for key in ("size", "seed", "arms", "modalities"))
    return Cell(size, seed, arms, modalities, np.array(hits), *known)


def load_cells(folder: Path) -> list[Cell]:
    """All cells in a folder that have arms: where there are labels."""
    places = sorted(path.parent for path in folder.glob("*/manifest.json"))
    return [load_cell(place) for place in places if load_artefact(place, KIND).manifest["arms"]]
