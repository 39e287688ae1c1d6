"""What the fixtures of the formats are measured by, when they are written and in every test since."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.baselines import Baselines
from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.density import load_density
from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.exchange import read_codes
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.storage import MANIFEST, read_json
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.layouts import split_blocks
from support.equations import seeded
from support.project import REPOSITORY

FOLDER = REPOSITORY / "tests/fixtures/formats"
SPLITS = ("train", "validation", "test")
COMPLETE, LACKING = 2, 1
"""Rows of the test split that models are measured on: with every modality, and without one."""


def autoencoders(home: Path) -> dict[str, Path]:
    """The folders of the autoencoders of a format, by model: that of the project, and those beside it."""
    own = home / "project/artefacts/autoencoder"
    return {read_json(own / MANIFEST)["model"]: own} | {p.name: p for p in sorted(home.glob("autoencoders/*"))}


def measure(home: Path) -> dict[str, dict[str, Any]]:
    """All that every later version must find in the fixtures of a format: models by name, other things by path."""
    artefacts = home / "project/artefacts"
    test = Dataset.load(artefacts / "data/test")
    codes = load_codes(artefacts / "codes/test")
    sets = [*(artefacts / "data").iterdir(), *(artefacts / "synthetic").iterdir(), artefacts / "imputed"]
    densities = [*sorted((artefacts / "densities").iterdir()), home / "own/density"]
    readers = {str(path.relative_to(home)): load_evaluators(path) for path in sorted(home.glob("**/evaluators"))}
    baselines = Baselines.load(artefacts / "baselines")
    return {
        "datasets": {str(path.relative_to(home)): of_dataset(Dataset.load(path)) for path in sorted(sets)},
        "autoencoders": {
            name: of_autoencoder(load_autoencoder(path)[0], test) for name, path in sorted(autoencoders(home).items())
        },
        "codes": {
            **{
                f"project/artefacts/codes/{split}": of_codes(load_codes(artefacts / "codes" / split))
                for split in SPLITS
            },
            "own/codes.npz": of_codes(read_codes(home / "own/codes.npz")),
        },
        "densities": {str(path.relative_to(home)): of_density(load_density(path), codes) for path in densities},
        "readers": {name: of_reader(evaluators, test) for name, evaluators in readers.items()},
        "references": {
            "project/artefacts/baselines": of_standard(baselines, readers["project/artefacts/evaluators"].outputs(test))
        },
    }


def numbers(values: Any) -> Any:
    """An array or a tensor as nested lists, to seven digits: what a float32 holds."""
    if isinstance(values, Tensor | np.ndarray):
        return numbers(values.tolist())
    if isinstance(values, list):
        return [numbers(value) for value in values]
    return float(f"{values:.7g}") if isinstance(values, float) else values


def fingerprint(array: np.ndarray) -> str:
    """Type, shape and content of an array, which no processor changes."""
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return f"{array.dtype.str} {list(array.shape)} {content}"


def of_dataset(dataset: Dataset) -> dict[str, str]:
    """Fingerprints of all that a dataset holds, by name."""
    single = ("mask", "filled", "labels", "targets", "groups", "ids")
    arrays = {name: array for name in single if (array := getattr(dataset, name)) is not None}
    for field in ("data", "cells", "filled_cells"):
        arrays |= {f"{field}.{name}": array for name, array in getattr(dataset, field).items()}
    return {name: fingerprint(array) for name, array in arrays.items()}


def of_codes(codes: Codes) -> dict[str, Any]:
    """Moments and a draw of some codes, and their prior's; null where a block has no posterior."""
    some = codes.select(torch.arange(6))
    assert codes.prior is not None
    return {
        "layout": [[block.name, list(block.shape), block.owner] for block in codes.layout],
        "names": list(codes.label_names or ()),
        "ids": list(some.ids or ()),
        "labels": [] if some.labels is None else some.labels.tolist(),
        "observed": codes.observed.sum(0).tolist(),
        "whole": None if codes.whole is None else int(codes.whole.sum()),
        "mean": _known(some.mean),
        "variance": _known(some.posterior().variance.masked_fill(~some.known(), torch.nan)),
        "draw": _known(some.draw(seeded(1))),
        "prior": {"mean": numbers(codes.prior.mean), "variance": numbers(codes.prior.variance)},
    }


