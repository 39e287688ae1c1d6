"""Conditional generation through a density, beside the autoencoder's own posterior on the same draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.conditional import DRAWS, Candidates, effective_share
from postprior.pipelines.metrics.coherence.agreement import share_right
from postprior.pipelines.metrics.coherence.reconstruction import judged
from postprior.pipelines.metrics.features.judges import Judges
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    SCORED,
    SHARE,
    Floats,
    estimate,
    too_few,
    weighted_mean,
)
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage2_latent.density import Density

ROWS = 100  # rows of one block, each with every number of observed modalities


@torch.no_grad()
def scores_through(
    model: MultimodalVAE,
    density: Density,
    judges: Judges,
    data: Dataset,
    weights: Floats,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Conditional coherence through a density, by number of observed modalities, and what it gains.

    Each row's modalities are put into a random order, and the first 1, 2, … M − 1 of them are observed. From each
    such part the others are generated, once through the density and once from the plain posterior, with the same
    posterior draws and the same choice among them, which are also those of every other density. Data are complete
    rows with labels; weights (1 + B, N) theirs.

    Returns:
        `conditional_coherence` and `conditional_gain`, its paired difference to the plain posterior's;
        `private_gain`, that to the same codes with the private ones of missing modalities from the prior, for models
        that have such and densities that draw them; `effective_sample_share`, and the number of posterior draws.
    """
    if few := too_few(len(model.modalities), 2, "modalities") or too_few(len(data), FEWEST, SCORED):
        missing = {str(size): few.written for size in range(1, len(model.modalities))}
        return {
            "conditional_coherence": missing,
            "conditional_gain": missing,
            "effective_sample_share": few.written,
            "posterior_draws": DRAWS,
        }
    labels = np.asarray(data.labels)
    observed = nested_parts(len(data), len(model.modalities), rng)  # (N, M−1, M)
    posterior, own = (torch.Generator().manual_seed(int(seed)) for seed in rng.integers(2**63, size=2))
    blocks = [
        _generate(model, density, judges, data.select(rows), observed[rows], posterior, own)
        for rows in np.array_split(np.arange(len(data)), -(-len(data) // ROWS))
    ]
    ways = {
        way: share_right(np.concatenate([block.labels[way] for block in blocks]), labels, observed)
        for way in blocks[0].labels
    }  # each (N, M−1)
    effective = np.concatenate([block.effective for block in blocks]).mean(1)

    def by_size(values: NDArray[np.float64], bounds: tuple[float, float]) -> dict[str, dict[str, float]]:
        means = weighted_mean(values, weights)  # (1 + B, M−1)
        return {str(size): estimate(column, bounds) for size, column in enumerate(means.T, 1)}

    scores: dict[str, Any] = {
        "conditional_coherence": by_size(ways["density"], SHARE),
        "conditional_gain": by_size(ways["density"] - ways["plain"], (-1.0, 1.0)),
        "effective_sample_share": estimate(weighted_mean(effective, weights), SHARE),
        "posterior_draws": DRAWS,
    }
    if "prior" in ways:
        scores["private_gain"] = by_size(ways["density"] - ways["prior"], (-1.0, 1.0))
    return scores


def nested_parts(rows: int, modalities: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The first 1, 2, … M − 1 modalities in a random order of each row, (N, M − 1, M)."""
    places = rng.random((rows, modalities)).argsort(1).argsort(1)
    observed: NDArray[np.bool_] = places[:, None] < np.arange(1, modalities)[:, None]
    return observed


@dataclass(frozen=True)
class _Generated:
    """Labels (N, S, M) that judges read, by the way in which they were generated, and effective shares (N, S)."""

    labels: dict[str, NDArray[np.int64]]
    effective: NDArray[np.float64]


def _generate(
    model: MultimodalVAE,
    density: Density,
    judges: Judges,
    data: Dataset,
    observed: NDArray[np.bool_],
    posterior: torch.Generator,
    own: torch.Generator,
) -> _Generated:
    """What is generated of each row from each of its parts (N, S, M); `own` is the source of what the density draws."""
    parts, seen = observed.shape[:2], observed.reshape(-1, observed.shape[-1])
    repeated = replace(data.select(np.repeat(np.arange(len(data)), parts[1])), mask=seen)
    candidates = Candidates.draw(model, repeated.batch(slice(None)), posterior)
    log_weights = candidates.log_weights(density)
    plain, index = candidates.choose(torch.zeros_like(log_weights)), candidates.choose(log_weights)
    codes = candidates.chosen(index)
    ways = {"plain": (plain, candidates.chosen(plain)), "density": (index, codes)}
    if density.conditional and not bool(candidates.known.all()):
        ways |= {"prior": (index, codes), "density": (index, candidates.completed(codes, density, own))}
    labels = {
        way: judged(model, judges, candidates.latents(*chosen, own), ~seen).reshape(observed.shape)
        for way, chosen in ways.items()
    }
    return _Generated(labels, effective_share(log_weights).reshape(parts).numpy())
