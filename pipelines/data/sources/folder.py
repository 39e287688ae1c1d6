"""Dataset folders that exist: one a split."""

from pathlib import Path

from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.errors import UserError


def read_folders(seed: int, root: Path, path: str) -> dict[str, Dataset]:
    """The datasets in `path`/train, `path`/validation and `path`/test; nothing is drawn, so `seed` is not used."""
    splits = {split: Dataset.load(root / path / split) for split in SPLITS}
    first = splits["train"]
    for split, dataset in splits.items():
        for field in ("modalities", "label_names"):
            if getattr(dataset, field) != getattr(first, field):
                raise UserError(
                    f"{root / path / split}: {field}: other ones found than in train; give all splits the same."
                )
    return splits
