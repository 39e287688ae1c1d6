"""Stage `prepare`: the dataset folders that everything else starts from."""

from __future__ import annotations

from pathlib import Path

from pipelines.config import Params
from pipelines.datasets import SOURCES
from pipelines.storage import folder_hash
from pipelines.tracking import track


def prepare(params: Params, root: Path) -> None:
    """Make the splits that the source of params.yaml gives; artefacts/data/<split>."""
    with track("prepare", params, root) as run:
        splits = SOURCES[params.data.source](params.seed, root, **params.data.options)
        for split, dataset in splits.items():
            folder = root / "artefacts/data" / split
            dataset.save(folder)
            run.dataset(folder, folder_hash(folder))
