"""Writes the table in docs/adapted.md from the files that benchmarks/adapted.py writes."""

from __future__ import annotations

import math
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
    """Write one table a model; each score is the mean over seeds, with its interval."""
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
    """Return the mean of scores over seeds with its interval; nothing for a score that a seed lacks.

    Models, judges and samples of seeds are independent, so the distance of an end of the interval from the mean is the
    root of the sum of squared distances, divided by the number of seeds.
    """
    if any(value is None for value in values):
        return ""
    if not isinstance(values[0], dict):
        return f"{sum(values) / len(values):.{digits}f}"
    mean = sum(value["value"] for value in values) / len(values)
    low, high = (
        mean + sign * math.hypot(*(value[end] - value["value"] for value in values)) / len(values)
        for sign, end in ((-1, "low"), (1, "high"))
    )
    return f"{mean:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
