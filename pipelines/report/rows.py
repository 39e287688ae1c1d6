"""A row of the leaderboard: what the stages have written of one sampler, or its mean over seeds, with an interval."""

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
}
INTERVAL = ("value", "low", "high")  # parts of an estimate, in files and tables
SHARES = {metric.keys[-1] for metric in LEADERBOARD if metric.share}
Tree = Mapping[str, Any]


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

    def above(self, bound: float = 0.0) -> bool:
        """Whether the whole interval lies above a bound."""
        return self.low is not None and self.low > bound

    def below(self, bound: float = 0.0) -> bool:
        """Whether the whole interval lies below a bound."""
        return self.high is not None and self.high < bound

    def __neg__(self) -> Estimate:
        """The same difference, seen from the other side."""
        return Estimate(-self.value, *(None if end is None else -end for end in (self.high, self.low)))


MISSING = Estimate(float("nan"))


@dataclass(frozen=True, eq=False)
class Row:
    """A row of the leaderboard: a density, or what densities are set against."""

    name: str  # that of another source begins with its label, as in "mopoe: gmm"
    kind: str  # "data", "floor", "density", or "seeds" for the mean of a density over seeds
    scores: dict[str, Any]  # what was measured of it; results/utility/… stand under `utility`, `privacy`, `imputation`
    source: str = ""  # the label of the source, "" for this project

    @property
    def own_name(self) -> str:
        """The name without the label of the source."""
        return self.name.removeprefix(f"{self.source}: ") if self.source else self.name

    @property
    def title(self) -> str:
        """The row's name for readers."""
        return self.name.removesuffix(self.own_name) + self.short

    @property
    def short(self) -> str:
        """The title without the label of the source."""
        return TITLES.get(self.own_name, self.own_name)

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


def over_seeds(rows: Sequence[Row], trees: Mapping[str, Tree]) -> Iterator[Row]:
    """A row for every density that was made with more than one seed under otherwise equal settings.

    `rows` are those of all sources, `trees` the settings of every source by label.
    """
    groups: list[tuple[Tree, dict[Any, Row]]] = []  # settings, and the row of each seed
    for row in rows:
        if row.kind == "density":
            tree = trees[row.source]
            chosen = {"name": row.own_name, **_seedless(_chosen(tree, row.own_name))}
            members: dict[Any, Row] = next((members for known, members in groups if known == chosen), {})
            if not members:
                groups.append((chosen, members))
            members.setdefault(tree.get("seed"), row)
    for _, members in groups:
        if len(members) > 1:
            yield _mean_row(list(members.values()))


def mean(values: Sequence[float], share: bool = False) -> dict[str, float]:
    """The mean of two values or more, one a seed, and its 95 % interval: mean ± t s/√n, n − 1 degrees of freedom.

    That of a share ends at 0 and 1.
    """
    from scipy.stats import t

    centre = fmean(values)
    reach = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    low, high = centre - reach, centre + reach
    if share:
        low, high = max(low, min(centre, 0.0)), min(high, max(centre, 1.0))
    return {"value": centre, "low": low, "high": high}


def _mean_row(rows: Sequence[Row]) -> Row:
    """The mean row, named by the sources that it takes unless this project's is one of them."""
    labels = [row.source for row in rows]
    prefix = "" if "" in labels else f"{' + '.join(labels)}: "
    scores = _means([row.scores for row in rows]) | {"seeds": len(rows)}
    return Row(f"{prefix}{rows[0].own_name}, mean of {len(rows)} seeds", "seeds", scores)


def _means(trees: Sequence[Tree]) -> dict[str, Any]:
    """What all trees hold: numbers and estimates as means, nested; other values where they are equal.

    What is missing in one of them is missing.
    """
    found: dict[str, Any] = {}
    for key in trees[0]:
        values = [tree.get(key) for tree in trees]
        nested = [value for value in values if isinstance(value, Mapping)]
        written = [value.get("value") if isinstance(value, Mapping) else value for value in values]
        numbers = [value for value in written if isinstance(value, float)]  # whole numbers count or name
        if missing := [value for value in nested if value.get("value", 0) is None]:
            found[key] = missing[0]
        elif len(numbers) == len(trees):
            found[key] = mean(numbers, key in SHARES)
        elif len(nested) == len(trees):
            found[key] = _means(nested)
        elif all(value == values[0] for value in values):
            found[key] = values[0]
    return found


def _chosen(tree: Tree, name: str) -> dict[str, Any]:
    """The settings that the row of a density hangs on."""
    kept = {key: tree.get(key) for key in ("evaluators", "train", "encode", "generate", "evaluate")}
    vae, data, densities = (tree.get(key) or {} for key in ("vae", "data", "density"))
    vae = {**vae, "options": (vae.get("options") or {}).get(vae.get("model"))}
    source = {"source": data.get("source"), "options": data.get(data.get("source"))}
    return {**kept, "vae": vae, "data": source, "density": densities.get(name)}


def _seedless(tree: Tree) -> dict[str, Any]:
    """A tree without its seeds."""
    return {
        key: _seedless(value) if isinstance(value, Mapping) else value for key, value in tree.items() if key != "seed"
    }
