"""The stages of the pipeline that take settings, names of densities and little else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from postprior.pipelines.commands.options import DEFAULT, DensityName, ParamsFile
from postprior.pipelines.commands.running import imported, load, told_in_one_line
from postprior.pipelines.errors import UserError


def of_settings(stage: str, check: str | None = None) -> Callable[..., None]:
    """The command of a stage that takes nothing but the settings, after a check of params.yaml."""

    def command(params: ParamsFile = DEFAULT) -> None:
        with told_in_one_line():
            settings, root = load(params)
            if check:
                imported("data.sources", check)(settings)
            imported(f"{'api' if stage == 'track' else 'stages'}.{stage}", stage)(settings, root)

    return command


def of_density(stage: str) -> Callable[..., None]:
    """The command of a stage that takes the settings and the name of a density."""

    def command(name: DensityName, params: ParamsFile = DEFAULT) -> None:
        with told_in_one_line():
            settings, root = load(params)
            imported(f"stages.{stage}", stage)(name, settings, root)

    return command


def fit(
    name: DensityName,
    params: ParamsFile = DEFAULT,
    codes: Annotated[
        Path | None, typer.Option(help="Codes of one's own: a code folder, or an .npz of means and scales.")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="With --codes: other rows, to choose by.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --codes: the folder of the density.")] = None,
) -> None:
    """The command of `fit`: the stage, or with --codes a fit that needs no project."""
    with told_in_one_line():
        if codes is not None:
            alone = params == DEFAULT and not params.exists()
            settings, root = (None, Path()) if alone else load(params)
            imported("stages.fit", "fit_codes")(name, settings, root, codes, validation, out)
            return
        if validation or out:
            raise UserError("--validation and --out: found without --codes, expected --codes with them")
        settings, root = load(params)
        imported("settings.params", "check_density")(settings, name)
        imported("stages.fit", "fit")(name, settings, root)


def augment(
    size: Annotated[str, typer.Argument(metavar="SIZE", help="So many training rows, or all.")],
    params: ParamsFile = DEFAULT,
    seed: Annotated[int, typer.Option(help="Another seed takes other rows.")] = 0,
) -> None:
    """The command of `augment`."""
    with told_in_one_line():
        settings, root = load(params)
        imported("settings.params", "check_density")(settings, settings.augment.density)
        imported("stages.augment", "augment")(size, settings, root, seed)


def compare(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Densities; those of params.yaml if none.")
    ] = None,
    params: ParamsFile = DEFAULT,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="LABEL=SOURCE",
            help="More results under a label: the folder of a project, a revision, a DVC experiment; repeatable.",
        ),
    ] = None,
) -> None:
    """The command of `compare`."""
    with told_in_one_line():
        settings, root = load(params)
        imported("stages.compare", "compare")(settings, root, names or (), _sources(others))


def _sources(given: list[str] | None) -> dict[str, str]:
    """Sources by label from `LABEL=SOURCE` arguments."""
    sources: dict[str, str] = {}
    for text in given or ():
        label, _, source = text.partition("=")
        if not label or not source:
            raise UserError(f"--with: found '{text}', expected LABEL=SOURCE, such as --with mopoe=../mopoe")
        if label in sources:
            raise UserError(f"--with: found the label '{label}' twice, expected each once; choose another")
        sources[label] = source
    return sources
