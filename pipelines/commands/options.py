"""What several commands share: options, and how they are read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postprior.pipelines.errors import UserError

if TYPE_CHECKING:
    from postprior.pipelines.settings.params import Params

DEFAULT = Path("params.yaml")
ParamsFile = Annotated[Path, typer.Option("--params", help="The settings; their folder is the project's root.")]
DensityName = Annotated[str, typer.Argument(metavar="NAME", help="A density of params.yaml.")]
NameOrNone = Annotated[str | None, typer.Argument(metavar="NAME", help="A density of params.yaml.")]
LabelCounts = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="LABEL=COUNT", help="So many of a label; repeatable, in place of --samples."),
]
Samples = Annotated[int | None, typer.Option(help="How many samples.")]
Seed = Annotated[int | None, typer.Option(help="Another seed draws another set.")]
Temperature = Annotated[
    float | None, typer.Option(help="Of the noise of the density, 1 at most: below 1, more typical draws.")
]
Truncation = Annotated[
    float | None, typer.Option(help="Draw again what is less likely than this share of held-out codes.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
Values = Annotated[str | None, typer.Option(help="mean of the decoders, counts rounded, or draws.")]


def load(path: Path) -> tuple[Params, Path]:
    """The settings, and the root of their project."""
    from postprior.pipelines.settings.checks import load_params

    root = path.resolve().parent
    sys.path.append(str(root))  # networks of the user's own, by import path, may lie in the project
    return load_params(path), root


def parse_pairs(
    option: str,
    given: Iterable[str] | None,
    form: str,
    example: str,
    cut: Callable[[str, str], tuple[str, str, str]] = str.rpartition,
    valid: Callable[[str], bool] = bool,
) -> dict[str, str]:
    """Values by name from arguments that are written in a form such as NAME=VALUE."""
    found: dict[str, str] = {}
    for text in given or ():
        name, _, value = cut(text, "=")
        if not name or not valid(value):
            raise UserError(f"{option}: found '{text}', expected {form}, such as {option} {example}")
        if name in found:
            what = form.partition("=")[0].lower()
            raise UserError(f"{option}: found '{name}' twice, expected each {what} once")
        found[name] = value
    return found


def label_counts(given: list[str] | None) -> dict[str, int] | None:
    """Counts by label, if there are any."""
    counts = parse_pairs("--label", given, "LABEL=COUNT", "7=200", valid=str.isdecimal)
    return {label: int(count) for label, count in counts.items()} or None


def check_name(name: str | None, flag: bool, option: str) -> None:
    """Refuse the name of a density beside the option that stands in its place, and neither of them."""
    if (name is None) != flag:
        found = "neither" if name is None else f"'{name}' beside it"
        raise UserError(f"{option}: found {found}, expected the name of a density or {option}")
