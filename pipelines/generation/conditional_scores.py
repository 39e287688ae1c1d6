"""Modalities generated from others, once by the autoencoder alone and once through a density, and how well they agree.

What is generated of a row from some of its modalities is read by classifiers: see `metrics/coherence/agreement.py`.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.conditional import DRAWS, Candidates, conditional_draw, effective_share
from postprior.pipelines.metrics.coherence.agreement import by_size, nested_subsets, share_right, subsets_by_size
from postprior.pipelines.metrics.features.extractor import BLOCK
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.statistics.intervals import SHARE, Floats, estimate, too_few, unscored, weighted_mean
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.randomness import generator_for, generator_from
from postprior.stage2_latent.density import Density

SUBSETS = 60  # subsets of observed modalities, at the most
ROWS = 64  # rows encoded at once, each from every subset
NESTED_ROWS = 100  # rows of one block, each with every number of observed modalities
BYTES = 500_000  # what the pictures may take, at most


@torch.no_grad()
def conditional_scores(
    model: MultimodalVAE, classifiers: LabelClassifiers, data: Dataset, weights: Floats, rng: np.random.Generator
) -> dict[str, Any]:
    """Conditional coherence {"1": {"value", "low", "high"}, …} by number of observed modalities.

    From every subset of the modalities of a row one posterior draw is decoded into those that the subset lacks,
    whose labels the classifiers compare with the row's. Data are complete rows with labels; weights (1 + B, N) theirs.
    """
    assert data.labels is not None
    sizes = range(1, len(model.modalities))
    if not sizes:
        return {}
    if few := unscored(len(data)):
        return {str(size): few.written for size in sizes}
    subsets = subsets_by_size(len(model.modalities), SUBSETS, rng)
    generator = generator_from(rng)
    labels = generated_labels(model, classifiers, data, subsets, generator)
    right, observed = share_right(labels, np.asarray(data.labels), subsets), subsets.sum(1)
    shares = (right[:, observed == size].mean(1) for size in sizes)
    return by_size("conditional_coherence", (weighted_mean(share, weights) for share in shares))


def generated_labels(
    model: MultimodalVAE,
    classifiers: LabelClassifiers,
    data: Dataset,
    subsets: NDArray[np.bool_],
    generator: torch.Generator,
) -> NDArray[np.int64]:
    """Labels (N, S, M) that judges read in the modalities generated from each subset (S, M); −1 where it observes."""
    labels = []
    for start in range(0, len(data), ROWS):
        batch = data.batch(slice(start, start + ROWS))
        latents = model.infer(batch, torch.from_numpy(subsets), generator)  # (B, S, F)
        wanted = np.tile(~subsets, (len(latents), 1))
        labels.append(judged(model, classifiers, latents.flatten(0, 1), wanted))
    return np.concatenate(labels).reshape(-1, *subsets.shape)


@torch.no_grad()
def scores_through(
    model: MultimodalVAE,
    density: Density,
    classifiers: LabelClassifiers,
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
    M = len(model.modalities)
    if few := too_few(M, 2, "modalities") or unscored(len(data)):
        missing = {str(size): few.written for size in range(1, M)}
        return {
            "conditional_coherence": missing,
            "conditional_gain": missing,
            "effective_sample_share": few.written,
            "posterior_draws": DRAWS,
        }
    labels = np.asarray(data.labels)
    observed = nested_subsets(len(data), M, rng)  # (N, M−1, M)
    posterior, own = (generator_from(rng) for _ in range(2))
    blocks = np.array_split(np.arange(len(data)), -(-len(data) // NESTED_ROWS))
    parts = (in_parts(data.select(rows), observed[rows]) for rows in blocks)
    found, effective = zip(*(_read(model, density, classifiers, part, posterior, own) for part in parts), strict=True)
    ways = {
        way: share_right(np.concatenate([read[way] for read in found]).reshape(observed.shape), labels, observed)
        for way in found[0]
    }  # each (N, M−1)
    shares = np.concatenate(effective).reshape(len(data), -1).mean(1)
    values = {"conditional_coherence": ways["density"], "conditional_gain": ways["density"] - ways["plain"]}
    if "prior" in ways:
        values["private_gain"] = ways["density"] - ways["prior"]
    scores = {key: by_size(key, weighted_mean(each, weights).T) for key, each in values.items()}
    scores["effective_sample_share"] = estimate(weighted_mean(shares, weights), SHARE)
    return {**scores, "posterior_draws": DRAWS}


def _read(
    model: MultimodalVAE,
    density: Density,
    classifiers: LabelClassifiers,
    parts: Dataset,
    posterior: torch.Generator,
    own: torch.Generator,
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.floating[Any]]]:
    """Labels (n, M) that judges read in what rows lack, by the way of generating it, and effective shares (n,)."""
    candidates = Candidates.draw(model, parts.batch(slice(None)), posterior)
    log_weights = candidates.log_weights(density)
    plain, index = candidates.choose(torch.zeros_like(log_weights)), candidates.choose(log_weights)
    codes = candidates.chosen(index)
    ways = {"plain": (plain, candidates.chosen(plain)), "density": (index, codes)}
    if density.conditional and not bool(candidates.known.all()):
        ways |= {"prior": (index, codes), "density": (index, candidates.completed(codes, density, own))}
    labels = {
        way: judged(model, classifiers, candidates.latents(*chosen, own), ~parts.observed)
        for way, chosen in ways.items()
    }
    return labels, effective_share(log_weights).numpy()


def in_parts(data: Dataset, observed: NDArray[np.bool_]) -> Dataset:
    """N complete rows of which only parts (N, S, M) are observed: (N · S) rows, those of one row together."""
    rows = np.repeat(np.arange(len(data)), observed.shape[1])
    return replace(data.select(rows), mask=observed.reshape(-1, observed.shape[2]))


def judged(
    model: MultimodalVAE, classifiers: LabelClassifiers, latents: Tensor, wanted: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Labels (n, M) that judges read in the modalities wanted (n, M) of what decoders read (n, F); −1 in the others."""
    predictions = np.full(wanted.shape, -1, np.int64)
    for m, modality in enumerate(model.modalities):
        rows = np.flatnonzero(wanted[:, m])
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            shown = decoded(model, modality, latents[torch.from_numpy(some)])
            predictions[some, m] = classifiers.labels(modality.name, shown).numpy()
    return predictions


