"""What reads samples for every score, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from postprior.pipelines.storage import load_artefact, rebuilding

if TYPE_CHECKING:
    from postprior.pipelines.metrics.features.reader import Reader


KIND = "judges"


def load_judges(folder: Path) -> Reader:
    """What reads tuples: the extractor of features in a folder, and the judges where there are labels."""
    from postprior.pipelines.metrics.features.reader import Reader

    artefact = load_artefact(folder, KIND)
    with rebuilding(folder):
        return Reader.from_state(artefact.tensors, artefact.manifest)
