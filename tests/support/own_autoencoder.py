"""A small trained autoencoder of a user, which needs nothing of this package but the name of its block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from postprior import Block

SIZES = {"a": 3, "b": 4}
LATENT = 2


class Linear(nn.Module):
    """x_m = W_m z + offset + noise with W_mᵀ W_m = I, and the exact posterior of z ~ N(0, I) given any modalities."""

    layout = (Block("z", (LATENT,)),)

    def __init__(self, noise: float = 0.3, seed: int = 0) -> None:
        super().__init__()
        self.noise = noise
        generator = torch.Generator().manual_seed(seed)
        self.maps = nn.ParameterDict(
            {m: nn.Parameter(torch.linalg.qr(torch.randn(n, LATENT, generator=generator))[0]) for m, n in SIZES.items()}
        )
        self.offset = nn.Parameter(torch.tensor(5.0))

    def encode(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return locations and scales; the precision 1 + |S| / noise² is the same in all directions."""
        precision = 1 + len(batch) / self.noise**2
        total = torch.stack([(x - self.offset) @ self.maps[m] for m, x in batch.items()]).sum(0)
        loc = total / self.noise**2 / precision
        return loc, torch.full_like(loc, precision**-0.5)

    def decode(self, latents: Tensor, names: Sequence[str]) -> dict[str, torch.distributions.Normal]:
        """Return p(x_m | z)."""
        return {m: torch.distributions.Normal(latents @ self.maps[m].T + self.offset, self.noise) for m in names}


class Locations(Linear):
    """The same, which gives the locations of its likelihoods alone."""

    def decode(self, latents: Tensor, names: Sequence[str]) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the mean of p(x_m | z)."""
        return {m: p.mean for m, p in super().decode(latents, names).items()}


def trained(noise: float = 0.3) -> Linear:
    """Return a model whose parameters are not those of a new one."""
    return Linear(noise, seed=7)


def rows(count: int = 200, seed: int = 1) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw rows from two clusters of codes, which are the labels; the prior of the model does not know them."""
    model, rng = trained(), np.random.default_rng(seed)
    labels = rng.integers(2, size=count)
    z = rng.normal(size=(count, LATENT)) * 0.3 + np.where(labels, 1.5, -1.5)[:, None]
    noise = {m: model.noise * rng.normal(size=(count, n)) for m, n in SIZES.items()}
    with torch.no_grad():
        likelihoods = model.decode(torch.from_numpy(z).float(), tuple(SIZES))
    return {m: (p.mean.numpy() + noise[m]).astype(np.float32) for m, p in likelihoods.items()}, labels
