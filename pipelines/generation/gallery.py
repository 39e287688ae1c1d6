"""Pictures of what is generated from parts of real rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.conditional import conditional_draw
from postprior.pipelines.generation.parts import decoded, in_parts
from postprior.pipelines.metrics.coherence.agreement import nested_parts
from postprior.stage1_vae.randomness import generator_for

if TYPE_CHECKING:
    from postprior.stage1_vae.model import MultimodalVAE
    from postprior.stage2_latent.density import Density

BYTES = 500_000
"""What the pictures may take, at most."""


@torch.no_grad()
def grid(model: MultimodalVAE, density: Density, real: Dataset, seed: int) -> dict[str, np.ndarray]:
    """Some real rows, and what is generated of each from 1, 2, … M − 1 of its modalities, for modalities of images.

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
    observed = nested_parts(len(real), M, np.random.default_rng(seed))
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
