"""Stage `prepare`: write the dataset folders that all other stages start from."""

from pathlib import Path

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import SPLITS
from postprior.pipelines.data.sources import SOURCES
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import folder_hash
from postprior.pipelines.tracking.runs import track


def prepare(params: Params, root: Path) -> None:
    """Write the splits of the data source in params.yaml to artefacts/data/<split>."""
    with track("prepare", params, root) as run, progress("prepare", 1 + len(SPLITS)) as step:
        splits = SOURCES[params.data.source](params.seed, root, **params.data.options)
        step(params.data.source)
        for split, dataset in splits.items():
            folder = Project(root).artefacts.data / split
            dataset.save(folder)
            run.dataset(folder, folder_hash(folder))
            step(split)
