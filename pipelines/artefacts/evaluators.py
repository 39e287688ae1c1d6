"""What reads samples for every score, loaded."""

from pathlib import Path

from postprior.pipelines.metrics.features.reader import Reader
from postprior.pipelines.storage import load_artefact, rebuilding

KIND = "judges"


def load_judges(folder: Path) -> Reader:
    """What reads tuples: the extractor of features in a folder, and the judges where there are labels."""
    artefact = load_artefact(folder, KIND)
    with rebuilding(folder):
        return Reader.from_state(artefact.tensors, artefact.manifest)
