"""What reads samples for every score, loaded."""

from pathlib import Path

from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.storage import load_artefact, rebuilding

KIND = "judges"


def load_evaluators(folder: Path) -> Evaluators:
    """What reads tuples: the extractor of features in a folder, and the judges where there are labels."""
    artefact = load_artefact(folder, KIND)
    with rebuilding(folder):
        return Evaluators.from_state(artefact.tensors, artefact.manifest)
