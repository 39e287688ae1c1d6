"""Cells of the augmentation curve, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from postprior.pipelines.storage import load_artefact

if TYPE_CHECKING:
    from postprior.pipelines.metrics.utility.augmentation import Cell


KIND = "augmentation"


def load_cell(folder: Path) -> Cell:
    """What the arms of one cell answered."""
    from postprior.pipelines.metrics.utility.augmentation import Cell

    found = load_artefact(folder, KIND)
    size, seed, arms, modalities = (found.manifest[key] for key in ("size", "seed", "arms", "modalities"))
    groups, labels, mask = (found.arrays.get(key) for key in ("groups", "labels", "mask"))
    return Cell(size, seed, arms, modalities, np.array(found.arrays["hits"]), groups, labels, mask)


def load_cells(folder: Path) -> list[Cell]:
    """All cells in a folder such as artefacts/augmentation that have arms: where there are labels."""
    places = sorted(path.parent for path in folder.glob("*/manifest.json"))
    return [load_cell(place) for place in places if load_artefact(place, KIND).manifest["arms"]]
