"""Library sizes: the factor that all counts of a row share, beyond what its code says of their total.

Cells are sequenced to different depths. A code of a few dimensions follows the depth of a row only in part, and counts
that are drawn independently given the code have totals that are too much alike. The rates of a row are therefore

    ℓ μ(z),    log ℓ ~ N(m, s²),

so that the total is one more number that is drawn, given the code (library size: Lopez et al. 2018, scVI,
https://doi.org/10.1038/s41592-018-0229-2). m and s² are moments of the residuals r = log T − log Σ_j μ_j(z) of totals T
of held-out rows, given one posterior draw z of each, without what the noise of the counts adds to them: to first order,
E r = m − v / 2 and Var r = s² + v, where v = Σ_j Var(x_j | z) / (Σ_j μ_j)².
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch

from postprior.pipelines.data.dataset import Dataset
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.discrete import NegativeBinomial, ZeroInflatedNegativeBinomial
from postprior.stage1_vae.likelihoods import Likelihood
from postprior.stage1_vae.modalities import COUNTS, Modality
from postprior.stage1_vae.randomness import generator_for

FEWEST = 20
"""Held-out rows, at least."""
ROWS, MOST = 256, 2048
"""Rows per block, and held-out rows, at most."""


@dataclass(frozen=True)
class RowFactors:
    """The mean m and the standard deviation s of the logarithms of the factors of rows, by vector of counts."""

    moments: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def fit(cls, model: Autoencoder, held_out: Dataset, seed: int) -> Self:
        """Learn the factors of all vectors of counts that `FEWEST` held-out rows have in full, with a total above 0."""
        residuals: dict[str, list[torch.Tensor]] = {m.name: [] for m in model.modalities if _counted(m)}
        if not residuals:
            return cls()
        generator, whole = generator_for("cpu", seed), held_out.fully_observed[:MOST]
        for start in range(0, len(whole), ROWS):
            rows = slice(start, min(start + ROWS, len(whole)))
            batch = held_out.batch(rows)
            codes, states = model.candidates(batch, 1, generator)
            latents = (model.descend(codes, generator) if states is None else states)[:, 0]
            for index, m in enumerate(model.modalities):
                if m.name in residuals:
                    total = batch.data[m.name].sum(-1)
                    seen = torch.from_numpy(whole[rows, index]) & (total > 0)
                    p, total = model.decode_one(m, latents[seen]), total[seen]
                    assert isinstance(p, (NegativeBinomial, ZeroInflatedNegativeBinomial))
                    mean = p.mean.sum(-1)
                    pair = torch.stack([(total / mean).log(), p.variance.sum(-1) / mean.square()])
                    residuals[m.name].append(pair.double())
        found = {name: torch.cat(pairs, 1) for name, pairs in residuals.items()}
        return cls({name: _moments(r, v) for name, (r, v) in found.items() if len(r) >= FEWEST})

    def applied(self, modality: Modality, p: Likelihood, generator: torch.Generator) -> Likelihood:
        """Return the likelihood (…, *shape) of a modality with one factor drawn for each row."""
        if modality.name not in self.moments:
            return p
        assert isinstance(p, (NegativeBinomial, ZeroInflatedNegativeBinomial))
        mean, deviation = self.moments[modality.name]
        noise = torch.randn(*p.mean.shape[:-1], 1, generator=generator).to(p.mean)
        return p.times(mean + deviation * noise)

    def describe(self) -> dict[str, Any]:
        """JSON-able description; empty without factors."""
        return {"row_factors": {name: list(pair) for name, pair in self.moments.items()}} if self.moments else {}

    @classmethod
    def from_description(cls, manifest: Mapping[str, Any]) -> Self:
        """Return the factors in a manifest that has what `describe` returned."""
        return cls({name: (float(m), float(s)) for name, (m, s) in manifest.get("row_factors", {}).items()})


def _counted(modality: Modality) -> bool:
    """Whether a modality is a vector of counts."""
    return modality.kind == "vector" and modality.likelihood in COUNTS


def _moments(residuals: torch.Tensor, noise: torch.Tensor) -> tuple[float, float]:
    """Return m and s for residuals r (n,) whose noise has the variances v (n,)."""
    v = float(noise.mean())
    return float(residuals.mean()) + v / 2, float(np.sqrt(max(float(residuals.var()) - v, 0.0)))
