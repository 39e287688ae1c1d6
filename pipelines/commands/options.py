"""Options that several commands share, and functions that parse options."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from postprior.pipelines import ranks
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import is_count

if TYPE_CHECKING:
    from postprior.pipelines.settings.params import Params

DEFAULT = Path("params.yaml")
ParamsFile = Annotated[Path, typer.Option("--params", help="File of settings; its folder is the root of the project.")]
DensityName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a density in params.yaml.")]
NameOrNone = Annotated[str | None, typer.Argument(metavar="NAME", help="Name of a density in params.yaml.")]
LabelCounts = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="LABEL=COUNT", help="Draw COUNT samples of LABEL; repeatable, replaces --samples."),
]
Id = Annotated[str | None, typer.Option(help="The column whose ids match the rows of several sources.")]
Label = Annotated[str | None, typer.Option(help="The column that holds the class labels.")]
Group = Annotated[str | None, typer.Option(help="The column of subjects; all rows of a subject go into one split.")]
Target = Annotated[list[str] | None, typer.Option(help="A column that is a covariate or target; repeatable.")]
Skip = Annotated[list[str] | None, typer.Option(help="A column or array to leave out; repeatable.")]
Profile = Annotated[
    Literal["quick", "full"],
    typer.Option(help="full computes more for each score than quick: its intervals are more exact, and it is slower."),
]
Samples = Annotated[int | None, typer.Option(help="Number of samples.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the random draws.")]
Temperature = Annotated[
    float | None,
    typer.Option(help="Temperature of the density's noise, above 0 and at most 1; below 1, samples are less varied."),
]
Truncation = Annotated[
    float | None,
    typer.Option(help="Redraw codes less likely than this quantile of held-out codes; at least 0 and below 1."),
]
Complete = Annotated[
    bool | None,
    typer.Option(
        "--complete/--incomplete",
        help="Draw all values, or leave out modalities and cells as often as the data lack them.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
Values = Annotated[
    str | None,
    typer.Option(
        help="`mean` of the decoders, `draws` from their likelihoods, `auto`: draws of tables and vectors, means of "
        "other modalities, or `refined`: images and volumes are drawn by the refiner."
    ),
]


def load(path: Path) -> tuple[Params, Path]:
    """Load the settings, and return them with the root of their project."""
    from postprior.pipelines.settings.checks import load_params

    root = path.resolve().parent
    sys.path.append(str(root))  # user-defined networks, given by import path, may lie in the project
    if ranks.size() > 1:
        ranks.meet()  # before anything can fail, so that one of them tells
    return load_params(path), root


def load_tracked(path: Path) -> tuple[Params, Path]:
    """Load the settings as `load` does, for a command that logs one run to MLflow.

    A worker imports MLflow while the command imports torch.
    """
    settings, root = load(path)
    from postprior.pipelines.tracking import client, runs

    uri = client.address(root)
    if ranks.number() > 0 or (uri is not None and client.has_failed(uri, root)):
        os.environ["MLFLOW_TRACKING_URI"] = "off"
    elif uri is not None:
        from postprior.pipelines.tracking.worker import RemoteRun

        runs.started = RemoteRun()
    return settings, root


def parse_pairs(
    option: str,
    arguments: Iterable[str] | None,
    form: str,
    example: str,
    cut: Callable[[str, str], tuple[str, str, str]] = str.rpartition,
    valid: Callable[[str], bool] = bool,
) -> dict[str, str]:
    """Parse arguments of a form such as NAME=VALUE to a dictionary of values by name."""
    values: dict[str, str] = {}
    for text in arguments or ():
        name, _, value = cut(text, "=")
        if not name or not valid(value):
            raise UserError(f"{option}: found '{text}', expected {form}, such as {option} {example}")
        if name in values:
            what = form.partition("=")[0].lower()
            raise UserError(f"{option}: found '{name}' twice, expected each {what} once")
        values[name] = value
    return values


def label_counts(arguments: list[str] | None) -> dict[str, int] | None:
    """Parse the values of --label to counts by label, or None if there are none."""
    counts = parse_pairs("--label", arguments, "LABEL=COUNT", "7=200", valid=is_count)
    return {label: int(count) for label, count in counts.items()} or None


def check_unused(reason: str, **options: object) -> None:
    """Raise a UserError for the first option that is given, because another option leaves nothing for it to do."""
    for name, value in options.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option}: {value} found together with {reason}; leave {option} out")


def check_name(name: str | None, flag: bool, option: str) -> None:
    """Raise a UserError unless there is either the name of a density or the option that replaces it."""
    if (name is None) != flag:
        found = (
            f"neither the name of a density nor {option}" if name is None else f"both the name '{name}' and {option}"
        )
        raise UserError(f"{option}: found {found}, expected one of them")
