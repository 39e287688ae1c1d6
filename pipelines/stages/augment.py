"""Stage `augment`: a cell of the augmentation curve."""

from pathlib import Path

from postprior.pipelines.artefacts.cells import KIND, arrays_of
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.generation.augmentation import ARMS, answers, few
from postprior.pipelines.metrics.utility.augmentation import Cell
from postprior.pipelines.metrics.utility.classifiers import modality_names
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import save_artefact, write_json
from postprior.pipelines.tracking.runs import track


def augment(size: str, params: Params, root: Path, seed: int) -> None:
    """Train all arms on `size` training rows and test them; results/augmentation/<size>-<seed>.json.

    Without labels there is nothing to learn, and the file says no more than what was asked for.
    """
    project, name = Project(root), f"{size}-{seed}"
    train, test = project.train_and_test()
    with track("augment", params, root) as run:
        run.dataset(project.artefacts.data / "train", train.hash)
        rows, modalities = few(train, size, seed), modality_names(test)
        asked = {"size": len(rows), "seed": seed} | params.augment.model_dump(include={"model", "density"})
        arms, arrays, told = [], {}, {}
        if train.labels is not None:
            arms, hits = list(ARMS), answers(rows, test, params, seed)
            cell = Cell(len(rows), seed, arms, modalities, hits, test.groups, test.labels, test.mask)
            arrays = arrays_of(cell)
            run.metrics(cell.accuracy, prefix=f"augmentation.{len(rows)}.")
            told = {"accuracy": cell.accuracy, "samples": {"train": len(rows), "test": len(test)}}
        known = {**asked, "data": train.hash, "test": test.hash, "modalities": modalities, "arms": arms}
        save_artefact(project.artefacts.augmentation / name, KIND, known, arrays=arrays)
        write_json(project.results.scores("augmentation", name), asked | told)
