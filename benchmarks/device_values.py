"""Compares values and gradients on a device with those of the CPU in double precision, for all models and densities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from postprior import DENSITIES, MODELS, Block
from postprior.stage1_vae import randomness
from postprior.stage1_vae.distributions import Mixture, Normal
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.phases import Phase
from postprior.stage1_vae.training import freeze_except
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density

MODALITIES = (
    Modality("a", "image", (3, 16, 16), "laplace", (0, 1)),
    Modality("b", "image", (1, 8, 8), "bernoulli", (0, 1)),
    Modality("c", "vector", (6,), "normal"),
)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Largest relative difference from the CPU in double precision at which a value counts as equal."""
LATENT, ROWS = 8, 16
QUICK: dict[str, dict[str, Any]] = {
    "gmm": {"components": [2], "passes": 5},
    "flow": {"blocks": 2, "hidden": 16, "components": 2, "steps": 20},
    "flow_matching": {"hidden": 16, "steps": 20},
    "vamp": {"pseudo_inputs": 20, "steps": 5},
    "kde": {"bandwidth": [1]},
    "two_stage_vae": {"hidden": 16, "layers": 1, "draws": 4, "steps": 20},
    "riemannian": {"radius": [0.2]},
    "auto": {"candidates": {"normal": {}, "gmm": {"components": [1], "passes": 5}}},
    "independent": {"density": "gmm", "options": {"components": [1], "passes": 5}},
}
"""Options of densities that are fitted in a moment."""


@contextmanager
def host_noise() -> Iterator[None]:
    """Draw the noise of models on the host and in double precision, so that every device and type has the same."""
    original = randomness._draw

    def draw(kind: Any, size: Any, dtype: Any, device: Any, generator: Any, dim: int) -> Tensor:
        return original(kind, size, torch.float64, torch.device("cpu"), generator, dim).to(device, dtype)

    randomness._draw = draw
    try:
        yield
    finally:
        randomness._draw = original


def batch(complete: bool) -> Batch:
    """Return rows of noise; if they are not complete, some lack the second or the third modality."""
    generator = torch.Generator().manual_seed(0)
    data = {m.name: torch.rand(ROWS, *m.shape, generator=generator, dtype=torch.float64) for m in MODALITIES}
    observed = torch.ones(ROWS, len(MODALITIES), dtype=torch.bool)
    if not complete:
        observed[::3, 1] = False
        observed[1::4, 2] = False
    return Batch(data, observed)


def losses_and_gradient(model: MultimodalVAE, phase: Phase, data: Batch) -> tuple[Tensor, Tensor]:
    """Return the losses (B,) of a step and its gradient, all parameters in one vector, on the CPU in double."""
    model.zero_grad()
    with freeze_except(model, phase), host_noise():
        losses = phase.objective(data, torch.Generator().manual_seed(1), 1.0).per_sample
        losses.mean().backward()
    gradient = torch.cat(
        [torch.zeros(p.numel()).to(p) if p.grad is None else p.grad.flatten() for p in phase.parameters]
    )
    return losses.detach().cpu().double(), gradient.cpu().double()


def difference(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖."""
    return float((found - expected).norm() / expected.norm().clamp_min(1e-300))


def models(device: torch.device) -> dict[str, Any]:
    """Return, by model, phase, rows and type, the relative differences of losses and gradients from the CPU."""
    results: dict[str, Any] = {}
    for name in MODELS:
        reference = MODELS[name](MODALITIES, latent=LATENT, width=4).double()
        for index, phase in enumerate(reference.phases()):
            for kind in ("complete", "incomplete")[: 1 if phase.complete else 2]:
                rows = batch(kind == "complete")
                expected = losses_and_gradient(reference, phase, rows)
                for dtype in TOLERANCE:
                    other = MODELS[name](MODALITIES, latent=LATENT, width=4).to(device, dtype)
                    found = losses_and_gradient(other, other.phases()[index], rows.to(device, dtype))
                    pairs = zip(("losses", "gradient"), found, expected, strict=True)
                    entry = {part: difference(one, two) for part, one, two in pairs}
                    key = f"{name} {phase.name} {kind} {str(dtype).removeprefix('torch.')}"
                    results[key] = entry | {"equal": max(entry.values()) <= TOLERANCE[dtype]}
    return results


class Identity:
    """An encoder whose posteriors are normals of a fixed scale around the inputs."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the inputs of rows."""
        return {"x": self.x[rows]}

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        """Return the posteriors of inputs."""
        return Mixture.single(Normal(inputs["x"], torch.full_like(inputs["x"], 0.3)))


def labelled_codes(
    rows: int, size: int, labels: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> Codes:
    """Return normal posteriors (rows, size) of scale 0.3 around correlated clusters, one per label."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.arange(rows) % labels
    noise = torch.randn(rows, size, generator=generator, dtype=torch.float64)
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    loc = torch.randn(labels, size, generator=generator, dtype=torch.float64)[chosen] + noise @ mixing
    loc = loc.to(device, dtype).unsqueeze(1)
    zero = torch.zeros_like(loc[0, 0])
    return Codes(
        layout=(Block("z", (size,)),),
        family="normal",
        loc=loc,
        scale=torch.full_like(loc, 0.3),
        weights=torch.ones_like(loc[..., 0]),
        observed=torch.ones(rows, 1, dtype=torch.bool, device=device),
        prior=Mixture.single(Normal(zero, torch.ones_like(zero))),
        labels=chosen.to(device),
        label_names=tuple(map(str, range(labels))),
    )


def moved(density: Density, device: torch.device, dtype: torch.dtype) -> Density:
    """Return a fitted density on another device and in another type."""
    tensors, meta = density.state()
    placed = {name: x.to(device, dtype if x.is_floating_point() else None) for name, x in tensors.items()}
    return type(density).from_state(placed, meta)


def densities(device: torch.device) -> dict[str, Any]:
    """Return, by density and type, the relative difference of log-densities from the CPU, and what samples have.

    Devices draw other numbers: samples are compared by the mean of their log-density on the CPU.
    """
    codes = labelled_codes(200, 4, 2, torch.device("cpu"), torch.float64)
    z, results = codes.loc[:50, 0], {}
    for name in DENSITIES:
        generator = torch.Generator().manual_seed(0)
        density = DENSITIES[name](**QUICK.get(name, {})).fit(codes, None, generator, Identity(codes.loc[:, 0]))
        for dtype, tolerance in TOLERANCE.items():
            other = moved(density, device, dtype)
            samples = other.sample(200, torch.Generator(device).manual_seed(0)).loc[:, 0]
            entry: dict[str, Any] = {"finite_samples": bool(samples.isfinite().all())}
            if density.exact_log_prob or density.bound:
                with torch.no_grad():
                    found, expected = other.log_prob(z.to(device, dtype)).cpu().double(), density.log_prob(z)
                    own = density.sample(200, torch.Generator().manual_seed(0)).loc[:, 0]
                    shift = density.log_prob(samples.cpu().double()).mean() - density.log_prob(own).mean()
                entry |= {"log_prob": difference(found, expected), "shift_of_samples": float(shift)}
            entry["equal"] = entry["finite_samples"] and entry.get("log_prob", 0.0) <= tolerance
            results[f"{name} {str(dtype).removeprefix('torch.')}"] = entry
    return results
