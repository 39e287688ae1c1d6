"""Figures on the question whether synthetic data leaks its training rows."""

from collections.abc import Iterator, Mapping

from postprior.pipelines.metrics.registry import ATTACKS, of_family
from postprior.pipelines.report.figures import Figure, Mark, numbered
from postprior.pipelines.report.plots import drawing
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import MISSING, Estimate, Row, estimates

FRESH = {"authenticity": "authenticity_fresh"}  # tests with the key of their value for held-out rows
RISKS = {key: metric for key, metric in of_family("privacy").items() if metric.place[:-1] == ATTACKS}
TESTS = {key: metric for key, metric in of_family("privacy").items() if key not in {*FRESH.values(), *RISKS}}
LIMITS = {"membership_auc": (0.3, 1.02), "authenticity": (-0.03, 1.03)}
WIDTH = 0.05  # the axis of the risks is at least from minus this to twice this, so that noise does not look large
SPACES = {"joint": "all together", "codes": "codes"}  # names of spaces other than single modalities


def leaks(results: Results, look: Mapping[str, Mark]) -> Iterator[Figure]:
    """Yield the figures of the privacy tests, and of the attacks on single people."""
    yield from _tests(results, look)
    yield from _risks(results, look)


def _risks(results: Results, look: Mapping[str, Mark]) -> Iterator[Figure]:
    """Yield one figure: the risk of each attack on single people for each density."""
    found = {key: estimates(results.densities, *metric.keys) for key, metric in RISKS.items()}
    rows = [row for row in results.densities if any(row in risks for risks in found.values())]
    if not rows:
        return
    shown = [risk for risks in found.values() for risk in risks.values()]
    ends = [end for risk in shown for end in drawing.fields(risk) if end is not None]
    limits = 1.05 * min(-WIDTH, *ends), 1.05 * max(2 * WIDTH, *ends)
    panels = [
        drawing.DotPanel(
            (key,),
            RISKS[key].heading,
            {row.title: risk for row, risk in risks.items()},
            f"{RISKS[key].title} (0 without a leak)",
            limits=limits,
            reference_line=RISKS[key].expected,
        )
        for key, risks in found.items()
        if risks
    ]
    yield drawing.dotted(
        "attacks",
        "Attacks on single people",
        ("attack", "row"),
        panels,
        drawing.marked(rows, look),
        columns=2,
        names={"attack": {key: metric.title for key, metric in RISKS.items()}},
        about=(
            "The risk is the share of the attacker's wrong guesses that become right because the person was in the "
            "training data: 0 (dashed) without a leak, 1 if samples are copies. Inference: an unknown attribute. "
            "Linkability: two partial records of one person. Singling out: attributes that one person alone has. "
            f"{drawing.INTERVALS}"
        ),
    )


def _tests(results: Results, look: Mapping[str, Mark]) -> Iterator[Figure]:
    """Yield one figure: each privacy test of each density, over all modalities, on codes and in each modality."""
    rows = [row for row in results.rows if row.scores.get("privacy", {}).get("spaces")]
    tested = {space for row in rows for space in row.scores["privacy"]["spaces"]}
    spaces = [*(name for name in SPACES if name in tested), *sorted(tested - SPACES.keys())]

    def by_space(row: Row, test: str) -> dict[str, Estimate]:
        return {space: row.estimate("privacy", "spaces", space, test) or MISSING for space in spaces}

    values = {test: {row: by_space(row, test) for row in rows} for test in TESTS}
    for test, key in FRESH.items():
        fresh = by_space(rows[0], key) if rows else {}
        if any(estimate is not MISSING for estimate in fresh.values()):
            values[test] = {results.row("real"): fresh} | values[test]
    cells = {
        (test, row, space): estimate
        for test, by_row in values.items()
        for row, of_row in by_row.items()
        for space, estimate in of_row.items()
        if estimate is not MISSING
    }
    shown = {test: values[test] for test in dict.fromkeys(test for test, _, _ in cells)}
    if not shown:
        return
    panels = [
        drawing.grouped(
            TESTS[test].heading,
            [SPACES.get(space, space) for space in spaces],
            by_row,
            look,
            TESTS[test].expected,
            LIMITS.get(test),
        )
        for test, by_row in shown.items()
    ]
    yield Figure(
        "privacy",
        "Privacy tests, by the space in which rows are compared",
        "; ".join(
            f"{TESTS[test].title} of {row.title}: {drawing.values_as_text(of_row)}"
            for test, by_row in shown.items()
            for row, of_row in by_row.items()
        ),
        *drawing.tabled(
            ("test", "row", "space"), {(test, row.title, space): e for (test, row, space), e in cells.items()}
        ),
        drawing.with_legend(panels, drawing.marked((row for by_row in shown.values() for row in by_row), look)),
        height=drawing.height_of_groups(spaces, len(rows)),
        columns=max(len(panels), 2),
        aligned=True,
        across=("space",),
        names={
            "test": {test: metric.title for test, metric in TESTS.items()},
            "space": {space: space for space in spaces} | SPACES,
        },
        about=(
            "The dashed line is the value without a leak. Attack AUC: how well an attacker distinguishes training rows "
            "from held-out rows by the density of synthetic rows around them. Distance ratio: 1 if samples are as near "
            "to training rows as held-out rows are. Authenticity should not be lower than that of held-out rows. "
            f"{drawing.INTERVALS}{numbered(SPACES.get(space, space) for space in spaces)}"
        ),
    )
