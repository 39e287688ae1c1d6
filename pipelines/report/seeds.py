"""Results of the same settings but for the seed: their mean, with an interval over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from postprior.pipelines.metrics.registry import LEADERBOARD
from postprior.pipelines.report.rows import Row

LEVEL = 0.95
SHARES = {metric.keys[-1] for metric in LEADERBOARD if metric.share}
Tree = Mapping[str, Any]


def over_seeds(rows: Sequence[Row], trees: Mapping[str, Tree]) -> Iterator[Row]:
    """A row for every density that was made with more than one seed under otherwise equal settings.

    Args:
        rows: of all sources.
        trees: the settings of every source by label.
    """
    groups: list[tuple[dict[str, Any], dict[Any, Row]]] = []  # settings, and the row of each seed
    for row in rows:
        if row.kind != "density":
            continue
        name, tree = row.own_name, trees[row.source]
        chosen: dict[str, Any] = {"name": name, **_seedless(_chosen(tree, name))}
        members = next((members for known, members in groups if known == chosen), None)
        if members is None:
            groups.append((chosen, {tree.get("seed"): row}))
        else:
            members.setdefault(tree.get("seed"), row)
    for chosen, members in groups:
        if len(members) > 1:
            yield _mean_row(chosen["name"], list(members.values()))


def mean(values: Sequence[float], share: bool = False) -> dict[str, float]:
    """The mean over seeds and its 95 % interval, mean ± t s/√n with n − 1 degrees of freedom, as an estimate.

    Args:
        values: one a seed, two at least.
        share: whether the interval ends at 0 and 1.
    """
    from scipy.stats import t

    centre = fmean(values)
    reach = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    low, high = centre - reach, centre + reach
    if share:
        low, high = max(low, min(centre, 0.0)), min(high, max(centre, 1.0))
    return {"value": centre, "low": low, "high": high}


def _mean_row(name: str, rows: Sequence[Row]) -> Row:
    """The mean row, named by the sources that it takes unless this project's is one of them."""
    labels = [row.source for row in rows]
    prefix = "" if "" in labels else f"{' + '.join(labels)}: "
    scores = _means([row.scores for row in rows]) | {"seeds": len(rows)}
    return Row(f"{prefix}{name}, mean of {len(rows)} seeds", "seeds", scores)


def _means(trees: Sequence[Tree]) -> dict[str, Any]:
    """What all trees hold: numbers and estimates as means, nested; other values where they are equal.

    What is missing in one of them is missing.
    """
    found: dict[str, Any] = {}
    for key in trees[0]:
        values = [tree.get(key) for tree in trees]
        nested = [value for value in values if isinstance(value, Mapping)]
        numbers = [number for value in values if (number := _number(value)) is not None]
        if missing := [value for value in nested if value.get("value", 0) is None]:
            found[key] = missing[0]
        elif len(numbers) == len(trees):
            found[key] = mean(numbers, key in SHARES)
        elif len(nested) == len(trees):
            found[key] = _means(nested)
        elif all(value == values[0] for value in values):
            found[key] = values[0]
    return found


def _number(written: Any) -> float | None:
    """The value of a number or an estimate; no whole number, which counts or names."""
    if isinstance(written, Mapping):
        written = written.get("value")
    return float(written) if isinstance(written, float) else None


def _chosen(tree: Tree, name: str) -> dict[str, Any]:
    """The settings that the row of a density hangs on."""
    kept = {key: tree.get(key) for key in ("judge", "train", "encode", "generate", "evaluate")}
    vae, data, densities = (tree.get(key) or {} for key in ("vae", "data", "density"))
    vae = {**vae, "options": (vae.get("options") or {}).get(vae.get("model"))}
    source = {"source": data.get("source"), "options": data.get(data.get("source"))}
    return {**kept, "vae": vae, "data": source, "density": densities.get(name)}


def _seedless(tree: Tree) -> dict[str, Any]:
    """A tree without its seeds."""
    return {
        key: _seedless(value) if isinstance(value, Mapping) else value for key, value in tree.items() if key != "seed"
    }
