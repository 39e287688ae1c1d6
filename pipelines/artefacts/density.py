"""Save and load fitted densities, and compute their log-likelihoods of codes."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from postprior.pipelines.artefacts.allocations import AllocationLimit
from postprior.pipelines.artefacts.codes import complete_rows
from postprior.pipelines.metrics.statistics.intervals import too_few
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.settings.names import pick
from postprior.pipelines.storage import Artefact, check_tensors, load_artefact, rebuilding, save_artefact
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density

KIND = "density"
MOST = 2000  # largest number of rows per split whose log-likelihood is computed


def log_likelihoods(density: Density, codes: dict[str, Codes], seed: int) -> dict[str, Any]:
    """Return the mean log p(z), in nats, of one posterior draw per row, by split; or the mean of its lower bound.

    At most `MOST` complete rows are used, since samples are complete. The result is empty for a density without scores.
    The value of a split is missing, with a reason, if it has no complete row or if some row has no finite likelihood.
    """
    if not (density.exact_log_prob or density.bound):
        return {}
    means: dict[str, Any] = {}
    for split, table in codes.items():
        generator, rows = generator_for("cpu", seed, 1), complete_rows(table)
        if len(rows) > MOST:
            rows = rows[torch.randperm(len(rows), generator=generator)[:MOST]]
        if missing := too_few(len(rows), 1, f"complete {'training' if split == 'train' else split} rows"):
            means[split] = missing.written
            continue
        with torch.no_grad():
            mean = float(density.log_prob(table.draw(generator, rows)).mean())
        means[split] = mean if math.isfinite(mean) else Missing("some rows have no finite likelihood").written
    return means


def save_density(
    folder: Path,
    density: Density,
    record: dict[str, Any],
    inputs: Iterable[Path] = (),
    arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Publish a fitted density with a record of its fit and origins; `inputs` are the files it was fitted to.

    `arrays` are stored beside the density; the record describes them.
    """
    tensors, description = density.state()
    save_artefact(folder, KIND, {**description, **record}, tensors, dict(arrays or {}), inputs)


def load_density(folder: Path | str) -> Density:
    """Load the fitted density in a folder; this needs neither data nor an autoencoder.

    Example:
        load_density("artefacts/densities/gmm").sample(1000)
    """
    return density_of(load_artefact(Path(folder), KIND), Path(folder))


def density_of(artefact: Artefact, folder: Path) -> Density:
    """Rebuild the density of an artefact; `folder` is named in errors."""
    with rebuilding(folder), AllocationLimit.of(artefact.tensors):
        family = pick(DENSITIES, artefact.manifest["density"], f"{folder}: density", "density")
        density = family.from_state(artefact.tensors, artefact.manifest)
        check_tensors(artefact.tensors, density.state()[0])
    return density
