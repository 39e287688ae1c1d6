"""Stage `augment`: whether synthetic rows help where there are few real rows, for one number of real rows."""

from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.artefacts.augmentation import save_arm_hits
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.generation.augmentation import ARMS, arm_hits, stratified_subsample
from postprior.pipelines.metrics.utility.augmentation import ArmHits
from postprior.pipelines.metrics.utility.classifiers import modality_names
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import write_json
from postprior.pipelines.tracking.runs import track


def augment(size: str, params: Params, root: Path) -> None:
    """Train all arms on `size` training rows, chosen anew for each seed, and test them.

    Writes results/augmentation/<size>.json. Without labels there is nothing to learn, and the file has the settings
    only.
    """
    project, settings = Project(root), params.augment
    train, test = project.train_and_test()
    with track("augment", params, root) as run:
        run.dataset(project.artefacts.data / "train", train.hash)
        subsamples = [stratified_subsample(train, size, seed) for seed in settings.seeds]
        written: dict[str, Any] = {"rows": len(subsamples[0]), "seeds": list(settings.seeds)}
        written |= settings.model_dump(include={"model", "density"})
        found = None
        if train.labels is not None:
            hits = []
            with progress(f"augment {size}", len(settings.seeds)) as step:
                for rows, seed in zip(subsamples, settings.seeds, strict=True):
                    hits.append(arm_hits(rows, test, params, seed))
                    step(f"seed {seed}")
            tested = (np.stack(hits), test.groups, test.labels, test.mask)
            found = ArmHits(written["rows"], settings.seeds, list(ARMS), modality_names(test), *tested)
        save_arm_hits(project.artefacts.augmentation / size, found, written | {"data": train.hash, "test": test.hash})
        if found is not None:
            written |= {"accuracy": found.accuracy, "samples": {"train": found.rows, "test": int(test.labelled.sum())}}
        write_json(project.results.scores("augmentation", size), written)
