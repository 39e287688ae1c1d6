"""Figures of the report: drawn in light and dark mode, with a table of their numbers and an alternative text."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.report.rows import INTERVAL
from postprior.pipelines.report.wording import as_text, listed, with_interval
from postprior.pipelines.texts import escape_controls, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

MAX_LINES = 24  # the page shows no longer table of a curve or a point cloud
WIDTH = 4.4  # inches, of a figure of one panel; the page shows 80 pixels per inch, so fonts have the size of its text
WIDE = 9.1  # inches, of a figure of several panels
NARROW = 3.8  # inches, of a figure of several panels on a phone
DPI = 160
FONT = "DejaVu Sans"  # comes with matplotlib
LONGEST_NAME = 32  # characters of a name in a figure
PALETTE = 256  # colours of a PNG file, including the smoothed edges


@dataclass(frozen=True)
class Theme:
    """Colours of the text, secondary text, grid lines and the background."""

    ink: str
    muted: str
    grid: str
    paper: str


LIGHT = Theme("#1c1d21", "#63656d", "#e4e5ea", "#ffffff")
DARK = Theme("#ececf0", "#a2a4ad", "#34363d", "#1a1b1f")
INK, MUTED, GRID = LIGHT.ink, LIGHT.muted, LIGHT.grid  # figures are drawn in these, on a transparent background
NEUTRAL, COLOURED = 14, 60  # ranges of red, green and blue up to which a colour is a grey, and from which it is none


@dataclass(frozen=True)
class Mark:
    """Colour and shape of a row of the leaderboard in all figures."""

    colour: str
    shape: str


# Okabe & Ito's colours, which people with colour blindness can distinguish; each row also has its own shape.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SHAPES = ("o", "^", "D", "v", "P", "X", "<", "*", ">", "h", "d", "8")
BASELINE_MARKS = {
    "real": Mark(MUTED, "s"),
    "reconstruction": Mark(MUTED, "p"),
    "normal": Mark(MUTED, "x"),
    "posterior": Mark(MUTED, "x"),
    "gaussian_copula": Mark(MUTED, "H"),
    "independent_columns": Mark(MUTED, "1"),
}


def density_mark(number: int) -> Mark:
    """Return the mark of a number; the first 72 numbers have different marks."""
    shape, turn = number % len(SHAPES), number // len(SHAPES)
    return Mark(COLOURS[(number + turn) % len(COLOURS)], SHAPES[shape])


Panel = Callable[["Axes"], None]
"""Draws numbers on axes."""


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
        """Whether the figure takes the full width of a wide page: several panels stand side by side."""
        return min(self.columns, len(self.panels)) > 1

    def pngs(self, narrow: bool = False) -> tuple[bytes, bytes]:
        """Draw the figure as PNG in the light and in the dark theme.

        The same numbers give the same bytes, since no date or program is stored.
        """
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        columns = 1 if narrow else min(self.columns, len(self.panels))
        lines = math.ceil(len(self.panels) / columns)
        size = (NARROW if narrow else WIDTH if columns == 1 else WIDE, self.height * lines)
        with rc_context(STYLE):
            canvas = Canvas(figsize=size, dpi=DPI, layout="constrained")
            renderer = FigureCanvasAgg(canvas)
            axes = canvas.subplots(lines, columns, sharey="row" if self.aligned else False, squeeze=False)
            for panel, panel_axes in zip(self.panels, axes.flat, strict=False):
                panel(panel_axes)
            for unused in axes.flat[len(self.panels) :]:
                unused.remove()
            renderer.draw()
            return _pngs(np.asarray(renderer.buffer_rgba()))


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


def _pngs(pixels: Bytes) -> tuple[bytes, bytes]:
    """Encode pixels (H, W, 4) as small PNG files on light and dark paper.

    The most frequent colours are kept, others become the nearest of these.
    """
    packed, (height, width) = pixels.view(np.uint32)[..., 0], pixels.shape[:2]
    inked = pixels[..., 3] > 0  # few pixels, so that sorting them takes little time
    found, places, counts = np.unique(packed[inked], return_inverse=True, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[: PALETTE - 1]
    colours = found.view(np.uint8).reshape(-1, 4).astype(float)
    light, dark = (_on_paper(colours, theme) for theme in (LIGHT, DARK))
    both = np.concatenate([light, dark], 1)
    nearest = ((both[:, None] - both[frequent]) ** 2).sum(2).argmin(1).astype(np.uint8)
    indices = np.full((height, width), len(frequent), np.uint8)
    indices[inked] = nearest[places]
    images = [_png(indices, [*side[frequent], _rgb(theme.paper)]) for side, theme in ((light, LIGHT), (dark, DARK))]
    return images[0], images[1]


def _on_paper(colours: Floats, theme: Theme) -> Floats:
    """Return red, green and blue (n, 3) of colours (n, 4) of a figure in a theme, whose paper shows through them."""
    opacity = colours[:, 3:] / 255
    return opacity * _in_theme(colours[:, :3], theme) + (1 - opacity) * _rgb(theme.paper)


def _in_theme(colours: Floats, theme: Theme) -> Floats:
    """Return colours (n, 3) of a figure in a theme: greys become those of the theme, other colours do not change."""
    known, wanted = (np.array([_rgb(value) for value in astuple(each)]) for each in (LIGHT, theme))
    grey = np.stack([np.interp(colours[:, c], known[:, c], wanted[:, c]) for c in range(3)], 1)
    saturation = (np.ptp(colours, axis=1, keepdims=True) - NEUTRAL) / (COLOURED - NEUTRAL)
    return grey + saturation.clip(0, 1) * (colours - grey)


def _rgb(colour: str) -> Floats:
    """Return red, green and blue of a colour such as #1c1d21, from 0 to 255."""
    return np.array([*bytes.fromhex(colour[1:])], float)


def _png(indices: Bytes, palette: Sequence[Floats]) -> bytes:
    """Encode an image (H, W) of indices of a palette of red, green and blue as PNG."""
    from PIL import Image

    picture = Image.fromarray(indices)
    picture.putpalette(np.rint(palette).astype(np.uint8).tobytes())
    content = io.BytesIO()
    picture.save(content, format="PNG", dpi=(DPI, DPI))  # optimised, it takes six times as long and is 5 % smaller
    return content.getvalue()


STYLE: dict[Any, Any] = {
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titley": 1.0,  # its own place; else, it is computed again and again
    "figure.facecolor": "none",
    "font.family": [FONT],
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # a $ in a name is no formula
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": INK,
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
