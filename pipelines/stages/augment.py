"""Stage `augment`: one cell of the augmentation curve, a number of real rows and a seed."""

from pathlib import Path

from postprior.pipelines.artefacts.cells import KIND, arrays_of
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.generation.augmentation import ARMS, arm_hits, stratified_subsample
from postprior.pipelines.metrics.utility.augmentation import Cell
from postprior.pipelines.metrics.utility.classifiers import modality_names
from postprior.pipelines.settings.options import check_value
from postprior.pipelines.settings.params import Params, Seed
from postprior.pipelines.storage import save_artefact, write_json
from postprior.pipelines.tracking.runs import track


def augment(size: str, params: Params, root: Path, seed: int) -> None:
    """Train all arms on `size` training rows and test them; write results/augmentation/<size>-<seed>.json.

    Without labels there is nothing to learn, and the file has the settings of the cell only.
    """
    check_value("seed", seed, Seed)
    project, name = Project(root), f"{size}-{seed}"
    train, test = project.train_and_test()
    with track("augment", params, root) as run:
        run.dataset(project.artefacts.data / "train", train.hash)
        rows, modalities = stratified_subsample(train, size, seed), modality_names(test)
        settings = {"size": len(rows), "seed": seed} | params.augment.model_dump(include={"model", "density"})
        arms, arrays, scores = [], {}, {}
        if train.labels is not None:
            arms, hits = list(ARMS), arm_hits(rows, test, params, seed)
            cell = Cell(len(rows), seed, arms, modalities, hits, test.groups, test.labels, test.mask)
            arrays = arrays_of(cell)
            run.metrics(cell.accuracy, prefix=f"augmentation.{len(rows)}.")
            scores = {"accuracy": cell.accuracy, "samples": {"train": len(rows), "test": len(test)}}
        manifest = {**settings, "data": train.hash, "test": test.hash, "modalities": modalities, "arms": arms}
        save_artefact(project.artefacts.augmentation / name, KIND, manifest, arrays=arrays)
        write_json(project.results.scores("augmentation", name), settings | scores)
