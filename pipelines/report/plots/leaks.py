"""Figures that answer whether synthetic data leak their training rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from postprior.pipelines.report.figures import Figure, Mark
from postprior.pipelines.report.plots.drawing import (
    MISSING,
    grouped,
    height_of_groups,
    said,
    with_legend,
    written,
)
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import INTERVAL, Estimate, Row

TESTS = {  # the title of a panel, where its dashed line stands, and its limits, by key in a space
    "membership_auc": ("Attack AUC ↓", 0.5, (0.3, 1.02)),
    "near_copies": ("Share of near copies ↓", None, None),
    "distance_ratio": ("Distance ratio", 1.0, None),
    "authenticity": ("Authenticity ↑", None, (-0.03, 1.03)),
}

FRESH = {"authenticity": "authenticity_fresh"}  # the same of held-out rows
NAMES = {"joint": "all together", "codes": "codes"}  # of spaces, beside the modalities


def leaks(results: Results, look: Mapping[str, Mark]) -> Iterator[Figure]:
    """Every privacy test of every density, in data space, in the space of codes, and in each modality."""
    rows = [row for row in results.rows if row.scores.get("privacy", {}).get("spaces")]
    compared = {space for row in rows for space in row.scores["privacy"]["spaces"]}
    spaces = [*(name for name in NAMES if name in compared), *sorted(compared - NAMES.keys())]
    values = {test: {row: _by_space(row, spaces, test) for row in rows} for test in TESTS}
    for test, key in FRESH.items():
        fresh = _by_space(rows[0], spaces, key) if rows else []
        if any(estimate is not MISSING for estimate in fresh):
            values[test] = {results.row("real"): fresh} | values[test]
    known = [
        test for test in TESTS if any(e is not MISSING for found in values[test].values() for e in found)
    ]
    if not known:
        return
    panels = [
        grouped(
            TESTS[test][0],
            [NAMES.get(space, space) for space in spaces],
            values[test],
            look,
            *TESTS[test][1:],
        )
        for test in known
    ]
    shown = {row: None for test in known for row in values[test]}
    yield Figure(
        "privacy",
        "Tests for leaks, by the space in which rows are compared",
        "; ".join(
            f"{test.replace('_', ' ')} of {row.title}: {said(dict(zip(spaces, values[test][row], strict=True)))}"
            for test in known
            for row in values[test]
        ),
        ("test", "row", "space", *INTERVAL),
        [
            (test, row.title, space, *written(estimate))
            for test in known
            for row in values[test]
            for space, estimate in zip(spaces, values[test][row], strict=True)
            if estimate is not MISSING
        ],
        with_legend(panels, {row.title: look[row.name] for row in shown}),
        height=height_of_groups(spaces, len(rows)),
        columns=max(len(panels), 2),
        aligned=True,
        across=("space",),
        about=(
            "The attack tells training rows from held-out ones by how dense the synthetic rows lie about them. A "
            "distance ratio of 1 says that samples come as near to training rows as held-out rows do; samples are as "
            "authentic as they should be where held-out rows are no more so."
        ),
    )


def _by_space(row: Row, spaces: Sequence[str], key: str) -> list[Estimate]:
    return [row.estimate("privacy", "spaces", space, key) or MISSING for space in spaces]
