"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from postprior.pipelines.errors import UserError

DEFAULT = Path("params.yaml")
ParamsFile = Annotated[
    Path, typer.Option("--params", help="The settings; their folder is the project's root.")
]
DensityName = Annotated[str, typer.Argument(metavar="NAME", help="A density of params.yaml.")]
LabelCounts = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="LABEL=COUNT", help="So many of a label; repeatable, in place of --samples."
    ),
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


def label_counts(given: list[str] | None) -> dict[str, int] | None:
    """Counts by label from `LABEL=COUNT` arguments, if there are any."""
    if not given:
        return None
    counts: dict[str, int] = {}
    for text in given:
        name, _, count = text.rpartition("=")
        if not name or not count.isdecimal():
            raise UserError(f"--label: found '{text}', expected LABEL=COUNT, such as --label 7=200")
        if name in counts:
            raise UserError(f"--label: found '{name}' twice, expected each label once")
        counts[name] = int(count)
    return counts
