"""A small trained autoencoder of a user: linear, of three vectors that share a code of three dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from postprior.stage1_vae.distributions import Block

SIZES = {"a": 3, "b": 4}
LATENT = 2


class Linear(nn.Module):
    """x_m = W_m z + offset_m + noise, with the exact posterior of z ~ N(0, I) given any modalities."""

    layout = (Block("z", (LATENT,)),)

    def __init__(self, noise: float = 0.3, seed: int = 0) -> None:
        super().__init__()
        self.noise = noise
        generator = torch.Generator().manual_seed(seed)
        self.maps = nn.ParameterDict(
            {m: nn.Parameter(torch.linalg.qr(torch.randn(n, LATENT, generator=generator))[0]) for m, n in SIZES.items()}
        )
        self.offsets = nn.ParameterDict({m: nn.Parameter(torch.full((n,), 5.0)) for m, n in SIZES.items()})

    def encode(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """W_mᵀ W_m = I, so that the precision is diagonal."""
        precision = 1 + len(batch) / self.noise**2
        total = torch.stack([(x - self.offsets[m]) @ self.maps[m] for m, x in batch.items()]).sum(0)
        loc = total / self.noise**2 / precision
        return loc, torch.full_like(loc, precision**-0.5)

    def decode(self, latents: Tensor, names: Sequence[str]) -> dict[str, torch.distributions.Normal]:
        """Return p(x_m | z)."""
        return {m: torch.distributions.Normal(latents @ self.maps[m].T + self.offsets[m], self.noise) for m in names}


def rows(count: int, seed: int = 1) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw rows from two clusters of codes, which are the labels; the prior of the model does not know them."""
    model, rng = Linear(), np.random.default_rng(seed)
    labels = rng.integers(2, size=count)
    z = torch.from_numpy(rng.normal(size=(count, LATENT)) * 0.3 + np.where(labels, 1.0, -1.0)[:, None]).float()
    with torch.no_grad():
        values = {m: p.sample().numpy() for m, p in model.decode(z, tuple(SIZES)).items()}
    return values, labels
