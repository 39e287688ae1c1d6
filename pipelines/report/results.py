"""What the stages have written, as the comparison reads it: from files alone."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import Params
from pipelines.errors import UserError
from pipelines.storage import read_json


@dataclass(frozen=True)
class Metric:
    """A score of the leaderboard.

    Args:
        key: its key in results/metrics/<row>.json.
        title: its name for readers.
        decimals: places after the point.
        better: what a reader should prefer, "higher" or "lower"; "" where neither is better by itself.
        about: what it measures, in a phrase.
        share: whether it lies between 0 and 1.
    """

    key: str
    title: str
    decimals: int
    better: str
    about: str
    share: bool = True

    @property
    def arrow(self) -> str:
        """A sign for what is better."""
        return {"higher": "↑", "lower": "↓"}.get(self.better, "")


METRICS = (
    Metric(
        "joint_coherence",
        "Joint coherence",
        3,
        "higher",
        "share of tuples whose modalities all show one label",
    ),
    Metric(
        "pairwise_coherence", "Pairwise coherence", 3, "higher", "share of pairs of modalities that agree"
    ),
    Metric(
        "frechet_distance",
        "Frechet distance",
        2,
        "lower",
        "distance to real features, mean of the modalities",
        False,
    ),
    Metric(
        "label_entropy",
        "Label entropy",
        3,
        "higher",
        "evenness of the labels shown, 1 when all are equally frequent",
    ),
    Metric(
        "label_agreement", "Label agreement", 3, "higher", "share of modalities that show the label drawn"
    ),
    Metric("precision", "Precision", 3, "higher", "share of samples that lie among the real ones"),
    Metric("recall", "Recall", 3, "higher", "share of real rows that lie among the samples"),
    Metric(
        "density", "Density", 3, "higher", "how many real neighbourhoods hold a sample, on average", False
    ),
    Metric("coverage", "Coverage", 3, "higher", "share of real neighbourhoods that hold a sample"),
)
TITLES = {
    "real": "Real, held out",
    "reconstruction": "Reconstruction",
    "normal": "Normal prior",
    "posterior": "Plain posterior",
}
HEADLINES = ("joint_coherence", "frechet_distance")


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, written: Any) -> Estimate | None:
        """The estimate in a results file: a number, {"value", "low", "high"}, or nothing."""
        if isinstance(written, Mapping):
            written = (written.get("value"), written.get("low"), written.get("high"))
            return None if written[0] is None else cls(*written)
        return None if written is None else cls(float(written))


@dataclass(frozen=True, eq=False)
class Row:
    """A row of the leaderboard: a density, or what densities are set against."""

    name: str
    kind: str  # "data", "floor" or "density"
    scores: dict[str, Any]

    @property
    def title(self) -> str:
        """The row's name for readers."""
        return TITLES.get(self.name, self.name)

    def estimate(self, *keys: str) -> Estimate | None:
        """The estimate under nested keys, None where there is none."""
        found: Any = self.scores
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return Estimate.of(found)

    def by_size(self, key: str) -> dict[int, Estimate]:
        """The estimates under a key, by number of observed modalities."""
        found = {int(size): Estimate.of(written) for size, written in self.scores.get(key, {}).items()}
        return {size: estimate for size, estimate in sorted(found.items()) if estimate}


@dataclass(frozen=True)
class Results:
    """All rows in the order of the leaderboard, and what else is known."""

    rows: tuple[Row, ...]
    judges: dict[str, Any]
    autoencoder: dict[str, Any]
    training: list[dict[str, str]]

    @property
    def densities(self) -> tuple[Row, ...]:
        """The fitted densities, best first."""
        return tuple(row for row in self.rows if row.kind == "density")

    @property
    def posterior(self) -> Row:
        """The autoencoder's own posterior, which generates modalities from others under its prior."""
        return Row("posterior", "floor", self.autoencoder)

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)


def read_results(params: Params, root: Path) -> Results:
    """The results in results/: `real`, `reconstruction`, the densities by joint coherence, then the floor.

    Raises:
        UserError: a file is missing; the sentence names the command that writes it.
    """
    metrics = root / "results/metrics"
    densities = [
        Row(name, "density", _read(metrics / f"{name}.json", f"evaluate {name}")) for name in params.densities
    ]
    densities.sort(key=lambda row: (-_value(row), row.name))
    rows = (
        Row("real", "data", _read(metrics / "real.json", "reference")),
        Row("reconstruction", "data", _read(metrics / "reconstruction.json", "reference")),
        *densities,
        Row("normal", "floor", _read(metrics / "normal.json", "reference")),
    )
    with open(root / "results/training.csv", encoding="utf-8", newline="") as file:
        training = list(csv.DictReader(file))
    judges = _read(metrics / "judges.json", "judge")
    return Results(rows, judges, _read(metrics / "autoencoder.json", "reference"), training)


def _read(path: Path, command: str) -> dict[str, Any]:
    if not path.exists():
        raise UserError(
            f"{path}: there are no such results yet; run `postprior {command}` first, or `dvc repro`"
        )
    return read_json(path)


def _value(row: Row) -> float:
    estimate = row.estimate("joint_coherence")
    return estimate.value if estimate else float("-inf")
