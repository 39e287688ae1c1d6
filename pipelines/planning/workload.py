"""What determines how long a stage takes: the settings, the size of the data, and how fast this machine is."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from postprior.pipelines.artefacts.adapted import adapted_in
from postprior.pipelines.artefacts.autoencoder import build
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.manifest import Manifest
from postprior.pipelines.data.sources import SOURCES, check_source
from postprior.pipelines.errors import UserError
from postprior.pipelines.planning.speeds import Speeds
from postprior.pipelines.settings.params import ADAPTED, Params
from postprior.pipelines.storage import MANIFEST
from postprior.pipelines.tracking import client

SAMPLE = 256  # rows of each split that are made to measure the speed
REPEATS = 3  # of a measurement, of which the shortest counts


@dataclass(frozen=True)
class Workload:
    """The settings, the rows of each split, the size of a row and of its code, and the speeds."""

    params: Params
    rows: dict[str, int]
    modalities: int
    values: int  # numbers in a row
    columns: int  # numbers in the tables and vectors of a row
    labels: int  # number of labels; 0 for data without labels
    dimensions: int  # of the code
    blocks: int  # of the code
    tracked: bool  # whether MLflow logs the stages
    speeds: Speeds


def measure(params: Params, root: Path) -> Workload:
    """Return the workload of a project, before or after its data were prepared."""
    rows, sample = data_of(params, root)
    model = adapted_in(params, sample, root) if params.vae.model == ADAPTED else build(params, sample)
    return Workload(
        params,
        rows,
        modalities=len(sample.modalities),
        values=sum(math.prod(m.shape) for m in sample.modalities),
        columns=sum(m.shape[0] for m in sample.modalities if m.tabular),
        labels=len(sample.label_names or ()),
        dimensions=sum(block.size for block in model.layout),
        blocks=len(model.layout),
        tracked=client.address(root) is not None,
        speeds=Speeds.measure(params, model, sample),
    )


def data_of(params: Params, root: Path) -> tuple[dict[str, int], Dataset]:
    """Return the number of rows of each split, and a few training rows.

    A source that makes its rows makes only these few. Rows of a source that has to read all files are known when they
    are prepared.

    Raises:
        UserError: the data must be prepared first, or the source is not valid.
    """
    check_source(params)
    source, options = SOURCES[params.data.source], params.data.options
    defaults = {name: parameter.default for name, parameter in inspect.signature(source).parameters.items()}
    if set(SPLITS) <= defaults.keys():
        rows = {split: options.get(split, defaults[split]) for split in SPLITS}
        few = {split: min(SAMPLE, count) for split, count in rows.items()}
        return rows, source(params.seed, root, **options | few)["train"]
    home = Project(root).artefacts.data
    if params.data.source == "folder":
        home = root / options["path"]
    elif not (home / "train" / MANIFEST).exists():
        raise UserError(
            f"data.source: found {params.data.source}, whose rows are counted when they are prepared; "
            "run postprior prepare first"
        )
    rows = {split: Manifest.read(home / split).samples for split in SPLITS}
    return rows, Dataset.load(home / "train").select(np.arange(min(SAMPLE, rows["train"])))
