"""Is it useful? What classifiers learn from synthetic data, alone and beside real rows."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.report.findings.words import Finding, percent, percent_with
from pipelines.report.results import Results
from pipelines.report.rows import Row

RATIO = ("utility", "ratio_to_real", "joint")
SYNTHETIC = ("utility", "train_synthetic_test_real", "joint")
REVERSE = ("utility", "train_real_test_synthetic", "joint")
REAL = ("utility", "train_real_test_real", "joint")


def useful(results: Results) -> Iterator[Finding]:
    """Synthetic rows in place of real ones, and beside few of them."""
    tried = [row for row in results.densities if row.estimate(*RATIO)]
    if tried:
        yield from _in_place(results, tried)
    else:
        why = (
            "The stage utility has not run"
            if results.labelled
            else "Without labels no classifier can be taught"
        )
        yield Finding("Not measured", f"{why}, so nothing here says whether samples teach.")


def _in_place(results: Results, rows: list[Row]) -> Iterator[Finding]:
    """Training on synthetic data alone, and what a classifier of real rows reads in them."""
    best = max(rows, key=lambda row: row.value(*RATIO))
    ratio, reached = best.estimate(*RATIO), best.estimate(*SYNTHETIC)
    real = results.beside(best, "real").estimate(*REAL)
    if not ratio or not reached:
        return
    after = (
        f", which is {percent_with(ratio)} of the {percent(real.value)} after training on real rows"
        if real
        else ""
    )
    text = f"Training on samples of {best.title} alone reaches {percent_with(reached)} on held-out real rows{after}."
    others = [f"{row.title} {percent(row.value(*RATIO))}" for row in rows if row is not best]
    if others:
        text += f" Of the accuracy after real rows, others reach: {', '.join(others)}."
    yield Finding("In place of real rows", text)
    if backwards := best.estimate(*REVERSE):
        yield Finding(
            "Read by a real classifier",
            f"A classifier trained on real rows is right on {percent_with(backwards)} of the samples of {best.title}.",
        )
