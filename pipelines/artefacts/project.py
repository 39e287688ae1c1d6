"""The layout of a project: where every artefact and every result lies.

Rows are loaded here, which every stage reads. All else is loaded by its own module, so that a stage imports no more
than it reads: what a stage imports decides when DVC runs it again.
"""

from pathlib import Path
from typing import Self

from postprior.pipelines.data.dataset import SPLITS, Dataset, check_labels
from postprior.pipelines.errors import UserError


class ArtefactFolders:
    """The folders of artefacts in a folder; those that hold one folder a name are plural."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.code = home / "code"  # hashes of the code, by stage
        self.data = home / "data"  # real rows, by split
        self.autoencoder = home / "autoencoder"  # the trained model of stage 1
        self.codes = home / "codes"  # posteriors of the rows, by split
        self.densities = home / "densities"  # fitted to the training codes
        self.evaluators = home / "evaluators"  # a feature extractor, and label classifiers where there are labels
        self.baselines = home / "baselines"  # the reference set, and the scores of the baseline rows
        self.synthetic = home / "synthetic"  # datasets, by density
        self.evaluation = home / "evaluation"  # half-samples, and rows generated from parts, by density
        self.utility = home / "utility"  # answers of the classifiers that a density taught, by density
        self.real_utility = self.utility / "real"  # the classifiers that real rows taught
        self.augmentation = home / "augmentation"  # answers of the arms of each cell, <size>-<seed>
        self.privacy = home / "privacy"  # samples beside their closest training rows, by density
        self.baseline_imputers = home / "imputation/baselines"  # scores that densities are set against

    @classmethod
    def around(cls, density: Path) -> Self:
        """The artefacts of the project in which the folder of a density lies."""
        return cls(density.resolve().parents[1])


class ResultFiles:
    """The files of results in a folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.training = home / "training.csv"  # the epochs of the autoencoder
        self.comparison = home / "comparison.csv"  # the leaderboard
        self.page = home / "report.html"  # the report
        self.plots = home / "plots"  # a folder of plots as CSV and PNG
        self.datasheets = home / "datasheets"  # a folder of Markdown, a file a synthetic dataset

    def scores(self, part: str, name: str) -> Path:
        """What was measured in a part: `metrics`, `utility`, `privacy`, `imputation` or `augmentation`.

        The name is that of a density; in `metrics` also of a baseline row, `autoencoder`, `evaluators` or `latent`;
        in `augmentation` of a cell, <size>-<seed>; `real` in `utility`; `baselines` in `imputation`.
        """
        return self.home / part / f"{name}.json"


class Project:
    """A folder with params.yaml, artefacts and results.

    With an empty path as root, all paths are relative to the root of whatever project is meant.

    Example:
        >>> Project(Path()).results.scores("metrics", "gmm").as_posix()
        'results/metrics/gmm.json'
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artefacts = ArtefactFolders(root / "artefacts")
        self.results = ResultFiles(root / "results")
        self.checkpoints = root / ".postprior/checkpoints"  # a folder of files that training resumes from

    def dataset(self, split: str) -> Dataset:
        """The rows of a split."""
        return Dataset.load(self.artefacts.data / split)

    def splits(self) -> dict[str, Dataset]:
        """The rows of every split."""
        return {split: self.dataset(split) for split in SPLITS}

    def train_and_test(self) -> tuple[Dataset, Dataset]:
        """Training and test rows, whose labels mean the same."""
        train, test = self.dataset("train"), self.dataset("test")
        check_labels(train, test)
        return train, test

    def synthetic(self, name: str) -> Dataset:
        """The synthetic dataset of a density."""
        return Dataset.load(self.artefacts.synthetic / name)


def check_origin(place: Path | None, what: str, found: str | None, expected: str | None, stage: str) -> None:
    """Refuse what was made of something else than what stands in the project now; hashes say so."""
    if found != expected:
        raise UserError(
            f"{place}: {what} {str(found)[:12]} found, expected {str(expected)[:12]}; run postprior {stage} again"
        )


MOVED = {
    Path("artefacts/judges"): Path("artefacts/evaluators"),
    Path("artefacts/reference"): Path("artefacts/baselines"),
    Path("artefacts/recovery"): Path("artefacts/imputation"),
    Path("results/recovery"): Path("results/imputation"),
    Path("results/metrics/judges.json"): Path("results/metrics/evaluators.json"),
}
"""Files and folders of earlier versions and their current places, from the root of the project."""


def earlier(path: Path) -> Path | None:
    """Return the place that an earlier version gave to a file of a project, None if it had the same."""
    return next((old / path.relative_to(new) for old, new in MOVED.items() if path.is_relative_to(new)), None)
