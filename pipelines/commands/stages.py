"""The stages of the pipeline, in its order. Each is imported by its command, after the settings were read."""

from pathlib import Path
from typing import Annotated

import typer

from postprior.pipelines.commands import options
from postprior.pipelines.commands.options import check_name, label_counts, load, pairs
from postprior.pipelines.errors import UserError

app = typer.Typer()


@app.command()
def code(params: options.ParamsFile = options.DEFAULT) -> None:
    """Hash the code of each stage, by which DVC knows what to run again."""
    settings, root = load(params)
    from postprior.pipelines.stages.code import code

    code(settings, root)


@app.command()
def prepare(params: options.ParamsFile = options.DEFAULT) -> None:
    """Make the dataset folders."""
    settings, root = load(params)
    from postprior.pipelines.data.sources import check_source
    from postprior.pipelines.stages.prepare import prepare

    check_source(settings)
    prepare(settings, root)


@app.command()
def train_evaluators(params: options.ParamsFile = options.DEFAULT) -> None:
    """Train the classifiers that score."""
    settings, root = load(params)
    from postprior.pipelines.stages.train_evaluators import train_evaluators

    train_evaluators(settings, root)


@app.command()
def train(params: options.ParamsFile = options.DEFAULT) -> None:
    """Train the autoencoder, or resume it."""
    settings, root = load(params)
    from postprior.pipelines.settings.checks import check_model
    from postprior.pipelines.stages.train import train

    check_model(settings, settings.vae.model)
    train(settings, root)


@app.command()
def encode(params: options.ParamsFile = options.DEFAULT) -> None:
    """Encode every split into latent codes."""
    settings, root = load(params)
    from postprior.pipelines.stages.encode import encode

    encode(settings, root)


@app.command()
def diagnose(params: options.ParamsFile = options.DEFAULT) -> None:
    """Score the codes and the health of their space."""
    settings, root = load(params)
    from postprior.pipelines.stages.diagnose import diagnose

    diagnose(settings, root)


@app.command()
def score_baselines(params: options.ParamsFile = options.DEFAULT) -> None:
    """Score what densities are set against."""
    settings, root = load(params)
    from postprior.pipelines.stages.score_baselines import score_baselines

    score_baselines(settings, root)


@app.command()
def fit(
    name: options.DensityName,
    params: options.ParamsFile = options.DEFAULT,
    codes: Annotated[
        Path | None, typer.Option(help="Codes of one's own: a code folder, or an .npz of means and scales.")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="With --codes: other rows, to choose by.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --codes: the folder of the density.")] = None,
) -> None:
    """Fit a density to the codes, or to codes of one's own."""
    if codes is not None:
        alone = params == options.DEFAULT and not params.exists()  # such a fit needs no project
        given, place = (None, Path()) if alone else load(params)
        from postprior.pipelines.api.fit import fit_codes

        fit_codes(name, given, place, codes, validation, out)
        return
    if validation or out:
        raise UserError("--validation and --out: found without --codes, expected --codes with them")
    settings, root = load(params)
    from postprior.pipelines.settings.checks import check_density
    from postprior.pipelines.stages.fit import fit

    check_density(settings, name)
    fit(name, settings, root)


@app.command()
def generate(
    name: options.DensityName,
    params: options.ParamsFile = options.DEFAULT,
    samples: options.Samples = None,
    seed: options.Seed = None,
    values: options.Values = None,
    label: options.LabelCounts = None,
    temperature: options.Temperature = None,
    truncation: options.Truncation = None,
    given: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", help="Rows that have some modalities: the samples have these, too."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The dataset folder; artefacts/synthetic/NAME if not given.")] = None,
) -> None:
    """Draw a synthetic dataset from a density.

    What is not given is as `generate` in params.yaml has it.
    """
    settings, root = load(params)
    from postprior.pipelines.generation.request import SampleRequest
    from postprior.pipelines.stages.generate import generate

    changes = {"seed": seed, "values": values, "temperature": temperature, "truncation": truncation}
    request = SampleRequest.from_settings(settings.generate, samples, label_counts(label), **changes)
    generate(name, settings, root, request, out, given)


@app.command()
def evaluate(name: options.DensityName, params: options.ParamsFile = options.DEFAULT) -> None:
    """Score a density's synthetic dataset."""
    settings, root = load(params)
    from postprior.pipelines.stages.evaluate import evaluate

    evaluate(name, settings, root)


@app.command()
def utility(
    name: options.NameOrNone = None,
    params: options.ParamsFile = options.DEFAULT,
    real: Annotated[bool, typer.Option("--real", help="Train on real data, for comparison.")] = False,
) -> None:
    """Train on synthetic, test on real, and the reverse."""
    check_name(name, real, "--real")
    settings, root = load(params)
    from postprior.pipelines.stages.utility import utility, utility_of_real

    utility_of_real(settings, root) if name is None else utility(name, settings, root)


@app.command()
def augment(
    size: Annotated[str, typer.Argument(metavar="SIZE", help="So many training rows, or all.")],
    params: options.ParamsFile = options.DEFAULT,
    seed: Annotated[int, typer.Option(help="Another seed takes other rows.")] = 0,
) -> None:
    """Add synthetic rows to few real ones."""
    settings, root = load(params)
    from postprior.pipelines.settings.checks import check_density, check_model
    from postprior.pipelines.stages.augment import augment

    check_model(settings, settings.augment.model)
    check_density(settings, settings.augment.density)
    augment(size, settings, root, seed)


@app.command()
def privacy(name: options.DensityName, params: options.ParamsFile = options.DEFAULT) -> None:
    """Test whether a density's samples give training rows away."""
    settings, root = load(params)
    from postprior.pipelines.stages.privacy import privacy

    privacy(name, settings, root)


@app.command()
def evaluate_imputation(
    name: options.NameOrNone = None,
    params: options.ParamsFile = options.DEFAULT,
    baselines: Annotated[bool, typer.Option("--baselines", help="Impute by other methods, for comparison.")] = False,
) -> None:
    """Hide what rows have, impute it and score."""
    check_name(name, baselines, "--baselines")
    settings, root = load(params)
    from postprior.pipelines.stages.evaluate_imputation import evaluate_baseline_imputers, evaluate_imputation

    evaluate_baseline_imputers(settings, root) if name is None else evaluate_imputation(name, settings, root)


@app.command()
def compare(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Densities; those of params.yaml if none.")
    ] = None,
    params: options.ParamsFile = options.DEFAULT,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="LABEL=SOURCE",
            help="More results under a label: the folder of a project, a revision, a DVC experiment; repeatable.",
        ),
    ] = None,
) -> None:
    """Write the table, plots and report."""
    settings, root = load(params)
    from postprior.pipelines.stages.compare import compare

    sources = pairs("--with", others, "LABEL=SOURCE", "mopoe=../mopoe", cut=str.partition)
    compare(settings, root, names or (), sources)
