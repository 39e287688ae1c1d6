"""Writes the numbers in docs/quality.md from the files that benchmarks/quality.py writes."""

from __future__ import annotations

import math
from typing import Any

from density_page import table
from missing import replace_block
from zoo import ROOT, mean_and_deviation

from postprior.pipelines.storage import read_json

RESULTS = ROOT / "benchmarks/quality"
MEMBERSHIP = RESULTS / "membership/digits.json"
PAGE = ROOT / "docs/quality.md"
MARKS = ("<!-- numbers -->", "<!-- /numbers -->")
SCORES = (  # score, number of decimals, heading
    ("joint_coherence", 3, "joint coherence ↑"),
    ("frechet_distance", 1, "Frechet ↓"),
    ("recall", 3, "recall ↑"),
    ("precision", 3, "precision ↑"),
    ("coverage", 3, "coverage ↑"),
    ("lowest_entropy", 3, "lowest entropy ↑"),
    ("label_agreement", 3, "label agreement ↑"),
)
Run = dict[str, Any]
Row = tuple[Run, dict[str, Any]]
"""A run and the scores of one of its rows."""


def write_page() -> None:
    """Write the numbers of all files into docs/quality.md."""
    runs = [read_json(path) for path in sorted(RESULTS.glob("*.json"))]
    pairs: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        pairs.setdefault((run["model"], run["density"]), []).append(run)
    parts = (
        (scores_table, "Samples, reconstructions and real rows"),
        (use_table, "Conditional generation and use"),
        (imputation_table, "Imputation of a modality, against the nearest neighbours"),
        (privacy_table, "Privacy"),
        (membership_table, "Membership of rows and of digits"),
        (ratio_table, "The pair with the lowest Fréchet distance, relative to real rows"),
        (seconds_table, "Processor seconds"),
    )
    replace_block(PAGE, *MARKS, "\n\n".join(f"### {title}\n\n{make(pairs)}" for make, title in parts))


def cell(values: list[Any], digits: int) -> str:
    """Return mean ± standard deviation over runs of scores, each a number or an estimate."""
    numbers = [value["value"] if isinstance(value, dict) else value for value in values]
    return mean_and_deviation(numbers, digits)


def rows_of(pairs: dict[tuple[str, str], list[Run]]) -> dict[str, list[Row]]:
    """Return the rows with samples of every pair, by title: at temperature 1 and at the temperatures chosen."""
    rows: dict[str, list[Row]] = {}
    for (model, density), runs in pairs.items():
        title = f"`{model}` + `{density}`"
        rows[title] = [(run, run["samples"]["1.0"]) for run in runs]
        if any(run["temperature"] != 1 for run in runs):
            temperatures = "/".join(f"{run['temperature']:g}" for run in runs)
            rows[f"{title}, T = {temperatures}"] = [(run, run["samples"][str(run["temperature"])]) for run in runs]
    return rows


def scores_table(pairs: dict[tuple[str, str], list[Run]]) -> str:
    """Return the table of the scores of all modalities together."""
    by_seed = {run["seed"]: run for runs in pairs.values() for run in runs}
    rows = {"real rows": [(run, run["rows"]["real"]) for run in by_seed.values()]}
    for (model, _), runs in pairs.items():
        rows[f"reconstructions of `{model}`"] = [(run, run["rows"]["reconstruction"]) for run in runs]
    rows |= rows_of(pairs)
    lines = [
        [name, str(len(row)), *(cell([scores[key] for _, scores in row], digits) for key, digits, _ in SCORES)]
        for name, row in rows.items()
    ]
    return table(["row", "seeds", *(head for *_, head in SCORES)], lines)


def use_table(pairs: dict[tuple[str, str], list[Run]]) -> str:
    """Return the table of conditional coherence and of the utility of single modalities."""
    lines = []
    for name, row in rows_of(pairs).items():
        conditional = [scores["conditional_coherence"] for _, scores in row]
        lines.append(
            [name]
            + [cell([each[size] for each in conditional], 3) for size in conditional[0]]
            + [cell([scores["utility_ratio"][key] for _, scores in row], 3) for key in ("mean", "joint")]
        )
    observed = [f"{size} observed ↑" for size in conditional[0]]
    return table(["row", *observed, "single modalities, over real ↑", "all modalities, over real ↑"], lines)


