"""Save and load cells of the augmentation curve."""

from pathlib import Path

import numpy as np

from postprior.pipelines.metrics.utility.augmentation import Cell
from postprior.pipelines.storage import load_artefact

KIND = "augmentation"
ARRAYS = ("hits", "groups", "labels", "mask")  # arrays of a cell, one file each; only the first is required


def arrays_of(cell: Cell) -> dict[str, np.ndarray]:
    """Return the arrays of a cell to save."""
    return {name: array for name in ARRAYS if (array := getattr(cell, name)) is not None}


def load_cell(folder: Path) -> Cell:
    """Load one cell."""
    artefact = load_artefact(folder, KIND)
    hits, *optional = (artefact.arrays.get(name) for name in ARRAYS)
    size, seed, arms, modalities = (artefact.manifest[key] for key in ("size", "seed", "arms", "modalities"))
    return Cell(size, seed, arms, modalities, np.array(hits), *optional)


def load_cells(folder: Path) -> list[Cell]:
    """Load all cells in a folder that have arms; cells of data without labels have none."""
    places = sorted(path.parent for path in folder.glob("*/manifest.json"))
    return [load_cell(place) for place in places if load_artefact(place, KIND).manifest["arms"]]
