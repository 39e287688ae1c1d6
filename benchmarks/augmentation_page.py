"""Writes the numbers in docs/augmentation.md from the files that benchmarks/augmentation.py writes."""

from __future__ import annotations

from typing import Any

from density_page import table
from zoo import ROOT

from postprior.pipelines.generation.augmentation import ARMS
from postprior.pipelines.publishing import write_text
from postprior.pipelines.storage import read_json

RESULTS = ROOT / "benchmarks/augmentation"
PAGE = ROOT / "docs/augmentation.md"
MARKS = ("<!-- numbers -->", "<!-- /numbers -->")
PARTS = {"joint": "The joint classifier", "mean": "Mean over the classifiers of one modality"}
GAINS = {"over_real": "gain over `real`", "over_classical": "gain over `classical`"}


def formatted(estimate: dict[str, float] | None, sign: str = "") -> str:
    """Format a value with its interval; None gives an empty string."""
    if estimate is None:
        return ""
    value, low, high = (f"{estimate[key]:{sign}.3f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def lines_of(run: dict[str, Any], part: str) -> list[list[str]]:
    """Return the table lines of a run, one per size and arm."""
    ordered = sorted(run["sizes"].values(), key=lambda size: size["rows"])
    return [
        [
            str(size["rows"]),
            str(size["seeds"]),
            f"`{arm}`",
            formatted(scores["accuracy"][part]),
            *(formatted(scores[gain][part] if gain in scores else None, "+") for gain in GAINS),
        ]
        for size in ordered
        for arm in ARMS
        if (scores := size["arms"].get(arm))
    ]


def numbers() -> str:
    """Return the section of docs/augmentation.md that is generated from the files."""
    sections = []
    for path in sorted(RESULTS.glob("*.json")):
        run = read_json(path)
        heads = ["rows", "seeds", "arm", "accuracy", *GAINS.values()]
        body = "\n\n".join(f"{title}:\n\n{table(heads, lines_of(run, part))}" for part, title in PARTS.items())
        sections.append(f"### `{run['model']}` with `{run['density']}`\n\n{body}")
    return "\n\n".join(sections)


def write_page() -> None:
    """Write the numbers of all files into docs/augmentation.md."""
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    write_text(PAGE, f"{before}{MARKS[0]}\n{numbers()}\n{MARKS[1]}{after}")