def imputation_table(pairs: dict[tuple[str, str], list[Run]]) -> str:
    """Return the table of the differences of energy scores to those of nearest neighbours, per seed and on average.

    The interval of the mean is that of a mean of independent estimates.
    """
    lines = []
    for (model, density), runs in pairs.items():
        found = [run["imputation"]["against"]["neighbours"] for run in runs if "imputation" in run]
        if not found:
            continue
        half = math.hypot(*((each["high"] - each["low"]) / 2 for each in found)) / len(found)
        mean = sum(each["value"] for each in found) / len(found)
        every = [*found, {"value": mean, "low": mean - half, "high": mean + half}] if len(found) > 1 else found
        cells = [f"{each['value']:+.4f} ({each['low']:+.4f} to {each['high']:+.4f})" for each in every]
        lines.append([f"`{model}` + `{density}`", *cells, *[""] * (4 - len(cells))])
    return table(["row", "seed 0", "seed 1", "seed 2", "mean"], lines)


def privacy_table(pairs: dict[tuple[str, str], list[Run]]) -> str:
    """Return the table of near copies, memorisation and the membership attack."""
    lines = []
    for name, row in rows_of(pairs).items():
        tests = [(scores["privacy"], scores["memorisation"]) for _, scores in row]
        spaces = [[cell([p[space][key] for p, _ in tests], 3) for space in ("joint", "codes")] for key in ATTACKS]
        lines.append([name, *spaces[0], cell([m["ratio"] for _, m in tests], 3), *spaces[1]])
    return table(
        ["row", "near copies ↓", "near copies, codes ↓", "memorisation ratio (1)", "AUC ↓ (.5)", "AUC, codes ↓ (.5)"],
        lines,
    )


def membership_table(pairs: dict[tuple[str, str], list[Run]]) -> str:
    """Return the table of the parts of the membership attack, for the runs that were split."""
    found = read_json(MEMBERSHIP) if MEMBERSHIP.exists() else {}
    parts = {"all": "training against test rows", "rows": "against new rows", "digits": "new against test rows"}
    lines = []
    for (model, density), runs in pairs.items():
        for run in runs:
            for seen, aucs in found.get(f"{model}-{density}-{run['seed']}", {}).items():
                cells = [f"{aucs[part][space]:.3f}" for part in parts for space in ("joint", "codes")]
                lines.append([f"`{model}` + `{density}`", str(run["seed"]), seen.replace("_", " "), *cells])
    heads = [f"{head}{space}" for head in parts.values() for space in ("", ", codes")]
    return table(["row", "seed", "the attacker sees", *heads], lines)


ATTACKS = ("near_copies", "membership_auc")


def ratio_table(pairs: dict[tuple[str, str], list[Run]]) -> str:
    """Return the scores of the pair with the lowest mean Frechet distance over those of real rows.

    One line per seed, and one with the ratios of the means over seeds.
    """
    runs = min(pairs.values(), key=mean_distance)
    row = [(run, run["samples"][str(run["temperature"])]) for run in runs]
    keys = ("joint_coherence", "frechet_distance", "recall", "precision", "coverage")
    lines = [
        [str(run["seed"]), f"{run['temperature']:g}"]
        + [f"{scores[key]['value'] / run['rows']['real'][key]['value']:.3f}" for key in keys]
        for run, scores in row
    ]
    if len(row) > 1:
        drawn = [sum(scores[key]["value"] for _, scores in row) for key in keys]
        real = [sum(run["rows"]["real"][key]["value"] for run, _ in row) for key in keys]
        lines.append(["means", "", *(f"{one / other:.3f}" for one, other in zip(drawn, real, strict=True))])
    heads = ["seed", "T", "joint coherence", "Frechet", "recall", "precision", "coverage"]
    return f"`{runs[0]['model']}` + `{runs[0]['density']}`:\n\n{table(heads, lines)}"


def mean_distance(runs: list[Run]) -> float:
    """Return the mean Frechet distance of the samples at the temperatures chosen."""
    return sum(run["samples"][str(run["temperature"])]["frechet_distance"]["value"] for run in runs) / len(runs)


def seconds_table(pairs: dict[tuple[str, str], list[Run]]) -> str:
    """Return the processor seconds of the two stages, and of drawing 1,000 samples."""
    lines = []
    for (model, density), runs in pairs.items():
        seconds = [run["seconds"] for run in runs]
        both = [s["train"] + s["fit"] if s.get("train") and s.get("fit") else None for s in seconds]
        cells = [cell([s.get(stage) for s in seconds], 0) for stage in ("train", "fit")]
        lines.append([f"`{model}` + `{density}`", *cells, cell(both, 0)])
    return table(["pair", "stage 1", "stage 2", "both"], lines)
