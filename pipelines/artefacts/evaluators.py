"""Save and load the evaluators."""

from pathlib import Path

from postprior.pipelines.artefacts.allocations import AllocationLimit
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.storage import check_tensors, load_artefact, rebuilding, save_artefact

KIND = "judges"  # the kind stored in manifests


def save_evaluators(folder: Path, evaluators: Evaluators, digest: str | None) -> None:
    """Publish the evaluators; `digest` is the hash of the rows that they were fitted to."""
    tensors, manifest = evaluators.state()
    save_artefact(folder, KIND, {**manifest, "data": digest}, tensors)


def load_evaluators(folder: Path) -> Evaluators:
    """Load the feature extractor in a folder, and the label classifiers if the data have labels."""
    artefact = load_artefact(folder, KIND)
    with rebuilding(folder), AllocationLimit.of(artefact.tensors):
        evaluators = Evaluators.from_state(artefact.tensors, artefact.manifest)
        check_tensors(artefact.tensors, evaluators.state()[0])
    return evaluators
