"""The commands `import`, `init`, `upgrade` and `export`, which write data and the files of a project."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from postprior.pipelines.commands import options
from postprior.pipelines.commands.options import check_unused, parse_pairs
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import shell_quoted, tell

app = typer.Typer()

DEMO = "demo"
"""The name of the folder for which `init` needs no data."""


@app.command("import")
def import_data(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Files or folders to import together.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that the three splits are written to.")],
    id: options.Id = None,
    label: options.Label = None,
    group: options.Group = None,
    split: Annotated[
        str | None, typer.Option(help="A column that assigns each row to train, validation or test.")
    ] = None,
    target: options.Target = None,
    skip: options.Skip = None,
    modality: Annotated[
        list[str] | None, typer.Option(metavar="NAME=COLUMN,…", help="The columns that form a modality; repeatable.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=KIND",
            help="The kind of a column (numeric, log, quantile, count, boolean, categorical) or of an array (numeric, "
            "nonnegative, log1p, count, normalised_count, log_normalised_count, boolean, tokens), if it is detected "
            "wrongly; repeatable.",
        ),
    ] = None,
    na: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[COLUMN=]VALUE", help="A text or number that means missing, in all columns or one; repeatable."
        ),
    ] = None,
    keep_na: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="A column in which NA, ? or −999 are values, not missing cells; repeatable."
        ),
    ] = None,
    keep_rare: Annotated[
        bool, typer.Option("--keep-rare", help="Let synthetic rows have values that fewer than five rows have.")
    ] = False,
    range: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]LOW,HIGH|none",
            help="The least and the greatest value of a column or vector in synthetic rows, or of all; by default "
            "those of the training rows. none: no limit; repeatable.",
        ),
    ] = None,
    decimals: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]N|none",
            help="The decimals of a column or vector in synthetic rows, or of all; by default those of the training "
            "rows. none: no rounding; repeatable.",
        ),
    ] = None,
    drop_constraint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT|all",
            help="A constraint among columns, such as 'start <= end', that synthetic rows need not keep although all "
            "rows do, as import told it; repeatable. all: none is sought.",
        ),
    ] = None,
    rare_labels: Annotated[
        Literal["merge", "unlabelled", "keep"] | None,
        typer.Option(
            help="Classes of fewer than five rows: merge texts into one class (the default), leave their rows without "
            "a label, or keep them; numbers are never merged."
        ),
    ] = None,
    dates: Annotated[
        Literal["dmy", "mdy"] | None, typer.Option(help="The order of day and month in dates such as 03/04/2020.")
    ] = None,
    repeated: Annotated[
        Literal["visits", "first"] | None,
        typer.Option(help="If rows have the same id: keep all, as visits of one subject, or the first one."),
    ] = None,
    nan_is_missing: Annotated[bool, typer.Option(help="Treat NaN in arrays as missing values.")] = False,
    folders: Annotated[
        Literal["modalities", "classes", "subjects"] | None,
        typer.Option(
            help="What the folders of images are. By default, they are modalities if they share file names, else "
            "classes; below modalities, they are a part of the ids."
        ),
    ] = None,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="HEIGHT WIDTH", help="Resize all images, linearly with antialiasing."),
    ] = None,
    mode: Annotated[
        Literal["L", "LA", "RGB", "RGBA"] | None,
        typer.Option(
            help="Convert images to grey (L) or RGB, with alpha (A) or without; by default to the commonest mode."
        ),
    ] = None,
    alpha: Annotated[
        Literal["white", "black"] | None,
        typer.Option(help="Put transparent pixels of images over a colour; by default, alpha is a channel."),
    ] = None,
    first_frame: Annotated[
        bool, typer.Option("--first-frame", help="Read the first frame or page of images that have several.")
    ] = False,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MODALITY=]NAME",
            help="A layer of AnnData that is read in place of X, such as counts, or raw; repeatable.",
        ),
    ] = None,
    obsm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A matrix in obsm of AnnData that is a modality as well; repeatable."),
    ] = None,
    slices: Annotated[
        str | None, typer.Option(help="Cut volumes into slices of this plane: axial, coronal or sagittal.")
    ] = None,
    series: Annotated[
        Literal["channels", "rows"],
        typer.Option(help="What the volumes of a 4-D NIfTI file are: channels of one row, or one row each."),
    ] = "channels",
    resample: Annotated[
        str | None,
        typer.Option(
            metavar="first|FILE|MM",
            help="Resample volumes to the grid of the first file, of another file, or of voxels of this size in mm.",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="Import rows for a model that was trained on this earlier import: use its scales and categories, and "
            "do not split.",
        ),
    ] = None,
    validation_share: Annotated[
        float | None, typer.Option(help="The share of all rows (or subjects) for validation; by default 0.1.")
    ] = None,
    test_share: Annotated[
        float | None, typer.Option(help="The share of all rows (or subjects) for the test split; by default 0.2.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of the random split; by default 0.")] = None,
    shard_size: Annotated[
        float,
        typer.Option(
            metavar="MB", help="Write arrays that are larger as several files of at most this many megabytes."
        ),
    ] = 2000,
) -> None:
    """Convert your own files into dataset folders for training, validation and test."""
    from postprior.pipelines.data.formats.contents import Roles
    from postprior.pipelines.data.importing.limits import parse_decimals, parse_limits, parse_range

    if not shard_size > 0:
        raise UserError(f"--shard-size: {shard_size:g} found, expected a number of megabytes above 0; correct it")
    largest = max(1, int(min(shard_size, 1e9) * 1e6))
    columns = parse_pairs("--modality", modality, "NAME=COLUMN,…", "labs=crp,glucose")
    roles = Roles(
        *(id, label, group, split, tuple(target or ()), tuple(skip or ())),
        modalities={name: tuple(text.split(",")) for name, text in columns.items()},
        kinds=parse_pairs("--kind", kind, "NAME=KIND", "age=numeric"),
        nan_is_missing=nan_is_missing,
        folders=folders,
        size=size,
        mode=mode,
        alpha=alpha,
        first_frame=first_frame,
        layer=_by_name(layer),
        obsm=tuple(obsm or ()),
        slices=slices,
        series=series,
        resample=resample,
        na=_marks(na),
        keep_na=tuple(keep_na or ()),
        keep_rare=keep_rare,
        ranges=parse_limits("--range", range, "LOW,HIGH", parse_range),
        decimals=parse_limits("--decimals", decimals, "N", parse_decimals),
        drop_constraint=tuple(drop_constraint or ()),
        rare_labels=rare_labels,
        dates=dates,
        repeated=repeated,
    )
    shares: dict[str, object] = {"validation_share": validation_share, "test_share": test_share, "seed": seed}
    if like is not None:
        check_unused("--like, which does not split the rows", split=split, **shares)
        check_unused(
            "--like, whose training data determine it", range=range, decimals=decimals, drop_constraint=drop_constraint
        )
        from postprior.pipelines.data.importing.rows import import_rows

        told = import_rows(sources, folder, roles, like, largest)
    else:
        from postprior.pipelines.data.importing.run import import_data

        if split is not None:
            check_unused("--split, whose column assigns the rows", **shares)
        given = (0.1 if validation_share is None else validation_share, 0.2 if test_share is None else test_share)
        told = import_data(sources, folder, roles, given, seed or 0, largest)
    tell(*told.brief(folder))


def _by_name(arguments: list[str] | None) -> dict[str, str]:
    """Parse the values of --layer to layers by modality; an empty name stands for all modalities."""
    return {name: layer for name, _, layer in (text.rpartition("=") for text in arguments or ())}


def _marks(arguments: list[str] | None) -> dict[str, tuple[str, ...]]:
    """Parse the values of --na to marks of missing cells by column; an empty name stands for all columns."""
    marks: dict[str, tuple[str, ...]] = {}
    for text in arguments or ():
        column, _, mark = text.rpartition("=")
        marks[column] = (*marks.get(column, ()), mark)
    return marks


@app.command()
def advise(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...", help="The folder that postprior import wrote, or files and folders that it can import."
        ),
    ],
    id: options.Id = None,
    label: options.Label = None,
    group: options.Group = None,
    target: options.Target = None,
    skip: options.Skip = None,
    profile: options.Profile = "quick",
    device: Annotated[str, typer.Option(help="Where to train: auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Advise on the model, its size, densities and time for your data, with reasons and measurements.

    It writes nothing. `postprior init` chooses the same settings.
    """
    from postprior.pipelines.data.formats.contents import Roles
    from postprior.pipelines.planning.advise import advise, is_imported

    if done := is_imported(sources):
        roles = {"id": id, "label": label, "group": group, "target": target, "skip": skip}
        check_unused("a folder of postprior import, whose columns have their roles", **roles)
    columns = Roles(id, label, group, None, tuple(target or ()), tuple(skip or ()))
    tell(*advise(sources, columns, profile, device))
    given = " ".join(map(shell_quoted, sources))
    tell(f"Go on with: postprior {f'init PROJECT --from {given}' if done else f'import {given} DATA'}")


