"""Tables of the page about cells: values that real rows cannot have, and rows in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from postprior.pipelines.report.cells import REAL, Cells, Examples
from postprior.pipelines.report.wording import percent
from postprior.pipelines.texts import shortened

MOST = 15  # lines of the table of invalid values
LONGEST = 40  # characters of a cell
HELD_OUT = "real"  # the row of the leaderboard whose validity stands in the column of real rows


@dataclass(frozen=True)
class Checks:
    """Shares of invalid cells by column and of rows that violate a constraint, and a sentence on all others."""

    header: tuple[str, ...]
    lines: Sequence[Sequence[str]]
    sentence: str


@dataclass(frozen=True)
class Sheet:
    """Rows in full, as lines of the page: the name of a column, its cells in real rows and those of a density."""

    density: str
    counts: tuple[int, int]  # real and synthetic rows
    lines: Sequence[tuple[str, Sequence[str | None]]]
    others: Mapping[str, Sequence[Sequence[str]]]  # lines by further density
    left_out: int


def checks(cells: Cells) -> Checks | None:
    """Return what violates the ranges, categories and constraints of real data; None if nothing was checked."""
    sets = (REAL, *cells.densities)
    found: dict[str, Mapping[str, float]] = {}
    for column in cells.columns:
        if column.invalid:
            found[column.title] = {name: column.invalid.get(HELD_OUT if name == REAL else name, 0.0) for name in sets}
    ranges = len(found)
    found |= cells.constraints
    if not found:
        return None
    broken = {text: shares for text, shares in found.items() if any(shares[name] for name in cells.densities)}
    order = sorted(broken, key=lambda text: -max(broken[text][name] for name in cells.densities))
    lines = [(shortened(text, 2 * LONGEST), *(percent(broken[text][name]) for name in sets)) for text in order[:MOST]]
    checked = [_counted(number, noun) for number, noun in ((ranges, "column"), (len(cells.constraints), "constraint"))]
    every, what = " and ".join(filter(None, checked)), "outside the range or the categories of the training rows"
    sentence = f"{every}: no synthetic row has a value {what}{', or violates one' if cells.constraints else ''}."
    if broken:
        sentence = f"In {len(broken)} of {every}, synthetic rows have values {what}, or violate the constraint."
        sentence += " Shares of cells or rows, the largest first; real held-out rows may have such values, too."
    if len(order) > MOST:
        sentence += f" The table shows the first {MOST}."
    return Checks(("Column or constraint", *sets), lines, sentence)


def sheet(examples: Examples | None, densities: Sequence[str]) -> Sheet | None:
    """Return rows in full: real ones beside those of the first density, and those of the others apart."""
    if examples is None:
        return None
    real, best = (examples.texts[name] for name in (REAL, densities[0]))
    others = {
        name: [
            [line, *("missing" if t is None else _cell(t) for t in texts)]
            for line, texts in zip(examples.lines, examples.texts[name], strict=True)
        ]
        for name in densities[1:]
    }
    lines = [
        (line, [None if text is None else _cell(text) for text in (*one, *other)])
        for line, one, other in zip(examples.lines, real, best, strict=True)
    ]
    return Sheet(densities[0], (len(real[0]), len(best[0])), lines, others, examples.left_out)


def _cell(text: str) -> str:
    return shortened(text, LONGEST)


def _counted(number: int, noun: str) -> str:
    """Return a number with its noun; an empty text for 0."""
    return f"{number} {noun}{'' if number == 1 else 's'}" if number else ""
