"""Rows of the leaderboard: the scores of one sampler, or their means over seeds, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from postprior.pipelines.metrics.registry import LEADERBOARD

TITLES = {
    "real": "Real, held out",
    "reconstruction": "Reconstruction",
    "normal": "Normal prior",
    "posterior": "Plain posterior",
    "gaussian_copula": "Gaussian copula",
    "independent_columns": "Independent columns",
}
INTERVAL = ("value", "low", "high")  # fields of an estimate in files and tables
SHARES = {metric.keys[-1] for metric in LEADERBOARD if metric.share}
Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, if it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, entry: Any) -> Estimate | None:
        """Read an entry of a results file: a number, {"value", "low", "high"}, or None if it has no value."""
        if isinstance(entry, Mapping):
            value, low, high = (entry.get(field) for field in INTERVAL)
            return None if value is None else cls(value, low, high)
        return None if entry is None else cls(float(entry))

    def above(self, bound: float = 0.0) -> bool:
        """Whether the whole interval lies above a bound."""
        return self.low is not None and self.low > bound

    def below(self, bound: float = 0.0) -> bool:
        """Whether the whole interval lies below a bound."""
        return self.high is not None and self.high < bound

    def __neg__(self) -> Estimate:
        """The difference with opposite sign."""
        return Estimate(-self.value, *(None if end is None else -end for end in (self.high, self.low)))


MISSING = Estimate(float("nan"))


@dataclass(frozen=True, eq=False)
class Row:
    """A row of the leaderboard: a density or a baseline."""

    name: str  # in a row of another source, it begins with the label of the source, as in "mopoe: gmm"
    kind: str  # "data", "baseline" (another sampler), "density", or "seeds" (the mean of a density over seeds)
    scores: dict[str, Any]  # results/metrics/…; results/utility/…, privacy/…, imputation/… under keys of these names
    source: str = ""  # the label of the source, "" for this project

    @property
    def own_name(self) -> str:
        """The name without the label of the source."""
        return self.name.removeprefix(f"{self.source}: ") if self.source else self.name

    @property
    def title(self) -> str:
        """The name for readers, with the label of the source."""
        return self.name.removesuffix(self.own_name) + self.short_title

    @property
    def short_title(self) -> str:
        """The name for readers, without the label of the source."""
        return TITLES.get(self.own_name, self.own_name)

    def estimate(self, *keys: str) -> Estimate | None:
        """The estimate under nested keys, or None if there is none."""
        entry: Any = self.scores
        for key in keys:
            entry = entry.get(key) if isinstance(entry, Mapping) else None
        return Estimate.of(entry)

    def why(self, *keys: str) -> str:
        """Why the estimate under nested keys has no value or no interval, or "" if the file gives no reason."""
        entry: Any = self.scores
        for key in (*keys, None):
            if not isinstance(entry, Mapping):
                return ""
            if "value" in entry and "why" in entry:
                return str(entry["why"])
            entry = entry.get(key)
        return ""

    def value(self, *keys: str) -> float:
        """The value of the estimate under nested keys, or infinity if there is none."""
        estimate = self.estimate(*keys)
        return estimate.value if estimate else float("inf")

    def by_size(self, key: str) -> dict[int, Estimate]:
        """The estimates under a key, by number of observed modalities."""
        by_size = {int(size): Estimate.of(entry) for size, entry in self.scores.get(key, {}).items()}
        return {size: estimate for size, estimate in sorted(by_size.items()) if estimate}


def estimates(rows: Iterable[Row], *keys: str) -> dict[Row, Estimate]:
    """Return the estimates under nested keys of the rows that have one."""
    return {row: estimate for row in rows if (estimate := row.estimate(*keys))}


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Sort rows from best to worst: by joint coherence if all have one, otherwise by Frechet distance."""
    rows = sorted(rows, key=lambda row: row.name)
    if all(row.estimate("joint_coherence") for row in rows):
        return sorted(rows, key=lambda row: -row.value("joint_coherence"))
    return sorted(rows, key=lambda row: row.value("frechet_distance"))


def over_seeds(rows: Sequence[Row], trees: Mapping[str, Tree]) -> Iterator[Row]:
    """Yield a mean row for each density that has results for several seeds with otherwise equal settings.

    `rows` are the rows of all sources, `trees` the settings of each source by its label.
    """
    groups: list[tuple[Tree, dict[Any, Row]]] = []  # settings without seeds, and the row of each seed
    for row in rows:
        if row.kind == "density":
            tree = trees[row.source]
            settings = {"name": row.own_name, **_seedless(_settings_of(tree, row.own_name))}
            members: dict[Any, Row] = next((members for other, members in groups if other == settings), {})
            if not members:
                groups.append((settings, members))
            members.setdefault(tree.get("seed"), row)
    for _, members in groups:
        if len(members) > 1:
            yield _mean_row(list(members.values()))


def mean(values: Sequence[float], share: bool = False) -> dict[str, float]:
    """Return the mean of at least two values, one per seed, and its 95 % interval.

    The interval is mean ± t s/√n with n − 1 degrees of freedom. The interval of a share is cut at 0 and 1.
    """
    from scipy.special import stdtrit

    centre = fmean(values)
    half_width = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / len(values) ** 0.5
    low, high = centre - half_width, centre + half_width
    if share:
        low, high = max(low, min(centre, 0.0)), min(high, max(centre, 1.0))
    return {"value": centre, "low": low, "high": high}


def _mean_row(rows: Sequence[Row]) -> Row:
    """Return the mean of rows; its name lists their sources unless one of them is this project."""
    labels = [row.source for row in rows]
    prefix = "" if "" in labels else f"{' + '.join(labels)}: "
    scores = _means([row.scores for row in rows]) | {"seeds": len(rows)}
    return Row(f"{prefix}{rows[0].own_name}, mean of {len(rows)} seeds", "seeds", scores)


def _means(trees: Sequence[Tree]) -> dict[str, Any]:
    """Average nested scores key by key; keep other values if they are equal in all trees.

    A score that is missing in one tree is missing in the mean.
    """
    means: dict[str, Any] = {}
    for key in trees[0]:
        values = [tree.get(key) for tree in trees]
        nested = [value for value in values if isinstance(value, Mapping)]
        scalars = [value.get("value") if isinstance(value, Mapping) else value for value in values]
        numbers = [value for value in scalars if isinstance(value, float)]  # whole numbers are counts or names
        if missing := [value for value in nested if value.get("value", 0) is None]:
            means[key] = missing[0]
        elif len(numbers) == len(trees):
            means[key] = mean(numbers, key in SHARES)
        elif len(nested) == len(trees):
            means[key] = _means(nested)
        elif all(value == values[0] for value in values):
            means[key] = values[0]
    return means


def _settings_of(tree: Tree, name: str) -> dict[str, Any]:
    """Return the settings that determine the row of a density."""
    settings = {key: tree.get(key) for key in ("evaluators", "train", "encode", "generate", "evaluate")}
    vae, data, densities = (tree.get(key) or {} for key in ("vae", "data", "density"))
    vae = {**vae, "options": (vae.get("options") or {}).get(vae.get("model"))}
    source = {"source": data.get("source"), "options": data.get(data.get("source"))}
    return {**settings, "vae": vae, "data": source, "density": densities.get(name)}


def _seedless(tree: Tree) -> dict[str, Any]:
    """Remove all seeds from a tree of settings."""
    return {
        key: _seedless(value) if isinstance(value, Mapping) else value for key, value in tree.items() if key != "seed"
    }
