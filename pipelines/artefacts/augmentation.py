"""Save and load the correct predictions of the arms of the augmentation."""

from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.metrics.utility.augmentation import ArmHits
from postprior.pipelines.storage import load_artefact, save_artefact

KIND = "augmentation"
ARRAYS = ("hits", "groups", "labels", "mask")  # one file each; only the first is required
NAMES = ("rows", "seeds", "arms", "modalities")  # in the manifest


def save_arm_hits(folder: Path, found: ArmHits | None, description: dict[str, Any]) -> None:
    """Save correct predictions with a description of their origin; None if data without labels have none."""
    given = vars(found) if found else {}
    arrays = {name: given[name] for name in ARRAYS if given.get(name) is not None}
    save_artefact(folder, KIND, description | {name: given[name] for name in NAMES if found}, arrays=arrays)


def load_arm_hits(folder: Path) -> ArmHits | None:
    """Load correct predictions; None if data without labels have none."""
    artefact = load_artefact(folder, KIND)
    if not artefact.arrays:
        return None
    arrays = {name: np.array(array) for name, array in artefact.arrays.items()}
    rows, seeds, arms, modalities = (artefact.manifest[name] for name in NAMES)
    return ArmHits(rows, seeds, arms, modalities, **arrays)
