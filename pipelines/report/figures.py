"""Figures of the report: drawn in light and dark mode, with a table of their numbers and an alternative text."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.report.rows import INTERVAL
from postprior.pipelines.report.wording import as_text, listed, with_interval
from postprior.pipelines.texts import escape_controls, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

MAX_LINES = 24  # the page shows no longer table of a curve or a point cloud
WIDTH = 4.4  # inches, of a figure of one panel; the page shows 80 pixels per inch, so fonts have the size of its text
WIDE = 9.1  # inches, of a figure of several panels
NARROW = 3.8  # inches, of a figure of several panels on a phone
DPI = 160
FONT = "DejaVu Sans"  # comes with matplotlib
LONGEST_NAME = 32  # characters of a name in a figure
PALETTE = 128  # colours of a PNG file, including the smoothed edges
PACK = np.array([1, 256, 65536], np.uint32)  # packs red, green and blue into one number


@dataclass(frozen=True)
class Theme:
    """Colours of the background, the text, secondary text and grid lines."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str


LIGHT = Theme("light", "#ffffff", "#1c1d21", "#63656d", "#e4e5ea")
DARK = Theme("dark", "#1a1b1f", "#ececf0", "#a2a4ad", "#34363d")


@dataclass(frozen=True)
class Mark:
    """Colour and shape of a row of the leaderboard in all figures; without a colour, the theme's muted one is used."""

    colour: str | None
    shape: str

    def colour_in(self, theme: Theme) -> str:
        """The colour in a theme."""
        return self.colour or theme.muted


# Okabe & Ito's colours, which people with colour blindness can distinguish; each row also has its own shape.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SHAPES = ("o", "^", "D", "v", "P", "X", "<", "*", ">", "h", "d", "8")
BASELINE_MARKS = {
    "real": Mark(None, "s"),
    "reconstruction": Mark(None, "p"),
    "normal": Mark(None, "x"),
    "posterior": Mark(None, "x"),
    "gaussian_copula": Mark(None, "H"),
    "independent_columns": Mark(None, "1"),
}


def density_mark(number: int) -> Mark:
    """Return the mark of a number; the first 72 numbers have different marks."""
    shape, turn = number % len(SHAPES), number // len(SHAPES)
    return Mark(COLOURS[(number + turn) % len(COLOURS)], SHAPES[shape])


Panel = Callable[["Axes", Theme], None]
"""Draws numbers on axes in a theme."""


@dataclass(frozen=True)
class Figure:
    """A figure of the report."""

    name: str  # name of its files
    title: str  # heading on the page
    alt: str  # alternative text
    header: tuple[str, ...]  # columns of its table
    table: Sequence[Sequence[Any]]  # its numbers
    panels: Sequence[Panel]  # side by side, or one below the other on a narrow page
    height: float = 3.0  # of each panel, in inches
    columns: int = 1  # maximum number of panels side by side
    aligned: bool = False  # whether panels share their vertical axis
    about: str = ""  # caption: what is shown and how to read it
    across: tuple[str, ...] = ()  # columns of the table whose values become columns of the table on the page
    headings: Mapping[str, str] = field(default_factory=dict)  # headings of columns on the page; others are their names
    names: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)  # names of a column's values on the page

    @property
    def wide(self) -> bool:
        """Whether the figure takes the full width of a wide page."""
        return self.columns > 1

    def pngs(self, narrow: bool = False) -> tuple[bytes, bytes]:
        """Draw the figure as PNG in the light and in the dark theme.

        The same numbers give the same bytes, since no date or program is stored. Colours do not change the layout, so
        it is computed for the first theme only.
        """
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        columns = 1 if narrow else min(self.columns, len(self.panels))
        lines = math.ceil(len(self.panels) / columns)
        size = (NARROW if narrow else WIDTH if columns == 1 else WIDE, self.height * lines)
        images: list[bytes] = []
        places: list[Bbox] = []  # of the axes
        for theme in (LIGHT, DARK):
            with rc_context(_style(theme)):
                canvas = Canvas(figsize=size, dpi=DPI, layout=None if places else "constrained")
                renderer = FigureCanvasAgg(canvas)
                axes = canvas.subplots(lines, columns, sharey="row" if self.aligned else False, squeeze=False)
                for panel, panel_axes in zip(self.panels, axes.flat, strict=False):
                    panel(panel_axes, theme)
                for unused in axes.flat[len(self.panels) :]:
                    unused.remove()
                for panel_axes, place in zip(canvas.axes, places, strict=False):
                    panel_axes.set_position(place)
                renderer.draw()
                places = [panel_axes.get_position(original=True) for panel_axes in canvas.axes]
                images.append(_png(renderer.buffer_rgba()))
        return images[0], images[1]


