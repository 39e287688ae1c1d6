"""The command line, one command a stage: load params.yaml, call the stage, turn errors into one line.

The table `COMMANDS` says where each command stands. Nothing heavy is imported here: a stage's module is imported by
the command that runs it.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from postprior.pipelines.commands import data, stages, uses

app = typer.Typer(
    help="Multimodal synthetic data from a latent prior that is fitted after the autoencoder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COMMANDS: dict[str, tuple[Callable[..., None], str]] = {  # in the order of the pipeline
    "import": (data.import_data, "Make dataset folders from your own files."),
    "init": (data.init, "Make a project from imported data."),
    "prepare": (stages.of_settings("prepare", "check_source"), "Make the dataset folders."),
    "judge": (stages.of_settings("judge"), "Train the classifiers that score."),
    "train": (stages.of_settings("train"), "Train the autoencoder, or resume it."),
    "encode": (stages.of_settings("encode"), "Encode every split into latent codes."),
    "inspect": (stages.of_settings("inspect"), "Score the codes and the health of their space."),
    "reference": (stages.of_settings("reference"), "Score what densities are set against."),
    "fit": (stages.fit, "Fit a density to the codes, or to codes of one's own."),
    "draw": (uses.draw, "Draw codes from a fitted density alone."),
    "generate": (uses.generate, "Draw a synthetic dataset from a density."),
    "impute": (uses.impute, "Fill in what the rows of a dataset lack."),
    "detect": (uses.detect, "Score how strange rows are beside normal ones."),
    "represent": (uses.represent, "Write the codes of any rows to a file."),
    "evaluate": (stages.of_density("evaluate"), "Score a density's synthetic dataset."),
    "export": (data.export, "Write a dataset folder back as files."),
    "utility": (stages.of_density("utility"), "Train on synthetic, test on real; `real` for comparison."),
    "augment": (stages.augment, "Add synthetic rows to few real ones."),
    "recover": (
        stages.of_density("recover"),
        "Hide what rows have, impute it and score; `baselines` for comparison.",
    ),
    "privacy": (stages.of_density("privacy"), "Test whether a density's samples give training rows away."),
    "compare": (stages.compare, "Write the table, plots and report."),
    "register": (uses.register, "Register a generator as a model in MLflow."),
    "track": (stages.of_settings("track"), "Log existing results to MLflow again."),
}
for _name, (_command, _about) in COMMANDS.items():
    app.command(_name, help=_about)(_command)
