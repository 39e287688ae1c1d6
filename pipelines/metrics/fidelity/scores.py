"""Every distance and share between two sets of features, in one space: those of the registry."""

from importlib import import_module

from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.registry import of_family
from postprior.pipelines.metrics.statistics.intervals import FEWEST, Scores, unscored

KNOWN = of_family("fidelity")
JOINT = {key for key in KNOWN if f"joint_{key}" in KNOWN}
"""Scores whose value is the mean of the modalities; that of whole tuples is "joint_<score>"."""
FILES = {key: metric.file for key, metric in KNOWN.items() if metric.about and not key.startswith("joint_")}
"""The file of each score."""


def fidelity(real: Space, fake: Space) -> Scores:
    """Scores of fake rows against real ones in one space, by name."""
    if few := unscored(min(len(real), len(fake))):
        return dict.fromkeys(FILES, few)
    found: Scores = {}
    for file in dict.fromkeys(FILES.values()):
        found |= import_module(f"postprior.pipelines.metrics.{file.replace('/', '.')}").scores(real, fake)
    return found


def cautions(spaces: dict[str, int], rows: int) -> list[str]:
    """What to know before reading the scores of so many rows, a sentence for each space that is too wide for them.

    `spaces` are numbers of features by name. Too few rows to score need no caution.
    """
    told: list[str] = []
    if rows < FEWEST:
        return told
    for name, width in spaces.items():
        if rows <= 2 * width:
            singular = "the rows" if rows <= width else "half of them, as behind the intervals,"
            told.append(
                f"{name}: {rows} rows against {width} features. Covariances of {singular} are singular and Frechet "
                "distances far above those of more rows: compare them at equal numbers of rows, or kernel distances."
            )
    return told
