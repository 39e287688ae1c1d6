"""Uses of what the pipeline made: draw, fill in, score, represent, register, track."""

from pathlib import Path
from typing import Annotated, Any

import typer

from postprior.pipelines.commands import options
from postprior.pipelines.commands.options import label_counts, load
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import tell

app = typer.Typer()


@app.command()
def draw(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A fitted density.")],
    out: Annotated[Path, typer.Option(help="The .npz file.")],
    samples: options.Samples = None,
    seed: options.Seed = None,
    label: options.LabelCounts = None,
    temperature: options.Temperature = None,
    truncation: options.Truncation = None,
    force: options.Force = False,
) -> None:
    """Draw codes from a fitted density alone."""
    if samples is None and not label:
        raise UserError("--samples: found none, expected a number, or --label LABEL=COUNT")
    from postprior.pipelines.api.draw import draw
    from postprior.pipelines.generation.request import SampleRequest

    given = {"seed": seed, "temperature": temperature, "truncation": truncation}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    draw(folder, out, SampleRequest(samples, labels=label_counts(label), **chosen), force)


@app.command()
def impute(
    name: options.DensityName,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder with holes.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder of what is filled in.")],
    params: options.ParamsFile = options.DEFAULT,
    draws: Annotated[int, typer.Option(help="Several make folders 1, 2, … in OUT.")] = 1,
    values: options.Values = None,
    seed: options.Seed = None,
) -> None:
    """Fill in what the rows of a dataset lack.

    What is not given is as `generate` in params.yaml has it.
    """
    settings, root = load(params)
    from postprior.pipelines.api.impute import impute

    tell(*impute(name, dataset, settings, root, out, draws, values, seed))


@app.command()
def detect(
    name: options.DensityName,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="The rows to be scored.")],
    out: Annotated[Path, typer.Option(help="A table that ends in .csv, .tsv or .parquet.")],
    params: options.ParamsFile = options.DEFAULT,
    calibration: Annotated[
        Path | None, typer.Option(help="Normal rows that had no part in training; artefacts/data/test if not given.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="The share of normal rows that may be flagged.")] = 0.05,
    force: options.Force = False,
) -> None:
    """Score how strange rows are beside normal ones."""
    settings, root = load(params)
    from postprior.pipelines.api.detect import detect

    tell(*detect(name, dataset, settings, root, out, calibration, alpha, force))


@app.command()
def represent(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Rows that have some or all modalities.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file that ends in .npz, .parquet or .h5ad.")],
    params: options.ParamsFile = options.DEFAULT,
    seed: Annotated[int, typer.Option(help="Of draws that stand for large posteriors.")] = 0,
    force: options.Force = False,
) -> None:
    """Write the codes of any rows to a file."""
    settings, root = load(params)
    from postprior.pipelines.api.represent import represent
    from postprior.pipelines.artefacts.project import Project

    autoencoder = Project(root).artefacts.autoencoder
    tell(*represent(dataset, autoencoder, out, seed, settings.encode.components, force))


@app.command()
def register(
    name: options.DensityName,
    params: options.ParamsFile = options.DEFAULT,
    model: Annotated[
        str | None, typer.Option("--as", metavar="MODEL_NAME", help="postprior-NAME if not given.")
    ] = None,
    alias: Annotated[str, typer.Option(help="Of this version.")] = "champion",
) -> None:
    """Register a generator as a model in MLflow."""
    settings, root = load(params)
    from postprior.pipelines.api.register import register

    tell(register(name, settings, root, model, alias))


@app.command()
def track(params: options.ParamsFile = options.DEFAULT) -> None:
    """Log existing results to MLflow again."""
    settings, root = load(params)
    from postprior.pipelines.api.track import track

    track(settings, root)
