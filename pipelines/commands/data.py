"""Data in and out: `import`, `init` and `export`, which read no settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from postprior.pipelines.commands.running import imported, told_in_one_line
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import tell


def import_data(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Files or folders, together.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the three splits go.")],
    id: Annotated[str | None, typer.Option(help="The column that rows are matched by.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of classes.")] = None,
    group: Annotated[str | None, typer.Option(help="The column of subjects: none on two sides.")] = None,
    split: Annotated[str | None, typer.Option(help="A column that says train, validation or test.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="A covariate or target; repeatable.")] = None,
    skip: Annotated[
        list[str] | None, typer.Option(help="A column or array to leave out; repeatable.")
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=COLUMN,…", help="Columns that make a modality; repeatable."),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=KIND", help="The kind of a column or array that is recognised wrongly; repeatable."
        ),
    ] = None,
    nan_is_missing: Annotated[bool, typer.Option(help="NaN in arrays stands for missing values.")] = False,
    slices: Annotated[str | None, typer.Option(help="axial, coronal or sagittal: cut volumes.")] = None,
    like: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Rows for a model trained on this import: its scales, no split."),
    ] = None,
    validation_share: Annotated[float, typer.Option(help="Of all rows, or subjects.")] = 0.1,
    test_share: Annotated[float, typer.Option(help="Of all rows, or subjects.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
) -> None:
    """The command of `import`, which reads no settings."""
    with told_in_one_line():
        roles = imported("data.formats.found", "Roles")(
            *(id, label, group, split, tuple(target or ()), tuple(skip or ())),
            modalities={
                name: tuple(columns.split(",")) for name, columns in _pairs("modality", modality).items()
            },
            kinds=_pairs("kind", kind),
            nan_is_missing=nan_is_missing,
            slices=slices,
        )
        if like is not None:
            tell(*imported("data.importing.rows", "import_rows")(sources, folder, roles, like))
            return
        shares = (validation_share, test_share)
        tell(*imported("data.importing.run", "import_data")(sources, folder, roles, shares, seed))


def init(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder of the project.")],
    data: Annotated[Path, typer.Option("--from", metavar="FOLDER", help="What postprior import made.")],
) -> None:
    """The command of `init`, which reads no settings."""
    with told_in_one_line():
        tell(*imported("api.init", "init")(project, data))


def export(
    folder: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the files go.")],
    format: Annotated[
        str | None,
        typer.Option(help="csv, parquet, npz or images; what each modality came from if not given."),
    ] = None,
    excel_safe: Annotated[
        bool,
        typer.Option(
            "--excel-safe", help="Put ' before texts that were generated or filled in and look like formulas."
        ),
    ] = False,
) -> None:
    """The command of `export`, which reads no settings."""
    with told_in_one_line():
        tell(*imported("data.export", "export")(folder, out, format, excel_safe))


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """Names and values from NAME=VALUE arguments."""
    pairs: dict[str, str] = {}
    for text in given or ():
        name, _, value = text.rpartition("=")
        if not name or not value:
            raise UserError(
                f"--{option}: found '{text}', expected NAME=VALUE, such as --{option} age=numeric"
            )
        if name in pairs:
            raise UserError(f"--{option}: found {name} twice, expected each name once; put them together")
        pairs[name] = value
    return pairs
