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
    values: Annotated[str | None, typer.Option(help="mean or draws of the decoders.")] = None,
    label: LabelCounts = None,
    temperature: Temperature = None,
    truncation: Truncation = None,
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
        )


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


def _compare(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Densities; those of params.yaml if none.")
    ] = None,
    params: ParamsFile = DEFAULT,
) -> None:
    """The command of `compare`."""
    with _one_line_errors():
        settings, root = _load(params)
        _function("compare", "compare")(settings, root, names or ())


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
    "prepare": (_of_settings("prepare", "check_source"), "Make the dataset folders."),
    "judge": (_of_settings("judge"), "Train the classifiers that score."),
    "train": (_of_settings("train"), "Train the autoencoder, or resume it."),
    "encode": (_of_settings("encode"), "Encode every split into latent codes."),
    "inspect": (_of_settings("inspect"), "Score the codes and the health of their space."),
    "reference": (_of_settings("reference"), "Score what densities are set against."),
    "fit": (_fit, "Fit a density to the codes, or to codes of one's own."),
    "draw": (_draw, "Draw codes from a fitted density alone."),
    "generate": (_generate, "Draw a synthetic dataset from a density."),
    "evaluate": (_of_density("evaluate"), "Score a density's synthetic dataset."),
    "compare": (_compare, "Write the table, plots and report."),
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
