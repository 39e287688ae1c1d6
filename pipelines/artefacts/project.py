"""The layout of a project: the paths of all artefacts and results.

This module loads only the rows of the data, which every stage reads. Other artefacts are loaded by their own modules,
so that a stage imports only what it reads: the imports of a stage determine when DVC runs it again.
"""

from pathlib import Path
from typing import Self

from postprior.pipelines.data.dataset import SPLITS, Dataset, check_labels
from postprior.pipelines.errors import UserError


class ArtefactFolders:
    """The folders of artefacts in a folder; folders with a plural name hold one folder per name."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.code = home / "code"  # hashes of the code by stage
        self.data = home / "data"  # real rows by split
        self.autoencoder = home / "autoencoder"  # the trained model of stage 1
        self.refiner = home / "refiner"  # the density of images and volumes given the means of the decoders
        self.codes = home / "codes"  # posteriors of the rows by split
        self.densities = home / "densities"  # densities fitted to the training codes
        self.evaluators = home / "evaluators"  # a feature extractor, and label classifiers where there are labels
        self.baselines = home / "baselines"  # the reference set, and the scores of the baseline rows
        self.synthetic = home / "synthetic"  # synthetic datasets by density
        self.evaluation = (
            home / "evaluation"
        )  # half-samples, and rows generated from some of their modalities, by density
        self.utility = home / "utility"  # predictions of classifiers trained on synthetic rows, by density
        self.real_utility = self.utility / "real"  # predictions of classifiers trained on real rows
        self.augmentation = home / "augmentation"  # correct predictions of the arms, by number of real rows
        self.privacy = home / "privacy"  # samples and their nearest training rows, by density
        self.baseline_imputers = home / "imputation/baselines"  # scores of the baseline imputers

    @classmethod
    def around(cls, density: Path) -> Self:
        """The artefacts of the project in which the folder of a density lies."""
        return cls(density.resolve().parents[1])


class ResultFiles:
    """The files of results in a folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.training = home / "training.csv"  # metrics of every epoch of the autoencoder
        self.comparison = home / "comparison.csv"  # the leaderboard
        self.summary = home / "summary.json"  # its headline metrics, as DVC shows them
        self.summary_table = home / "summary.csv"  # the same with intervals
        self.page = home / "report.html"  # the report
        self.shareable_page = home / "report-shareable.html"  # the report without real rows, on request
        self.plots = home / "plots"  # plots as CSV and PNG files
        self.datasheets = home / "datasheets"  # Markdown files, one per synthetic dataset

    def scores(self, part: str, name: str) -> Path:
        """Return the file of scores in `metrics`, `utility`, `privacy`, `imputation` or `augmentation`.

        `name` is the name of a density. Other names are, in `metrics`, a baseline row, `autoencoder`, `evaluators`,
        `latent` and `samplers`; in `augmentation`, a number of rows or `all`; in `utility`, `real`; in `imputation`,
        `baselines`.
        """
        return self.home / part / f"{name}.json"


class Project:
    """A folder with params.yaml, artefacts and results.

    With an empty path as root, all paths are relative to the root of a project.

    Example:
        >>> Project(Path()).results.scores("metrics", "gmm").as_posix()
        'results/metrics/gmm.json'
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artefacts = ArtefactFolders(root / "artefacts")
        self.results = ResultFiles(root / "results")
        self.checkpoints = root / ".postprior/checkpoints"  # files that training resumes from
        self.blocks = root / ".postprior/blocks"  # rows that ranks have computed, until the first one has all

    def dataset(self, split: str) -> Dataset:
        """Load the rows of a split."""
        return Dataset.load(self.artefacts.data / split)

    def splits(self) -> dict[str, Dataset]:
        """Load the rows of every split."""
        return {split: self.dataset(split) for split in SPLITS}

    def train_and_test(self) -> tuple[Dataset, Dataset]:
        """Load training and test rows; raise a UserError if their labels differ in meaning."""
        train, test = self.dataset("train"), self.dataset("test")
        check_labels(train, test)
        return train, test

    def synthetic(self, name: str) -> Dataset:
        """Load the synthetic dataset of a density."""
        return Dataset.load(self.artefacts.synthetic / name)


def check_origin(place: Path | None, what: str, found: str | None, expected: str | None, stage: str) -> None:
    """Raise a UserError if an artefact was made from an input with another hash than the current one."""
    if found != expected:
        raise UserError(
            f"{place}: found {what} {str(found)[:12]}, expected {str(expected)[:12]}; run postprior {stage} again"
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
