"""A figure that can be drawn in light and in dark, with the table behind it and words for those who cannot see it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.report.rows import INTERVAL
from postprior.pipelines.report.wording import text, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 24  # of a curve or a cloud; a longer one stands beside the page alone
WIDTH = 4.4  # inches; shown at 80 dots a CSS inch, so that the type has the page's size
WIDE = 9.1  # of figures of several panels, on a page that is wide itself
NARROW = 3.8  # of the same on a telephone
DPI = 160
COLOURS_KEPT = 128  # of a picture: what figures are made of, with their soft edges
PACK = np.array([1, 256, 65536], np.uint32)  # red, green and blue in one number


@dataclass(frozen=True)
class Theme:
    """Colours of the paper, the ink and whatever stands back."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str


LIGHT = Theme("light", "#ffffff", "#1c1d21", "#63656d", "#e4e5ea")
DARK = Theme("dark", "#1a1b1f", "#ececf0", "#a2a4ad", "#34363d")


@dataclass(frozen=True)
class Mark:
    """How a row of the leaderboard looks in every figure; no colour stands for the theme's own muted one."""

    colour: str | None
    shape: str

    def colour_in(self, theme: Theme) -> str:
        """The colour under a theme."""
        return self.colour or theme.muted


# Okabe & Ito's colours, told apart by all kinds of sight; each row also has a shape of its own.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SHAPES = ("o", "^", "D", "v", "P", "X", "<", "*", ">", "h", "d", "8")
OTHER_MARKS = {
    "real": Mark(None, "s"),
    "reconstruction": Mark(None, "p"),
    "normal": Mark(None, "x"),
    "posterior": Mark(None, "x"),
}


def density_mark(number: int) -> Mark:
    """A mark of its own for each of 72 numbers."""
    shape, turn = number % len(SHAPES), number // len(SHAPES)
    return Mark(COLOURS[(number + turn) % len(COLOURS)], SHAPES[shape])


Panel = Callable[["Axes", Theme], None]
"""Puts numbers on axes under a theme."""


@dataclass(frozen=True)
class Figure:
    """A figure of the report."""

    name: str  # of its files
    title: str  # what the page sets above it
    alt: str  # what it shows, for those who cannot see it
    header: tuple[str, ...]  # names of the columns of its table
    table: Sequence[Sequence[Any]]  # the numbers behind it
    panels: Sequence[Panel]  # what it draws, side by side; one beneath the other on a narrow page
    height: float = 3.0  # of a panel, in inches
    columns: int = 1  # panels side by side at most
    aligned: bool = False  # whether panels share their vertical axis
    about: str = ""  # a sentence on how to read it
    across: tuple[str, ...] = ()  # columns of its table whose values the page sets side by side

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width of a wide page."""
        return self.columns > 1

    def png(self, theme: Theme, narrow: bool = False) -> bytes:
        """The figure as PNG; the same numbers give the same bytes, for nothing names a date or a program."""
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        columns = 1 if narrow else min(self.columns, len(self.panels))
        lines = math.ceil(len(self.panels) / columns)
        size = (NARROW if narrow else WIDTH if columns == 1 else WIDE, self.height * lines)
        with rc_context(_style(theme)):
            canvas = Canvas(figsize=size, dpi=DPI, layout="constrained")
            drawn = FigureCanvasAgg(canvas)
            axes = canvas.subplots(lines, columns, sharey="row" if self.aligned else False, squeeze=False)
            for panel, place in zip(self.panels, axes.flat, strict=False):
                panel(place, theme)
            for place in axes.flat[len(self.panels) :]:
                place.remove()
            drawn.draw()
            return _png(drawn.buffer_rgba())


def _png(pixels: Any) -> bytes:
    """A picture of few colours as a small file: the commonest stay as they are, others become the nearest of these."""
    from PIL import Image

    values = np.asarray(pixels)[..., :3].astype(np.uint32)
    packed, places, counts = np.unique(values @ PACK, return_inverse=True, return_counts=True)
    kept = packed[np.argsort(-counts, kind="stable")[:COLOURS_KEPT]]
    colours, palette = ((found[:, None] // PACK % 256).astype(float) for found in (packed, kept))
    nearest = ((colours[:, None] - palette) ** 2).sum(2).argmin(1).astype(np.uint8)
    picture = Image.fromarray(nearest[places].reshape(values.shape[:2]))
    picture.putpalette(palette.astype(np.uint8).tobytes())
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True, dpi=(DPI, DPI))
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
        "figure.facecolor": theme.paper,
        "font.family": ["DejaVu Sans"],
        "font.size": 8.5,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "savefig.facecolor": theme.paper,
        "text.color": theme.ink,
        "text.parse_math": False,  # a $ in a name is a $
        "xtick.color": theme.grid,
        "xtick.labelcolor": theme.muted,
        "ytick.color": theme.grid,
        "ytick.labelcolor": theme.ink,
    }


def readable(figure: Figure) -> tuple[list[str], list[list[str]]] | None:
    """Header and lines of its table for readers; None for curves and clouds of more points than one reads."""
    keys = [name for name in figure.header if name not in INTERVAL]
    if len(keys) == len(figure.header):
        many = len(figure.table) > MOST_LINES
        return None if many else ([*map(text, keys)], [[*map(text, told)] for told in figure.table])
    # lines that differ in the keys `across` alone are put side by side
    places = [figure.header.index(key) for key in keys if key not in figure.across]
    turned = [figure.header.index(key) for key in keys if key in figure.across]
    value = figure.header.index(INTERVAL[0])
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    titles: dict[str, None] = {}
    for told in figure.table:
        title = ", ".join(text(told[place]) for place in turned) or INTERVAL[0]
        titles[title] = None
        written = with_interval(text, *told[value : value + len(INTERVAL)])
        cells.setdefault(tuple(text(told[place]) for place in places), {})[title] = written
    lines = [[*line, *(found.get(title, "–") for title in titles)] for line, found in cells.items()]
    return [text(name) for name in (*(figure.header[place] for place in places), *titles)], lines
