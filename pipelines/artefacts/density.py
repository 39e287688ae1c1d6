"""Fitted densities, loaded, and their scores of codes."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from postprior.pipelines.artefacts.codes import complete_rows
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.settings.names import pick
from postprior.pipelines.storage import Artefact, load_artefact, rebuilding, save_artefact
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density

KIND = "density"
MOST = 5000  # rows of a split whose log-likelihood is taken


def log_likelihoods(density: Density, codes: dict[str, Codes], seed: int) -> dict[str, Any]:
    """Mean log p(z) of one posterior draw of each row of each split, in nats, or the mean of a lower bound of it.

    Of rows that have every modality, as whole samples have, `MOST` at the most; nothing for a density without scores.
    Missing, as it is written, of a split without such rows, or with one to which the density gives no likelihood.
    """
    if not (density.exact_log_prob or density.bound):
        return {}
    means: dict[str, Any] = {}
    for split, table in codes.items():
        generator, rows = generator_for("cpu", seed, 1), complete_rows(table)
        if len(rows) > MOST:
            rows = rows[torch.randperm(len(rows), generator=generator)[:MOST]]
        if not len(rows):
            means[split] = Missing(f"no {split} row has every modality").written
            continue
        with torch.no_grad():
            mean = float(density.log_prob(table.draw(generator, rows)).mean())
        means[split] = mean if math.isfinite(mean) else Missing("some rows have no finite likelihood").written
    return means


def save_density(folder: Path, density: Density, known: dict[str, Any], inputs: Iterable[Path] = ()) -> None:
    """Publish a fitted density with what is known of its fit and origins; `inputs` are what was read for it."""
    tensors, description = density.state()
    save_artefact(folder, KIND, {**description, **known}, tensors, inputs=inputs)


def load_density(folder: Path | str) -> Density:
    """The fitted density in a folder; it needs neither data nor an autoencoder.

    Example:
        load_density("artefacts/densities/gmm").sample(1000)
    """
    return density_of(load_artefact(Path(folder), KIND), Path(folder))


def density_of(artefact: Artefact, folder: Path) -> Density:
    """The density of an artefact that lies in a folder."""
    family = pick(DENSITIES, artefact.manifest["density"], f"{folder}: density", "density")
    with rebuilding(folder):
        return family.from_state(artefact.tensors, artefact.manifest)
