"""Build the autoencoder from settings; save and load a trained one."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from postprior.pipelines.artefacts.adapted import adapted_of
from postprior.pipelines.artefacts.allocations import AllocationLimit
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import write_text
from postprior.pipelines.settings.params import ADAPTED, Params
from postprior.pipelines.storage import Artefact, check_tensors, load_artefact, rebuilding, save_artefact
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.hiding import has_cells
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.networks.own import OwnNetwork, try_own_networks

T = TypeVar("T")
KIND = "autoencoder"
History = list[dict[str, Any]]  # metrics of each epoch, over all phases


def build(params: Params, data: Dataset) -> MultimodalVAE:
    """Build the untrained model of params.yaml for a dataset; modalities whose cells are missing, or will be hidden in
    training, are marked as partial.

    User-defined networks are tried on a few rows, in a model of their own.

    Raises:
        UserError: the settings do not fit the model or the data.
        UserCodeError: a user-defined network fails.
    """
    from postprior.stage1_vae.models import MODELS

    hides = params.train.hide_cells > 0
    modalities = [replace(m, partial=m.name in data.cells or (hides and has_cells(m))) for m in data.modalities]
    construct = partial(MODELS[params.vae.model], modalities, seed=params.seed, **params.vae.sizes, **params.vae.chosen)
    try:
        model = construct()
    except ValueError as error:
        raise UserError(f"vae: {error}") from None
    if any(isinstance(module, OwnNetwork) for module in model.modules()):
        try_own_networks(construct(), examples(modalities, data))
    return model


def examples(modalities: Sequence[Modality], data: Dataset) -> dict[str, Tensor]:
    """Return two observed values (2, *shape) of each modality that some row has, as encoders read them."""
    rows = {
        m: np.resize(np.flatnonzero(has)[:2], 2)
        for m, has in zip(modalities, data.observed.T, strict=True)
        if has.any()
    }
    return {m.name: data.batch(two).encoder_input(m) for m, two in rows.items()}


def save_autoencoder(
    project: Project,
    model: Autoencoder,
    params: Params,
    data: Dataset,
    digest: str | None,
    history: History,
    confirm: Callable[[], None] = lambda: None,
    learned: Mapping[str, Any] | None = None,
) -> None:
    """Publish a trained model and the metrics of its epochs: artefacts/autoencoder and results/training.csv.

    `data` are its training rows, and `digest` is their hash. `confirm` is called last before anything is written, and
    may raise. The manifest has what is `learned` of the model, if anything.
    """
    tensors, description = model.state()
    facts = {"model": params.vae.model, "data": digest, "train": params.train.model_dump()}
    if not params.train.hide_cells and (columns := never_missing(data)):
        facts["never_missing"] = columns
    confirm()
    save_artefact(project.artefacts.autoencoder, KIND, {**description, **facts, **(learned or {})}, tensors)
    write_text(project.results.training, table(history))


def never_missing(data: Dataset) -> dict[str, list[int]]:
    """Return the values of partly observed tables and vectors that are never missing where their modality is there."""
    columns = {}
    for m, has in zip(data.modalities, data.observed.T, strict=True):
        if m.name in data.cells and has_cells(m):
            columns[m.name] = np.flatnonzero(data.cells[m.name][has].all(0)).tolist()
    return {name: numbers for name, numbers in columns.items() if numbers}


def table(history: History) -> str:
    """Return the history as CSV; metrics that a phase does not have are empty."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def load_autoencoder(folder: Path) -> tuple[Autoencoder, Artefact]:
    """Load the trained model in a folder; also return its artefact."""
    artefact = load_artefact(folder, KIND)
    return autoencoder_of(artefact, folder), artefact


def autoencoder_of(artefact: Artefact, folder: Path) -> Autoencoder:
    """Rebuild the model of an artefact; `folder` is named in errors."""
    from postprior.stage1_vae.models import MODELS

    builders: dict[str, Callable[..., Autoencoder]] = {name: model.from_state for name, model in MODELS.items()}
    builders[ADAPTED] = adapted_of
    with rebuilding(folder), AllocationLimit.of(artefact.tensors):
        name = artefact.manifest["model"]
        if name not in builders:
            raise UserError(f"{folder}: found model {name!r}, expected one of {', '.join(builders)}; update postprior")
        try:
            model = builders[name](artefact.tensors, artefact.manifest)
        except ValueError as error:  # for example, from user-defined networks
            raise UserError(f"{folder}: {error}") from None
        check_tensors(artefact.tensors, model.state()[0])
    return model


def as_user_errors(epochs: Iterator[T]) -> Iterator[T]:
    """Yield the epochs; raise a UserError if the loss diverges or if a phase cannot use the rows."""
    try:
        yield from epochs
    except (FloatingPointError, ValueError) as error:
        raise UserError(str(error)) from None
