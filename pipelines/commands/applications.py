"""Commands that apply the trained models: draw, impute, detect, represent, register and track."""

from pathlib import Path
from typing import Annotated, Any

import typer

from postprior.pipelines.commands import options
from postprior.pipelines.commands.options import label_counts, load, load_tracked
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import shell_quoted, tell

app = typer.Typer()


@app.command()
def draw(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a fitted density.")],
    out: Annotated[Path, typer.Option(help="File of the codes, with the suffix .npz.")],
    samples: options.Samples = None,
    seed: options.Seed = None,
    label: options.LabelCounts = None,
    temperature: options.Temperature = None,
    truncation: options.Truncation = None,
    force: options.Force = False,
) -> None:
    """Draw latent codes from a fitted density."""
    if samples is None and not label:
        raise UserError("--samples: found none, expected a number, or --label LABEL=COUNT")
    from postprior.pipelines.api.draw import draw
    from postprior.pipelines.generation.request import SampleRequest

    options_or_none = {"seed": seed, "temperature": temperature, "truncation": truncation}
    given: dict[str, Any] = {name: value for name, value in options_or_none.items() if value is not None}
    draw(folder, out, SampleRequest(samples, labels=label_counts(label), **given), force)
    tell(f"{out}: codes, of which your decoder reads the array loc with numpy.load")


@app.command()
def impute(
    name: options.DensityName,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Dataset folder with missing values.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the imputed dataset.")],
    params: options.ParamsFile = options.DEFAULT,
    draws: Annotated[
        int, typer.Option(help="Number of imputations; more than one are written to folders 1, 2, … in OUT.")
    ] = 1,
    values: options.Values = None,
    seed: options.Seed = None,
) -> None:
    """Impute the missing values of a dataset.

    Options that are not given have the values of `generate` in params.yaml; the values of one draw are means.
    """
    settings, root = load_tracked(params)
    from postprior.pipelines.api.impute import impute

    tell(*impute(name, dataset, settings, root, out, draws, values, seed))
    first = out if draws == 1 else out / "1"
    tell(f"Go on with: postprior export {shell_quoted(first)} FOLDER")


@app.command()
def detect(
    name: options.DensityName,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Dataset folder of the rows to score.")],
    out: Annotated[Path, typer.Option(help="Table of the scores, with the suffix .csv, .tsv or .parquet.")],
    params: options.ParamsFile = options.DEFAULT,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Dataset folder of normal rows that were not used in training; artefacts/data/test if not given."
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Share of normal rows that may be flagged: false positive rate.")] = 0.05,
    force: options.Force = False,
) -> None:
    """Score how far each row deviates from normal rows."""
    settings, root = load_tracked(params)
    from postprior.pipelines.api.detect import detect

    tell(*detect(name, dataset, settings, root, out, calibration, alpha, force))
    tell("Its column score orders the rows, and its columns contribution.MODALITY say what explains a score")


@app.command()
def represent(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="Dataset folder of rows with some or all modalities.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="File of the codes, with the suffix .npz, .parquet or .h5ad.")
    ],
    params: options.ParamsFile = options.DEFAULT,
    seed: Annotated[
        int, typer.Option(help="Seed of the draws that replace mixtures with more than encode.components parts.")
    ] = 0,
    force: options.Force = False,
) -> None:
    """Write the latent codes of a dataset to a file."""
    settings, root = load(params)
    from postprior.pipelines.api.represent import represent
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.artefacts.sharing import sharing_of

    project = Project(root)
    autoencoder, components = project.artefacts.autoencoder, settings.encode.components
    sharing = sharing_of(project, settings, "api.represent", [autoencoder, dataset])
    tell(*represent(dataset, autoencoder, out, seed, components, force, sharing))
    if out.suffix == ".npz":
        tell(f"Go on with: postprior fit gmm --codes {shell_quoted(out)} --out FOLDER")


@app.command()
def register(
    name: options.DensityName,
    params: options.ParamsFile = options.DEFAULT,
    model: Annotated[
        str | None,
        typer.Option("--as", metavar="MODEL_NAME", help="Name of the registered model; postprior-NAME if not given."),
    ] = None,
    alias: Annotated[str, typer.Option(help="Alias of the registered version.")] = "champion",
) -> None:
    """Register a generator as a model in MLflow."""
    settings, root = load(params)
    from postprior.pipelines.api.register import register

    line = register(name, settings, root, model, alias)
    uri = line.partition(" is version ")[0]
    tell(line, f"Go on with: mlflow.pyfunc.load_model('{uri}').predict([], params={{'n': 100, 'seed': 0}})")


@app.command()
def track(params: options.ParamsFile = options.DEFAULT) -> None:
    """Log existing results to MLflow again."""
    settings, root = load(params)
    from postprior.pipelines.api.track import track

    tell(*track(settings, root))
