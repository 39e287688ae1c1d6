"""Writes the table in docs/adapted.md from the files that benchmarks/adapted.py writes."""

from __future__ import annotations

from typing import Any

from density_page import table
from missing import replace_block
from zoo import ROOT

PAGE = ROOT / "docs/adapted.md"
MARKS = ("<!-- numbers -->", "<!-- /numbers -->")
COLUMNS = (  # score, number of decimals, heading
    ("joint_coherence", 3, "joint coherence ↑"),
    ("frechet_distance", 1, "Frechet ↓"),
    ("recall", 3, "recall ↑"),
    ("seconds", 0, "seconds"),
)


def write_table(runs: list[dict[str, Any]]) -> None:
    """Write one table a model; each number is the mean over seeds, with the interval of a single seed."""
    parts = []
    for name in dict.fromkeys(run["model"] for run in runs):
        same = [run for run in runs if run["model"] == name]
        seeds = ", ".join(str(run["seed"]) for run in same)
        epochs = ", ".join(sorted({str(run["epochs"]) for run in same}))
        rows = [
            [
                title,
                *(
                    cell([run["samplers"].get(title, {}).get(key) for run in same], digits)
                    for key, digits, _ in COLUMNS
                ),
            ]
            for title in same[0]["samplers"]
        ]
        heading = ["codes", *(text for _, _, text in COLUMNS)]
        rows_of_data = ", ".join(sorted({f"{run['rows']:,}" for run in same}))
        parts.append(f"### {name}: {rows_of_data} rows, {epochs} epochs, seeds {seeds}\n\n{table(heading, rows)}")
    replace_block(PAGE, *MARKS, "\n\n".join(parts))


def cell(values: list[Any], digits: int) -> str:
    """Return the mean of scores, and the interval if there is one seed; nothing for a score that a row lacks."""
    if any(value is None for value in values):
        return ""
    numbers = [value["value"] if isinstance(value, dict) else value for value in values]
    mean = f"{sum(numbers) / len(numbers):.{digits}f}"
    if len(values) == 1 and isinstance(values[0], dict):
        return f"{mean} ({values[0]['low']:.{digits}f}–{values[0]['high']:.{digits}f})"
    return mean