def _known(values: Tensor) -> list[list[float | None]]:
    return [[None if value != value else value for value in row] for row in numbers(values)]


@torch.no_grad()
def of_autoencoder(model: MultimodalVAE, data: Dataset) -> dict[str, Any]:
    """What a model says of a few rows, some of which lack a modality: posteriors, decoders' means, losses in nats."""
    complete = np.flatnonzero(data.observed.all(1))[:COMPLETE]
    rows = np.append(complete, np.flatnonzero(~data.observed.all(1))[:LACKING])
    batch, whole = data.batch(rows), data.batch(complete)
    q, prior = model.encode(batch, seeded(1)), model.prior()
    measured = {
        "mean": numbers(q.mean),
        "variance": numbers(q.variance),
        "draw": numbers(model.posterior(batch).rsample((), seeded(2))),
        "prior": {"mean": numbers(prior.mean), "variance": numbers(prior.variance)},
        "decoded": {m: numbers(p.mean.flatten()) for m, p in model.decode(q.mean[:1], seeded(3)).items()},
        "loss": {
            phase.name: numbers(phase.objective(whole if phase.complete else batch, seeded(4), 1.0).per_sample)
            for phase in model.phases()
        },
    }
    if model.tractable:
        measured["log_evidence"] = numbers(model.log_evidence(batch, seeded(5), 4))
    return measured


@torch.no_grad()
def of_density(density: Density, codes: Codes) -> dict[str, Any]:
    """Draws of a density, and its scores of a few codes that have every block."""
    some = codes.select(codes.complete).select(torch.arange(4))
    z, labels = some.mean, some.labels if density.classes.labelled else None
    drawn = density.sample(6, seeded(1))
    measured: dict[str, Any] = {"sample": numbers(drawn.loc[:, 0]), "rows": density.rows}
    if labels is not None and drawn.labels is not None:
        measured["labels"] = drawn.labels.tolist()
        measured["of_label"] = numbers(density.sample(4, seeded(2), labels, temperature=0.5).loc[:, 0])
    if density.exact_log_prob or density.bound:
        measured["log_prob"] = numbers(density.log_prob(z))
        measured["log_prob_of_label"] = numbers(density.log_prob(z, labels))
    if density.exact_log_prob:
        measured["truncated"] = numbers(density.sample(4, seeded(3), truncation=0.3).loc[:, 0])
    shared = {"z": split_blocks(some.layout, z)["z"]}
    if density.conditional:
        measured["condition"] = numbers(density.condition(shared, seeded(4), labels).loc[:, 0])
    if density.marginal:
        measured["log_marginal"] = numbers(density.log_marginal(shared, labels))
    return measured


def of_reader(evaluators: Evaluators, data: Dataset) -> dict[str, Any]:
    """Features of a few rows, a list a modality, and the labels that are read in them."""
    outputs = evaluators.outputs(data.select(np.arange(4)))
    predictions = None if outputs.predictions is None else outputs.predictions.tolist()
    return {"features": [numbers(features) for features in outputs.features], "predictions": predictions}


def of_standard(baselines: Baselines, outputs: EvaluatorOutputs) -> dict[str, Any]:
    """Rows of the reference set, scores of the baseline rows, and the critic of the pairing."""
    return {
        "rows": baselines.rows.tolist(),
        "real": baselines.real.tolist(),
        "scores": {
            of: {key: numbers(values[:3]) for key, values in scores.items()} for of, scores in baselines.scores.items()
        },
        "critic": numbers(baselines.alignment.critic.embed(outputs)[:2].flatten(1)),
    }