@app.command()
def init(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder of the new project.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="The folder that postprior import wrote. Without it, PROJECT must be named demo: a project with the "
            "handwritten digits of the demo.",
        ),
    ] = None,
    profile: options.Profile = "quick",
    no_git: Annotated[
        bool, typer.Option("--no-git", help="Use no git: make no repository, and stage and commit nothing.")
    ] = False,
) -> None:
    """Create a project, from imported data or for the demo.

    It uses the git repository that it lies in, or a new one. `postprior init demo` needs no data.
    """
    from postprior.pipelines.api.init import init, init_demo

    if data is not None:
        tell(*init(project, data, profile, not no_git))
    elif project.name == DEMO:
        tell(*init_demo(project, profile, not no_git))
    else:
        raise UserError(
            "--from: found none, expected the folder that postprior import wrote; or try postprior init demo, "
            "which needs no data"
        )


@app.command()
def upgrade(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder of the project.")] = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Write the changes without asking.")] = False,
) -> None:
    """Update params.yaml, dvc.yaml and .dvc/.gitignore of a project of an earlier version.

    The differences are shown first. Your own stages are kept, but changes that you made to the stages of postprior are
    lost.
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
    folder: Annotated[Path, typer.Argument(metavar="DATASET", help="The dataset folder to export.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder that the files are written to.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="csv, parquet, npz or images. By default each modality gets the format it was imported from."
        ),
    ] = None,
    excel_safe: Annotated[
        bool,
        typer.Option(
            "--excel-safe",
            help="Put ' before generated or imputed texts that look like spreadsheet formulas.",
        ),
    ] = False,
) -> None:
    """Write a dataset folder back as files in the original formats, units and types."""
    from postprior.pipelines.data.export import export

    tell(*export(folder, out, format, excel_safe), f"These files are in {out}")