def decoded(model: MultimodalVAE, modality: Modality, latents: Tensor) -> Tensor:
    """Means (n, *shape) of one decoder for what it reads (n, F), as data of the modality may hold them."""
    return modality.to_support(model.decode_one(modality, latents).mean)


@torch.no_grad()
def grid(model: MultimodalVAE, density: Density, real: Dataset, seed: int) -> dict[str, np.ndarray]:
    """Pictures of some real rows, and of what is generated of each from 1, 2, … M − 1 of its modalities.

    The rows, the parts that are observed and the draws of the posterior are those of every density.

    Returns:
        `grid.real.<m>` (rows, *shape), `grid.<m>` (rows, M − 1, *shape) with the real value where it is observed, and
        `grid.observed` (rows, M − 1, M); nothing without images. Of large ones there are fewer rows, then fewer pixels.
    """
    images = [(index, m) for index, m in enumerate(real.modalities) if m.kind == "image"]
    if not images or not len(real):
        return {}
    M = len(real.modalities)
    size = sum(math.prod(m.shape) for _, m in images) * M * 4  # bytes of a row, real and made
    real = real.select(np.arange(max(1, min(len(real), BYTES // size))))
    step = max(1, math.ceil(math.sqrt(size / BYTES)))
    observed = nested_subsets(len(real), M, np.random.default_rng(seed))
    repeated = in_parts(real, observed)
    noise = generator_for("cpu", seed, 3)
    latents, _ = conditional_draw(model, density, repeated.batch(slice(None)), noise)
    arrays: dict[str, np.ndarray] = {"grid.observed": observed}
    for index, m in images:
        here = observed[:, :, index].reshape(-1, *[1] * len(m.shape))
        shown = np.where(here, repeated.data[m.name], decoded(model, m, latents).numpy())
        shown = shown.reshape(*observed.shape[:2], *m.shape)
        for key, values in ((m.name, shown), (f"real.{m.name}", real.data[m.name])):
            arrays[f"grid.{key}"] = np.asarray(values[..., ::step, ::step], np.float32)
    return arrays
