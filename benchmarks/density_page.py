"""Writes the numbers in docs/densities.md from the files that benchmarks/densities.py writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zoo import ROOT, mean_and_deviation

from postprior import MODELS
from postprior.pipelines.publishing import write_text
from postprior.pipelines.storage import read_json

RESULTS = ROOT / "benchmarks/densities"
PAGE = ROOT / "docs/densities.md"
MARKS = ("<!-- numbers -->", "<!-- /numbers -->")
FIELD = "field"
"""Name of the mixture that other libraries fit: scikit-learn's, with ten full components, on raw codes."""


def mean(runs: Iterable[dict[str, Any]], row: str, score: str, digits: int) -> str:
    """Format a score of a row over runs as mean ± standard deviation."""
    values = [run["rows"][row].get(score) for run in runs]
    return mean_and_deviation([v["value"] if isinstance(v, dict) else v for v in values], digits)


def table(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heads)
    rows = [heads, ["---"] * len(heads), *map(list, lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


COLUMNS = (  # score, number of decimals, heading
    ("joint_coherence", 3, "joint coherence ↑"),
    ("frechet_distance", 1, "Frechet ↓"),
    ("recall", 3, "recall ↑"),
    ("coverage", 2, "coverage ↑"),
    ("lowest_entropy", 3, "lowest entropy ↑"),
    ("label_agreement", 3, "label agreement ↑"),
    ("log_likelihood", 2, "test log p(z) ↑"),
)


def best(run: dict[str, Any]) -> str:
    """Return the density without stored training codes that has the highest joint coherence on unreported samples."""
    names = [name for name, row in run["rows"].items() if row.get("stores") is False and name not in ("auto", FIELD)]
    return max(names, key=lambda name: run["rows"][name]["coherence_to_choose_by"])


def best_of(runs: list[dict[str, Any]]) -> str:
    """Return a table of the best density of every seed and the reconstructions."""
    lines = []
    for run in runs:
        chosen, reconstruction, real = (run["rows"][name] for name in (best(run), "reconstruction", "real"))
        line = [str(run["seed"]), f"`{best(run)}`"]
        for score, digits in (("joint_coherence", 3), ("frechet_distance", 1), ("recall", 3)):
            line += [f"{row[score]['value']:.{digits}f}" for row in (chosen, reconstruction)]
        line.append(f"{chosen['lowest_entropy']:.3f}")
        line += [f"{row['label_agreement']['value']:.3f}" for row in (chosen, real)]
        lines.append(line)
    heads = ["seed", "chosen"]
    heads += [f"{score}{of}" for score in ("joint", "Frechet", "recall") for of in ("", " of reconstruction")]
    return table([*heads, "lowest entropy", "label agreement", "label agreement of real data"], lines)


def rows_of(runs: list[dict[str, Any]]) -> str:
    """Return a table of all rows of the runs of one model, the baselines first."""
    baselines = ("real", "reconstruction", "normal")
    names = [*baselines, *(name for name in runs[0]["rows"] if name not in baselines)]
    lines = ([f"`{name}`", *(mean(runs, name, score, digits) for score, digits, _ in COLUMNS)] for name in names)
    return table(["row", *(head for *_, head in COLUMNS)], lines)


def interval(estimate: dict[str, float], digits: int) -> str:
    """Format a difference with its interval."""
    return f"{estimate['value']:+.{digits}f} [{estimate['low']:+.{digits}f}, {estimate['high']:+.{digits}f}]"


def differences_of(runs: list[dict[str, Any]]) -> str:
    """Return a table of the paired differences with their intervals, run by run."""
    scores = (("joint_coherence", 3), ("frechet_distance", 1), ("log_likelihood", 2))
    lines = [
        [f"`{run['model']}`", str(run["seed"]), pair]
        + [interval(estimates[score], digits) if score in estimates else "" for score, digits in scores]
        for run in runs
        for pair, estimates in run["differences"].items()
    ]
    return table(["model", "seed", "difference", "joint coherence", "Frechet", "test log p(z)"], lines)


def choices_of(runs: list[dict[str, Any]]) -> str:
    """Return a table of the choice of `auto` for every model, compared with the mixture that other libraries fit."""
    lines = []
    for run in runs:
        estimates = run["differences"][f"auto - {FIELD}"]
        line = [f"`{run['model']}`", f"`{run['rows']['auto']['chosen']}`"]
        for score, digits in (("joint_coherence", 3), ("frechet_distance", 1)):
            line += [mean([run], row, score, digits) for row in ("reconstruction", "auto", FIELD)]
            line.append(interval(estimates[score], digits))
        lines.append(line)
    heads = ["model", "choice"]
    for score in ("joint", "Frechet"):
        heads += [f"{score} reconstruction", f"{score} auto", f"{score} field", "difference"]
    return table(heads, lines)


def numbers(runs: list[dict[str, Any]], seconds: dict[str, Any], sizes: dict[str, Any]) -> str:
    """Return the section of docs/densities.md that is generated from the files."""
    by_part = {part: [run for run in runs if run["part"] == part] for part in ("best", "models", "private", "small")}
    texts = {
        "best": "### The best density\n\nMVTCAE with the settings of params.yaml and {seeds} seeds of data, evaluators "
        "and autoencoder; mean ± standard deviation, from four sets of 1,000 samples per row. Options were chosen on "
        "validation codes of seed 0, except those of `vamp`, which were set earlier with knowledge of test scores. "
        "`field` is scikit-learn's mixture of ten full Gaussians on raw codes, without labels.\n\n",
        "models": "### `auto` compared with the mixture of ten Gaussians, for every model\n\nTwenty epochs, seed 0. "
        "MVTCAE is in the tables above. JNF and TELBO share their first phase and therefore the codes of complete "
        "rows. Differences have 95 % intervals, paired by half-sample.\n\n",
        "private": "### Shared and private codes: joint and separate fits\n\nDMVAE. `gmm` fits one mixture per label, "
        "`free` uses no labels, and `_apart` fits every block separately.\n\n",
        "small": "### 200 training samples\n\nMVTCAE trained for 400 epochs on 200 tuples; 100 are held out.\n\n",
    }
    sections = []
    for part, text in texts.items():
        if not by_part[part]:
            continue
        body = choices_of(by_part[part]) if part == "models" else rows_of(by_part[part])
        if part != "models":
            body += "\n\n" + differences_of(by_part[part])
        if part == "best":
            body += (
                "\n\nThe best density that stores no training codes, selected by the share of samples whose five "
                "digits agree, on samples that are not reported here:\n\n" + best_of(by_part[part])
            )
        sections.append(text.format(seeds=len(by_part[part])) + body)
    if seconds:
        lines = [
            [
                f"`{name}`",
                *(f"{cost[key]:.1f}" for key in ("fit", "draw", "megabytes")),
                *memory_cells(sizes.get(name)),
            ]
            for name, cost in seconds.items()
        ]
        heads = [
            "density",
            "fit (s)",
            "100,000 draws (s)",
            "state (MB)",
            "memory at 100,000 × 512 (GB)",
            "fit at 100,000 × 512 (s)",
        ]
        sections.append(
            "### Cost\n\n5,000 codes of 32 dimensions with ten labels, two threads. The last two columns are the peak "
            "memory of the process and the time for a fit to 100,000 codes of 512 dimensions.\n\n" + table(heads, lines)
        )
    return "\n\n".join(sections)


def memory_cells(cost: dict[str, float] | None) -> list[str]:
    """Return the table cells of the peak memory and the seconds of a large fit; empty if it was not measured."""
    return ["", ""] if cost is None else [f"{cost['gigabytes']:.1f}", f"{cost['seconds']:.0f}"]


def write_page() -> None:
    """Write the numbers of all files into docs/densities.md."""
    runs = [read_json(path) for path in sorted(RESULTS.glob("*-*.json"))]
    order = {name: position for position, name in enumerate(MODELS)}
    runs.sort(key=lambda run: (order[run["model"]], run["seed"]))
    costs = [RESULTS / f"{name}.json" for name in ("speed", "memory")]
    seconds, sizes = (read_json(path) if path.exists() else {} for path in costs)
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    write_text(PAGE, f"{before}{MARKS[0]}\n{numbers(runs, seconds, sizes)}\n{MARKS[1]}{after}")