@cache
def _glyphs() -> frozenset[int]:
    """Return the characters that the font of the figures can draw."""
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(findfont(FONT)).get_charmap())


def drawable(names: Iterable[str]) -> dict[str, str]:
    """Return what a figure shows for names: the name, on one line and not too long, or its number.

    A name has a number if the font lacks one of its characters, as those of Chinese: see `numbered`.
    """
    shown = {name: shortened(escape_controls(name), LONGEST_NAME) for name in names}
    known = {name: not {*map(ord, text)} - _glyphs() for name, text in shown.items()}
    return {name: text if known[name] else f"no. {place}" for place, (name, text) in enumerate(shown.items(), 1)}


def numbered(names: Iterable[str]) -> str:
    """Return a sentence for the caption of a figure that says which names have which numbers; empty if none has one."""
    numbers = {number: name for name, number in drawable(names).items() if number != name and number.startswith("no. ")}
    return f" In the figure, {listed([f'{number} is {name}' for number, name in numbers.items()])}." if numbers else ""


def _png(pixels: Any) -> bytes:
    """Encode pixels as a small PNG file: the most frequent colours are kept, others become the nearest of these."""
    from PIL import Image

    values = np.asarray(pixels)[..., :3].astype(np.uint32) @ PACK
    paper = values[0, 0]
    inked = values != paper  # few pixels, so that sorting them takes little time
    packed, places, counts = np.unique(values[inked], return_inverse=True, return_counts=True)
    packed, counts = np.append(packed, paper), np.append(counts, np.count_nonzero(~inked))
    frequent = packed[np.argsort(-counts, kind="stable")[:PALETTE]]
    colours, palette = ((numbers[:, None] // PACK % 256).astype(float) for numbers in (packed, frequent))
    nearest = ((colours[:, None] - palette) ** 2).sum(2).argmin(1).astype(np.uint8)
    indices = np.full(values.shape, nearest[-1])
    indices[inked] = nearest[places]
    picture = Image.fromarray(indices)
    picture.putpalette(palette.astype(np.uint8).tobytes())
    content = io.BytesIO()
    picture.save(content, format="PNG", dpi=(DPI, DPI))  # optimised, it takes six times as long and is 5 % smaller
    return content.getvalue()


def _style(theme: Theme) -> Any:
    return {
        "axes.edgecolor": theme.grid,
        "axes.facecolor": theme.paper,
        "axes.grid": True,
        "axes.grid.axis": "x",
        "axes.axisbelow": True,
        "axes.labelcolor": theme.muted,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titley": 1.0,  # its own place; else, it is computed again and again
        "figure.facecolor": theme.paper,
        "font.family": [FONT],
        "font.size": 8.5,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "savefig.facecolor": theme.paper,
        "text.color": theme.ink,
        "text.parse_math": False,  # a $ in a name is no formula
        "xtick.color": theme.grid,
        "xtick.labelcolor": theme.muted,
        "ytick.color": theme.grid,
        "ytick.labelcolor": theme.ink,
    }


def readable(figure: Figure) -> tuple[list[str], list[list[str]]] | None:
    """Return header and lines of a figure's table for the page; None for long tables of curves and point clouds."""
    keys = [name for name in figure.header if name not in INTERVAL]
    if len(keys) == len(figure.header):
        too_long = len(figure.table) > MAX_LINES
        lines = [_named(figure, keys, line) for line in figure.table]
        return None if too_long else (_headings(figure, keys), lines)
    # Lines that differ only in the columns `across` become one line.
    row_keys, column_keys = [key for key in keys if key not in figure.across], figure.across
    row_places, column_places = ([figure.header.index(key) for key in some] for some in (row_keys, column_keys))
    first = figure.header.index(INTERVAL[0])
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    titles: dict[str, None] = {}
    for line in figure.table:
        title = ", ".join(_named(figure, column_keys, [line[place] for place in column_places])) or INTERVAL[0]
        titles[title] = None
        cell = with_interval(as_text, *line[first : first + len(INTERVAL)])
        names = _named(figure, row_keys, [line[place] for place in row_places])
        cells.setdefault(tuple(names), {})[title] = cell
    lines = [[*names, *(by_title.get(title, "–") for title in titles)] for names, by_title in cells.items()]
    return [*_headings(figure, row_keys), *titles], lines


def _headings(figure: Figure, keys: Sequence[str]) -> list[str]:
    """Return the headings of columns for the page."""
    return [figure.headings.get(key, as_text(key)) for key in keys]


def _named(figure: Figure, keys: Sequence[str], values: Sequence[Any]) -> list[str]:
    """Return the values of a line in the columns `keys` for the page."""
    return [figure.names.get(key, {}).get(value, as_text(value)) for key, value in zip(keys, values, strict=True)]
