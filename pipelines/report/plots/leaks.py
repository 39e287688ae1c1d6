"""Figures that answer whether synthetic data leak their training rows."""

from collections.abc import Iterator, Mapping

from postprior.pipelines.metrics.registry import of_family
from postprior.pipelines.report.figures import Figure, Mark
from postprior.pipelines.report.plots import drawing
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import MISSING, Estimate, Row

FRESH = {"authenticity": "authenticity_fresh"}  # the same of held-out rows
TESTS = {key: metric for key, metric in of_family("privacy").items() if key not in FRESH.values()}
LIMITS = {"membership_auc": (0.3, 1.02), "authenticity": (-0.03, 1.03)}
NAMES = {"joint": "all together", "codes": "codes"}  # of spaces, beside the modalities


def leaks(results: Results, look: Mapping[str, Mark]) -> Iterator[Figure]:
    """Every privacy test of every density, in data space, in the space of codes, and in each modality."""
    rows = [row for row in results.rows if row.scores.get("privacy", {}).get("spaces")]
    compared = {space for row in rows for space in row.scores["privacy"]["spaces"]}
    spaces = [*(name for name in NAMES if name in compared), *sorted(compared - NAMES.keys())]

    def by_space(row: Row, test: str) -> dict[str, Estimate]:
        return {space: row.estimate("privacy", "spaces", space, test) or MISSING for space in spaces}

    found = {test: {row: by_space(row, test) for row in rows} for test in TESTS}
    for test, key in FRESH.items():
        fresh = by_space(rows[0], key) if rows else {}
        if any(estimate is not MISSING for estimate in fresh.values()):
            found[test] = {results.row("real"): fresh} | found[test]
    known = {
        (test, row, space): estimate
        for test, values in found.items()
        for row, estimates in values.items()
        for space, estimate in estimates.items()
        if estimate is not MISSING
    }
    shown = {test: found[test] for test in dict.fromkeys(test for test, _, _ in known)}
    if not shown:
        return
    panels = [
        drawing.grouped(
            TESTS[test].heading,
            [NAMES.get(space, space) for space in spaces],
            values,
            look,
            TESTS[test].expected,
            LIMITS.get(test),
        )
        for test, values in shown.items()
    ]
    yield Figure(
        "privacy",
        "Tests for leaks, by the space in which rows are compared",
        "; ".join(
            f"{test.replace('_', ' ')} of {row.title}: {drawing.said(estimates)}"
            for test, values in shown.items()
            for row, estimates in values.items()
        ),
        *drawing.tabled(
            ("test", "row", "space"), {(test, row.title, space): e for (test, row, space), e in known.items()}
        ),
        drawing.with_legend(panels, drawing.marked((row for values in shown.values() for row in values), look)),
        height=drawing.height_of_groups(spaces, len(rows)),
        columns=max(len(panels), 2),
        aligned=True,
        across=("space",),
        about=(
            "The attack tells training rows from held-out ones by how dense the synthetic rows lie about them. A "
            "distance ratio of 1 says that samples come as near to training rows as held-out rows do; samples are as "
            "authentic as they should be where held-out rows are no more so."
        ),
    )
