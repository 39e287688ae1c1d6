"""Commands that run the stages of the pipeline, in their order; each imports its stage after reading the settings."""

from pathlib import Path
from typing import Annotated

import typer

from postprior.pipelines.commands import options
from postprior.pipelines.commands.endings import tell_stage, tell_written
from postprior.pipelines.commands.options import check_name, label_counts, load, load_tracked, parse_pairs
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import shell_quoted, tell

app = typer.Typer()


@app.command()
def plan(params: options.ParamsFile = options.DEFAULT) -> None:
    """Estimate how long each stage takes on this machine.

    A few steps of the networks are timed first, for about three seconds.
    """
    settings, root = load(params)
    from postprior.pipelines.planning.plan import plan
    from postprior.pipelines.stages.code import code

    code(settings, root)  # DVC compares these hashes to find the stages whose code has changed
    tell(*plan(settings, root), "Go on with: dvc repro")


@app.command()
def code(params: options.ParamsFile = options.DEFAULT) -> None:
    """Hash the code of each stage for DVC.

    DVC runs a stage again if the hash of its code has changed.
    """
    settings, root = load(params)
    from postprior.pipelines.stages.code import code

    code(settings, root)
    tell_stage("code", root)


@app.command()
def prepare(params: options.ParamsFile = options.DEFAULT) -> None:
    """Write the dataset folders of the three splits."""
    settings, root = load_tracked(params)
    from postprior.pipelines.data.sources import check_source
    from postprior.pipelines.stages.prepare import prepare

    check_source(settings)
    prepare(settings, root)
    tell_stage("prepare", root)


@app.command()
def train_evaluators(params: options.ParamsFile = options.DEFAULT) -> None:
    """Train the label classifiers and feature extractor.

    Together they are called evaluators. All scores use them.
    """
    settings, root = load_tracked(params)
    from postprior.pipelines.stages.train_evaluators import train_evaluators

    train_evaluators(settings, root)
    tell_stage("train-evaluators", root)


@app.command()
def train(params: options.ParamsFile = options.DEFAULT) -> None:
    """Train the autoencoder, or resume its training."""
    settings, root = load_tracked(params)
    from postprior.pipelines.settings.checks import check_model
    from postprior.pipelines.stages.train import train

    check_model(settings, settings.vae.model)
    train(settings, root)
    tell_stage("train", root)


@app.command()
def refine(params: options.ParamsFile = options.DEFAULT) -> None:
    """Train the refiner, or resume its training.

    It draws images and volumes given the means of the decoders, for --values refined. It is off if `refine` is null.
    """
    settings, root = load_tracked(params)
    from postprior.pipelines.stages.refine import refine

    refine(settings, root)
    tell_stage("refine", root)


@app.command()
def encode(params: options.ParamsFile = options.DEFAULT) -> None:
    """Encode every split into latent codes."""
    settings, root = load_tracked(params)
    from postprior.pipelines.stages.encode import encode

    encode(settings, root)
    tell_stage("encode", root)


@app.command()
def diagnose(params: options.ParamsFile = options.DEFAULT) -> None:
    """Compute diagnostics of the latent space.

    They measure how well the codes predict the labels, and which latent dimensions are unused.
    """
    settings, root = load_tracked(params)
    from postprior.pipelines.stages.diagnose import diagnose

    diagnose(settings, root)
    tell_stage("diagnose", root)


@app.command()
def score_baselines(params: options.ParamsFile = options.DEFAULT) -> None:
    """Score the baselines normal, reconstruction and real.

    They are draws from the model's own prior, decoded codes of held-out rows, and held-out rows themselves. Tables and
    vectors are also sampled without a model, as a Gaussian copula and as independent columns.
    """
    settings, root = load_tracked(params)
    from postprior.pipelines.stages.score_baselines import score_baselines

    score_baselines(settings, root)
    tell_stage("score-baselines", root)


