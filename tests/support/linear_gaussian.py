"""A linear–Gaussian model: every posterior and evidence in closed form, as an oracle for the autoencoders.

x_m = W_m z + b_m + σ ε with z ~ N(0, I). The columns of each W_m are orthogonal, so that W_mᵀW_m is diagonal and the
factor that x_m contributes to a posterior is a diagonal normal, which an encoder can express.
"""

import torch
from torch import Tensor, nn

from postprior.stage1_vae.distributions import Normal
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE
from support.equations import seeded

SIZE, LATENT, SCALE = 4, 2, 0.5
SIZES = {"latent": LATENT, "width": 1, "likelihood_scale": SCALE}


def modalities(count: int, likelihood: str = "normal") -> list[Modality]:
    return [Modality(f"m{index}", "vector", (SIZE,), likelihood) for index in range(count)]


class Factor(nn.Module):
    """The exact factor g_m(z) ∝ p(x_m | z), as an encoder's raw output."""

    def __init__(self, decoder: nn.Linear) -> None:
        super().__init__()
        precision = decoder.weight.square().sum(0) / SCALE**2  # diagonal of WᵀW/σ²
        self.register_buffer("gain", decoder.weight.T / SCALE**2 / precision[:, None])
        self.register_buffer("bias", decoder.bias)
        self.register_buffer("log_scale", -0.5 * precision.log())

    def forward(self, x: Tensor) -> Tensor:
        loc = (x - self.bias) @ self.gain.T
        return torch.cat([loc, self.log_scale.expand_as(loc)], -1)


def exact(model: MultimodalVAE, seed: int = 0) -> MultimodalVAE:
    """The model in float64 with linear decoders, and the encoders that give their exact factors."""
    generator = seeded(seed)
    for name in model.decoders:
        decoder = nn.Linear(LATENT, SIZE, dtype=torch.float64)
        basis = torch.linalg.qr(torch.randn(SIZE, LATENT, generator=generator, dtype=torch.float64)).Q
        stretch = 0.5 + torch.rand(LATENT, generator=generator, dtype=torch.float64)
        decoder.weight.data = basis * stretch
        decoder.bias.data = torch.randn(SIZE, generator=generator, dtype=torch.float64)
        model.decoders[name] = decoder
        model.encoders[name] = Factor(decoder)
    return model.double().requires_grad_(False)


def evidence(model: MultimodalVAE, batch: Batch, subset: Tensor) -> Tensor:
    """log p(x_S), (B,)."""
    names = [name for name, inside in zip(batch.data, subset.tolist(), strict=True) if inside]
    weight = torch.cat([model.decoders[name].weight for name in names])
    bias = torch.cat([model.decoders[name].bias for name in names])
    covariance = weight @ weight.T + SCALE**2 * torch.eye(len(bias), dtype=torch.float64)
    x = torch.cat([batch.data[name] for name in names], -1)
    return torch.distributions.MultivariateNormal(bias, covariance).log_prob(x)


def posterior(model: MultimodalVAE, batch: Batch, subset: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, D) and covariance (D, D) of p(z | x_S)."""
    precision, moment = (
        torch.eye(LATENT, dtype=torch.float64),
        torch.zeros(len(batch), LATENT, dtype=torch.float64),
    )
    for name, inside in zip(batch.data, subset.tolist(), strict=True):
        if inside:
            decoder = model.decoders[name]
            precision = precision + decoder.weight.T @ decoder.weight / SCALE**2
            moment = moment + (batch.data[name] - decoder.bias) @ decoder.weight / SCALE**2
    covariance = torch.linalg.inv(precision)
    return moment @ covariance, covariance


def is_exact(q: Normal, model: MultimodalVAE, batch: Batch, subset: Tensor) -> None:
    """Assert that q, batch shape (B,), has the mean and the variances of p(z | x_S)."""
    mean, covariance = posterior(model, batch, subset)
    torch.testing.assert_close(q.loc, mean)
    torch.testing.assert_close(q.variance, covariance.diagonal().expand_as(mean))


def sample(model: MultimodalVAE, rows: int, seed: int = 0) -> Batch:
    """Rows drawn from the model, all modalities observed."""
    generator = seeded(seed)
    z = torch.randn(rows, LATENT, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(model.decoders), rows, SIZE, generator=generator, dtype=torch.float64)
    data = {name: decoder(z) + SCALE * noise[m] for m, (name, decoder) in enumerate(model.decoders.items())}
    return Batch(data, torch.ones(rows, len(data), dtype=torch.bool))
