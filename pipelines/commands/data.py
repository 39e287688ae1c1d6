"""Data in and out, and the files of a project: `import`, `init`, `upgrade` and `export`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from postprior.pipelines.commands.options import parse_pairs
from postprior.pipelines.texts import tell

app = typer.Typer()


@app.command("import")
def import_data(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Files or folders, together.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the three splits go.")],
    id: Annotated[str | None, typer.Option(help="The column that rows are matched by.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of classes.")] = None,
    group: Annotated[str | None, typer.Option(help="The column of subjects: none on two sides.")] = None,
    split: Annotated[str | None, typer.Option(help="A column that says train, validation or test.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="A covariate or target; repeatable.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="A column or array to leave out; repeatable.")] = None,
    modality: Annotated[
        list[str] | None, typer.Option(metavar="NAME=COLUMN,…", help="Columns that make a modality; repeatable.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=KIND", help="The kind of a column or array that is recognised wrongly; repeatable."),
    ] = None,
    nan_is_missing: Annotated[bool, typer.Option(help="NaN in arrays stands for missing values.")] = False,
    slices: Annotated[str | None, typer.Option(help="axial, coronal or sagittal: cut volumes.")] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Rows for a model trained on this import: its scales, no split.")
    ] = None,
    validation_share: Annotated[float, typer.Option(help="Of all rows, or subjects.")] = 0.1,
    test_share: Annotated[float, typer.Option(help="Of all rows, or subjects.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
) -> None:
    """Make dataset folders from your own files."""
    from postprior.pipelines.data.formats.contents import Roles

    columns = parse_pairs("--modality", modality, "NAME=VALUE", "age=numeric")
    roles = Roles(
        *(id, label, group, split, tuple(target or ()), tuple(skip or ())),
        modalities={name: tuple(text.split(",")) for name, text in columns.items()},
        kinds=parse_pairs("--kind", kind, "NAME=VALUE", "age=numeric"),
        nan_is_missing=nan_is_missing,
        slices=slices,
    )
    if like is not None:
        from postprior.pipelines.data.importing.rows import import_rows

        tell(*import_rows(sources, folder, roles, like))
    else:
        from postprior.pipelines.data.importing.run import import_data

        tell(*import_data(sources, folder, roles, (validation_share, test_share), seed))


@app.command()
def init(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder of the project.")],
    data: Annotated[Path, typer.Option("--from", metavar="FOLDER", help="What postprior import made.")],
) -> None:
    """Make a project from imported data."""
    from postprior.pipelines.api.init import init

    tell(*init(project, data))


@app.command()
def upgrade(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder of the project.")] = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Write without a question.")] = False,
) -> None:
    """Bring params.yaml and dvc.yaml of an earlier version up to date.

    The differences are shown first. Your own stages stay; changes that you made to the stages of postprior do not.
    """
    from postprior.pipelines.api.upgrade import Upgrade

    change = Upgrade.of(project)
    if not (lines := change.lines()):
        tell(f"{project / 'params.yaml'} and dvc.yaml are up to date")
        return
    tell(*lines)
    if yes or (sys.stdin.isatty() and typer.confirm("Write these changes?")):
        change.write()
        tell("The project is upgraded. Go on with: dvc repro")
    else:
        tell("Nothing was written; `postprior upgrade --yes` writes these changes")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the files go.")],
    format: Annotated[
        str | None, typer.Option(help="csv, parquet, npz or images; what each modality came from if not given.")
    ] = None,
    excel_safe: Annotated[
        bool,
        typer.Option(
            "--excel-safe", help="Put ' before texts that were generated or filled in and look like formulas."
        ),
    ] = False,
) -> None:
    """Write a dataset folder back as files."""
    from postprior.pipelines.data.export import export

    tell(*export(folder, out, format, excel_safe))
