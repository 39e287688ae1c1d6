"""The command line, one command a stage: load params.yaml, call the stage, turn errors into one line.

Nothing heavy is imported here: a stage's module is imported by the command that runs it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.config import Params

app = typer.Typer(
    help="Multimodal synthetic data from a latent prior that is fitted after the autoencoder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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
Values = Annotated[str | None, typer.Option(help="mean or draws of the decoders.")]
DEFAULT = Path("params.yaml")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """One sentence on stderr and exit code 1 for mistakes and faults of the machine; 130 when interrupted."""
    try:
        yield
    except UserError as error:
        typer.echo(f"postprior: error: {error}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(f"postprior: error: {place}{error.strerror or error}", err=True)
        raise typer.Exit(1) from None
    except MemoryError:
        typer.echo("postprior: error: more than the memory holds; give fewer rows or draws", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("postprior: interrupted", err=True)
        raise typer.Exit(130) from None


def _load(path: Path) -> tuple[Params, Path]:
    from pipelines.config import load_params

    root = path.resolve().parent
    sys.path.append(str(root))  # networks of the user's own, by import path, may lie in the project
    return load_params(path), root


def _function(module: str, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(importlib.import_module(f"pipelines.{module}"), name)
    return function


def _of_settings(stage: str, check: str | None = None) -> Callable[..., None]:
    """The command of a stage that takes nothing but the settings, after a check of params.yaml."""

    def command(params: ParamsFile = DEFAULT) -> None:
        with _one_line_errors():
            settings, root = _load(params)
            if check:
                _function("config", check)(settings)
            _function(stage, stage)(settings, root)

    return command


def _of_density(stage: str) -> Callable[..., None]:
    """The command of a stage that takes the settings and the name of a density."""

    def command(name: DensityName, params: ParamsFile = DEFAULT) -> None:
        with _one_line_errors():
            settings, root = _load(params)
            _function(stage, stage)(name, settings, root)

    return command


def _fit(
    name: DensityName,
    params: ParamsFile = DEFAULT,
    codes: Annotated[
        Path | None, typer.Option(help="Codes of one's own: a code folder, or an .npz of means and scales.")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="With --codes: other rows, to choose by.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --codes: the folder of the density.")] = None,
) -> None:
    """The command of `fit`: the stage, or with --codes a fit that needs no project."""
    with _one_line_errors():
        if codes is not None:
            alone = params == DEFAULT and not params.exists()
            settings, root = (None, Path()) if alone else _load(params)
            _function("fit", "fit_codes")(name, settings, root, codes, validation, out)
            return
        if validation or out:
            raise UserError("--validation and --out: found without --codes, expected --codes with them")
        settings, root = _load(params)
        _function("config", "check_density")(settings, name)
        _function("fit", "fit")(name, settings, root)


def _generate(
    name: DensityName,
    params: ParamsFile = DEFAULT,
    samples: Samples = None,
    seed: Seed = None,
    values: Values = None,
    label: LabelCounts = None,
    temperature: Temperature = None,
    truncation: Truncation = None,
    given: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", help="Rows that have some modalities: the samples have these, too."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The dataset folder; artefacts/synthetic/NAME if not given.")
    ] = None,
) -> None:
    """The command of `generate`: options that are not given are those of params.yaml."""
    with _one_line_errors():
        settings, root = _load(params)
        _function("generate", "generate")(
            name,
            settings,
            root,
            samples=samples,
            seed=seed,
            values=values,
            labels=_label_counts(label),
            temperature=temperature,
            truncation=truncation,
            out=out,
            given=given,
        )


def _impute(
    name: DensityName,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder with holes.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder of what is filled in.")],
    params: ParamsFile = DEFAULT,
    draws: Annotated[int, typer.Option(help="Several make folders 1, 2, … in OUT.")] = 1,
    values: Values = None,
    seed: Seed = None,
) -> None:
    """The command of `impute`: options that are not given are those of `generate` in params.yaml."""
    with _one_line_errors():
        settings, root = _load(params)
        impute = _function("impute", "impute")
        typer.echo("\n".join(impute(name, dataset, settings, root, out, draws, values, seed)))


def _detect(
    name: DensityName,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="The rows to be scored.")],
    out: Annotated[Path, typer.Option(help="A table that ends in .csv, .tsv or .parquet.")],
    params: ParamsFile = DEFAULT,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Normal rows that had no part in training; artefacts/data/test if not given."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="The share of normal rows that may be flagged.")] = 0.05,
) -> None:
    """The command of `detect`."""
    with _one_line_errors():
        settings, root = _load(params)
        detect = _function("detect", "detect")
        typer.echo("\n".join(detect(name, dataset, settings, root, out, calibration, alpha)))


def _represent(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="Rows that have some or all modalities.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file that ends in .npz, .parquet or .h5ad.")],
    params: ParamsFile = DEFAULT,
    seed: Annotated[int, typer.Option(help="Of draws that stand for large posteriors.")] = 0,
) -> None:
    """The command of `represent`."""
    with _one_line_errors():
        settings, root = _load(params)
        represent, folder = _function("represent", "represent"), root / "artefacts/autoencoder"
        typer.echo("\n".join(represent(dataset, folder, out, seed, settings.encode.components)))


def _draw(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A fitted density.")],
    out: Annotated[Path, typer.Option(help="The .npz file.")],
    samples: Samples = None,
    seed: Seed = None,
    label: LabelCounts = None,
    temperature: Temperature = None,
    truncation: Truncation = None,
) -> None:
    """The command of `draw`, which reads no settings."""
    with _one_line_errors():
        if samples is None and not label:
            raise UserError("--samples: found none, expected a number, or --label LABEL=COUNT")
        given = {"seed": seed, "temperature": temperature, "truncation": truncation}
        options = {name: value for name, value in given.items() if value is not None}
        _function("draw", "draw")(folder, out, samples=samples, labels=_label_counts(label), **options)


def _import(
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
    with _one_line_errors():
        roles = _function("importers.found", "Roles")(
            *(id, label, group, split, tuple(target or ()), tuple(skip or ())),
            modalities={
                name: tuple(columns.split(",")) for name, columns in _pairs("modality", modality).items()
            },
            kinds=_pairs("kind", kind),
            nan_is_missing=nan_is_missing,
            slices=slices,
        )
        if like is not None:
            typer.echo(_function("importers.rows", "import_rows")(sources, folder, roles, like))
            return
        shares = (validation_share, test_share)
        typer.echo(_function("importers.run", "import_data")(sources, folder, roles, shares, seed))


def _init(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder of the project.")],
    data: Annotated[Path, typer.Option("--from", metavar="FOLDER", help="What postprior import made.")],
) -> None:
    """The command of `init`, which reads no settings."""
    with _one_line_errors():
        typer.echo("\n".join(_function("init", "init")(project, data)))


def _export(
    folder: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the files go.")],
    format: Annotated[
        str | None,
        typer.Option(help="csv, parquet, npz or images; what each modality came from if not given."),
    ] = None,
) -> None:
    """The command of `export`, which reads no settings."""
    with _one_line_errors():
        typer.echo("\n".join(_function("export", "export")(folder, out, format)))


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


def _augment(
    size: Annotated[str, typer.Argument(metavar="SIZE", help="So many training rows, or all.")],
    params: ParamsFile = DEFAULT,
    seed: Annotated[int, typer.Option(help="Another seed takes other rows.")] = 0,
) -> None:
    """The command of `augment`."""
    with _one_line_errors():
        settings, root = _load(params)
        _function("config", "check_density")(settings, settings.augment.density)
        _function("augment", "augment")(size, settings, root, seed)


def _compare(
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
    with _one_line_errors():
        settings, root = _load(params)
        _function("compare", "compare")(settings, root, names or (), _sources(others))


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


def _register(
    name: DensityName,
    params: ParamsFile = DEFAULT,
    model: Annotated[
        str | None, typer.Option("--as", metavar="MODEL_NAME", help="postprior-NAME if not given.")
    ] = None,
    alias: Annotated[str, typer.Option(help="Of this version.")] = "champion",
) -> None:
    """The command of `register`."""
    with _one_line_errors():
        settings, root = _load(params)
        typer.echo(_function("register", "register")(name, settings, root, model, alias))


def _label_counts(given: list[str] | None) -> dict[str, int] | None:
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


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {  # in the order of the pipeline
    "import": (_import, "Make dataset folders from your own files."),
    "init": (_init, "Make a project from imported data."),
    "prepare": (_of_settings("prepare", "check_source"), "Make the dataset folders."),
    "judge": (_of_settings("judge"), "Train the classifiers that score."),
    "train": (_of_settings("train"), "Train the autoencoder, or resume it."),
    "encode": (_of_settings("encode"), "Encode every split into latent codes."),
    "inspect": (_of_settings("inspect"), "Score the codes and the health of their space."),
    "reference": (_of_settings("reference"), "Score what densities are set against."),
    "fit": (_fit, "Fit a density to the codes, or to codes of one's own."),
    "draw": (_draw, "Draw codes from a fitted density alone."),
    "generate": (_generate, "Draw a synthetic dataset from a density."),
    "impute": (_impute, "Fill in what the rows of a dataset lack."),
    "detect": (_detect, "Score how strange rows are beside normal ones."),
    "represent": (_represent, "Write the codes of any rows to a file."),
    "evaluate": (_of_density("evaluate"), "Score a density's synthetic dataset."),
    "export": (_export, "Write a dataset folder back as files."),
    "utility": (_of_density("utility"), "Train on synthetic, test on real; `real` for comparison."),
    "augment": (_augment, "Add synthetic rows to few real ones."),
    "recover": (
        _of_density("recover"),
        "Hide what rows have, impute it and score; `baselines` for comparison.",
    ),
    "privacy": (_of_density("privacy"), "Test whether a density's samples give training rows away."),
    "compare": (_compare, "Write the table, plots and report."),
    "register": (_register, "Register a generator as a model in MLflow."),
    "track": (_of_settings("track"), "Log existing results to MLflow again."),
}
for _name, (_command, _about) in COMMANDS.items():
    app.command(_name, help=_about)(_command)


def main() -> None:
    """The console script `postprior`."""
    # Torch's threads spin while they wait for one another, by GNU OpenMP's default for 300,000 turns: two trainings
    # side by side on two cores were then 25 times as slow as one alone. A thirtieth of that costs nothing alone.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    app()
