"""The uses of a trained generator: draw, fill in, score, represent, register."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from postprior.pipelines.commands.options import (
    DEFAULT,
    DensityName,
    Force,
    LabelCounts,
    ParamsFile,
    Samples,
    Seed,
    Temperature,
    Truncation,
    Values,
    label_counts,
)
from postprior.pipelines.commands.running import imported, load, told_in_one_line
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import tell


def draw(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A fitted density.")],
    out: Annotated[Path, typer.Option(help="The .npz file.")],
    samples: Samples = None,
    seed: Seed = None,
    label: LabelCounts = None,
    temperature: Temperature = None,
    truncation: Truncation = None,
    force: Force = False,
) -> None:
    """The command of `draw`, which reads no settings."""
    with told_in_one_line():
        if samples is None and not label:
            raise UserError("--samples: found none, expected a number, or --label LABEL=COUNT")
        from postprior.pipelines.generation.request import Request

        given = {"seed": seed, "temperature": temperature, "truncation": truncation}
        options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        imported("api.draw", "draw")(
            folder, out, Request(samples, labels=label_counts(label), **options), force
        )


def generate(
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
    with told_in_one_line():
        settings, root = load(params)
        from postprior.pipelines.generation.request import Request

        changes = {"seed": seed, "values": values, "temperature": temperature, "truncation": truncation}
        request = Request.of(settings.generate, samples, label_counts(label), **changes)
        imported("stages.generate", "generate")(name, settings, root, request, out, given)


def impute(
    name: DensityName,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder with holes.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder of what is filled in.")],
    params: ParamsFile = DEFAULT,
    draws: Annotated[int, typer.Option(help="Several make folders 1, 2, … in OUT.")] = 1,
    values: Values = None,
    seed: Seed = None,
) -> None:
    """The command of `impute`: options that are not given are those of `generate` in params.yaml."""
    with told_in_one_line():
        settings, root = load(params)
        told = imported("api.impute", "impute")(name, dataset, settings, root, out, draws, values, seed)
        tell(*told)


def detect(
    name: DensityName,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="The rows to be scored.")],
    out: Annotated[Path, typer.Option(help="A table that ends in .csv, .tsv or .parquet.")],
    params: ParamsFile = DEFAULT,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Normal rows that had no part in training; artefacts/data/test if not given."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="The share of normal rows that may be flagged.")] = 0.05,
    force: Force = False,
) -> None:
    """The command of `detect`."""
    with told_in_one_line():
        settings, root = load(params)
        told = imported("api.detect", "detect")(name, dataset, settings, root, out, calibration, alpha, force)
        tell(*told)


def represent(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="Rows that have some or all modalities.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file that ends in .npz, .parquet or .h5ad.")],
    params: ParamsFile = DEFAULT,
    seed: Annotated[int, typer.Option(help="Of draws that stand for large posteriors.")] = 0,
    force: Force = False,
) -> None:
    """The command of `represent`."""
    with told_in_one_line():
        settings, root = load(params)
        folder, components = root / "artefacts/autoencoder", settings.encode.components
        told = imported("api.represent", "represent")(dataset, folder, out, seed, components, force)
        tell(*told)


def register(
    name: DensityName,
    params: ParamsFile = DEFAULT,
    model: Annotated[
        str | None, typer.Option("--as", metavar="MODEL_NAME", help="postprior-NAME if not given.")
    ] = None,
    alias: Annotated[str, typer.Option(help="Of this version.")] = "champion",
) -> None:
    """The command of `register`."""
    with told_in_one_line():
        settings, root = load(params)
        tell(imported("api.register", "register")(name, settings, root, model, alias))