@app.command()
def fit(
    name: options.DensityName,
    params: options.ParamsFile = options.DEFAULT,
    codes: Annotated[
        Path | None, typer.Option(help="Your own codes: a folder of codes, or an .npz file with means and scales.")
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="With --codes: codes of held-out rows for model selection; a tenth of the rows if not given."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --codes: folder of the density; artefacts/densities/NAME if not given.")
    ] = None,
) -> None:
    """Fit a density to the project's codes or to your own.

    With --codes, a density without an entry in params.yaml has its default options.
    """
    if codes is not None:
        no_project = params == options.DEFAULT and not params.exists()  # a fit to your own codes needs none
        settings_or_none, root = (None, Path()) if no_project else load(params)
        from postprior.pipelines.api.fit import fit_codes

        folder = fit_codes(name, settings_or_none, root, codes, validation, out)
        tell_written(
            folder, f"the density {name}", f"postprior draw {shell_quoted(folder)} --samples 1000 --out new.npz"
        )
        return
    if validation or out:
        raise UserError(
            "--validation and --out: found without --codes, expected them only with --codes; add it or leave them out"
        )
    settings, root = load_tracked(params)
    from postprior.pipelines.settings.checks import check_density
    from postprior.pipelines.stages.fit import fit

    check_density(settings, name)
    fit(name, settings, root)
    tell_stage("fit", root, name)


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
    complete: options.Complete = None,
    given: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="Dataset folder of rows with some modalities; the samples keep these, and the others are generated.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the synthetic dataset; artefacts/synthetic/NAME if not given.")
    ] = None,
) -> None:
    """Generate a synthetic dataset from a fitted density.

    Options that are not given have the values of `generate` in params.yaml.
    """
    settings, root = load_tracked(params)
    from postprior.pipelines.generation.request import SampleRequest
    from postprior.pipelines.stages.generate import generate

    changes = {"seed": seed, "values": values, "temperature": temperature, "truncation": truncation}
    changes |= {"complete": complete}
    request = SampleRequest.from_settings(settings.generate, samples, label_counts(label), **changes)
    generate(name, settings, root, request, out, given)
    if out is None:
        tell_stage("generate", root, name)
    else:
        tell_written(out, "a synthetic dataset", f"postprior export {shell_quoted(out)} FOLDER")


@app.command()
def evaluate(name: options.DensityName, params: options.ParamsFile = options.DEFAULT) -> None:
    """Score the synthetic dataset of a density."""
    settings, root = load_tracked(params)
    from postprior.pipelines.stages.evaluate import evaluate

    evaluate(name, settings, root)
    tell_stage("evaluate", root, name)


@app.command()
def utility(
    name: options.NameOrNone = None,
    params: options.ParamsFile = options.DEFAULT,
    real: Annotated[
        bool, typer.Option("--real", help="Train on real data instead of a density's samples, for comparison.")
    ] = False,
) -> None:
    """Train classifiers on synthetic data, test them on real data, and vice versa."""
    check_name(name, real, "--real")
    settings, root = load_tracked(params)
    from postprior.pipelines.stages.utility import utility, utility_of_real

    utility_of_real(settings, root) if name is None else utility(name, settings, root)
    tell_stage("utility-real" if name is None else "utility", root, name or "")


@app.command()
def augment(
    size: Annotated[str, typer.Argument(metavar="SIZE", help="Number of real training rows, or `all`.")],
    params: options.ParamsFile = options.DEFAULT,
) -> None:
    """Test whether adding synthetic rows helps if there are few real rows."""
    settings, root = load_tracked(params)
    from postprior.pipelines.settings.checks import check_density, check_model
    from postprior.pipelines.stages.augment import augment

    check_model(settings, settings.augment.model)
    check_density(settings, settings.augment.density)
    augment(size, settings, root)
    tell_stage("augment", root, size)


@app.command()
def privacy(name: options.DensityName, params: options.ParamsFile = options.DEFAULT) -> None:
    """Test if a density's samples reveal training rows."""
    settings, root = load_tracked(params)
    from postprior.pipelines.stages.privacy import privacy

    privacy(name, settings, root)
    tell_stage("privacy", root, name)


@app.command()
def evaluate_imputation(
    name: options.NameOrNone = None,
    params: options.ParamsFile = options.DEFAULT,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Impute with the baseline imputers, for comparison.")
    ] = False,
) -> None:
    """Hide values of test rows, impute and score them."""
    check_name(name, baselines, "--baselines")
    settings, root = load_tracked(params)
    from postprior.pipelines.stages.evaluate_imputation import evaluate_baseline_imputers, evaluate_imputation

    evaluate_baseline_imputers(settings, root) if name is None else evaluate_imputation(name, settings, root)
    tell_stage("evaluate-imputation-baselines" if name is None else "evaluate-imputation", root, name or "")


@app.command()
def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Names of densities; those in params.yaml if not given."),
    ] = None,
    params: options.ParamsFile = options.DEFAULT,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="LABEL=SOURCE",
            help="Add results under LABEL: the folder of a project, a Git revision or a DVC experiment; repeatable.",
        ),
    ] = None,
    experiments: Annotated[
        bool,
        typer.Option(
            "--experiments",
            help="Add the DVC experiments of the current commit, each under the settings that it changes.",
        ),
    ] = False,
    shareable: Annotated[
        bool,
        typer.Option("--shareable", help="Also write results/report-shareable.html, a report without real rows."),
    ] = False,
) -> None:
    """Write the leaderboard, the plots and the report."""
    settings, root = load_tracked(params)
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.report import sources, summary
    from postprior.pipelines.stages.compare import compare

    found = sources.experiments(root) if experiments else {}
    found |= parse_pairs("--with", others, "LABEL=SOURCE", "mopoe=../mopoe", cut=str.partition)
    compare(settings, root, names or (), found, shareable)
    if found:
        tell(*summary.shown(Project(root).results.comparison.read_text(encoding="utf-8")))
    tell_stage("compare", root)
    if shareable:
        tell(f"The report without real rows: {Project(root).results.shareable_page}")
