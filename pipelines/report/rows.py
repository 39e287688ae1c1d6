"""A row of the leaderboard: what the stages have written of one sampler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TITLES = {
    "real": "Real, held out",
    "reconstruction": "Reconstruction",
    "normal": "Normal prior",
    "posterior": "Plain posterior",
}
INTERVAL = ("value", "low", "high")  # parts of an estimate, in files and tables


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, written: Any) -> Estimate | None:
        """The estimate in a results file: a number, {"value", "low", "high"}, or nothing; see `Row.why`."""
        if isinstance(written, Mapping):
            written = [written.get(part) for part in INTERVAL]
            return None if written[0] is None else cls(*written)
        return None if written is None else cls(float(written))

    def __neg__(self) -> Estimate:
        """The same difference, seen from the other side."""
        return Estimate(-self.value, *(None if end is None else -end for end in (self.high, self.low)))


@dataclass(frozen=True, eq=False)
class Row:
    """A row of the leaderboard: a density, or what densities are set against.

    Args:
        name: of the row; that of another source begins with its label, as in "mopoe: gmm".
        kind: "data", "floor", "density", or "seeds" for the mean of a density over seeds.
        scores: what was measured of it; that of the parts `utility`, `privacy` and `recovery` stands under these keys.
        source: the label of the source, "" for this project.
    """

    name: str
    kind: str
    scores: dict[str, Any]
    source: str = ""

    @property
    def own_name(self) -> str:
        """The name without the label of the source."""
        return self.name.removeprefix(f"{self.source}: ") if self.source else self.name

    @property
    def title(self) -> str:
        """The row's name for readers."""
        return self.name.removesuffix(self.own_name) + TITLES.get(self.own_name, self.own_name)

    @property
    def short(self) -> str:
        """The title without the label of the source."""
        return self.title.removeprefix(f"{self.source}: ") if self.source else self.title

    def estimate(self, *keys: str) -> Estimate | None:
        """The estimate under nested keys, None where there is none."""
        found: Any = self.scores
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return Estimate.of(found)

    def why(self, *keys: str) -> str:
        """Why there is no estimate under nested keys, or no interval, as the file says; "" where it does not."""
        found: Any = self.scores
        for key in (*keys, None):
            if not isinstance(found, Mapping):
                return ""
            if "value" in found and "why" in found:
                return str(found["why"])
            found = found.get(key)
        return ""

    def value(self, *keys: str) -> float:
        """The value of the estimate under nested keys, infinity where there is none."""
        found = self.estimate(*keys)
        return found.value if found else float("inf")

    def by_size(self, key: str) -> dict[int, Estimate]:
        """The estimates under a key, by number of observed modalities."""
        found = {int(size): Estimate.of(written) for size, written in self.scores.get(key, {}).items()}
        return {size: estimate for size, estimate in sorted(found.items()) if estimate}


def estimates(rows: Iterable[Row], *keys: str) -> dict[Row, Estimate]:
    """The estimates under nested keys, of the rows that have one."""
    return {row: found for row in rows if (found := row.estimate(*keys))}


def ranked(rows: Iterable[Row]) -> list[Row]:
    """The rows from best to worst: by joint coherence, or by Frechet distance where labels are not known in all."""
    rows = sorted(rows, key=lambda row: row.name)
    if all(row.estimate("joint_coherence") for row in rows):
        return sorted(rows, key=lambda row: -row.value("joint_coherence"))
    return sorted(rows, key=lambda row: row.value("frechet_distance"))
