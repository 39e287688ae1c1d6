"""Gradients on incomplete rows: finite, and those of models that have the observed modalities only."""

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from support.equations import perturb, seeded
from torch import Tensor

from postprior.stage1_vae.bounds import BOUNDS, ESTIMATORS
from postprior.stage1_vae.distributions import FAMILIES
from postprior.stage1_vae.experts import all_subsets
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.training import Settings, train

MODALITIES = (
    Modality("a", "vector", (2,), "normal"),
    Modality("b", "vector", (3,), "laplace"),
    Modality("c", "vector", (2,), "bernoulli", (0, 1)),
)
LATENT, DRAWS = 8, 7  # no other dimension of a draw has one of these sizes
OBSERVED = torch.cat([all_subsets(3), all_subsets(3)[3:]])  # every pattern
BOUND = tuple(
    {"estimator": estimator, "bound": bound, "family": family, "draws": DRAWS}
    for estimator, bound, family in product(ESTIMATORS, BOUNDS, FAMILIES)
)
PRIVATE = {"a": 2, "b": 1, "c": 3}
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "mmvae": BOUND,
    "mmvaeplus": tuple({**options, "private": PRIVATE} for options in BOUND),
    "cmvae": tuple({**options, "private": PRIVATE, "clusters": 3} for options in BOUND),
    "mopoe": ({"draws": DRAWS}, {"draws": DRAWS, "private": PRIVATE}),
    "dmvae": ({"private": PRIVATE},),
    "nexus": ({"bottom": LATENT},),
    "unimodal": ({"private": PRIVATE},),
}
every_objective = pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, id="-".join([name, *(str(value) for value in options.values())]))
        for name in MODELS
        for options in OPTIONS.get(name, ({},))
    ],
)


SCALES = {"a": "learned", "b": 0.7}


def build(name: str, modalities: tuple[Modality, ...] = MODALITIES, **options: Any) -> MultimodalVAE:
    """A small model; options by modality are restricted to the given modalities."""
    names = [m.name for m in modalities]
    options |= {"latent": LATENT, "width": 1, "likelihood_scale": SCALES}
    return MODELS[name](
        modalities,
        **{
            option: {key: item for key, item in value.items() if key in names} if isinstance(value, dict) else value
            for option, value in options.items()
        },
    )


class Rows:
    """Rows whose missing values are far from all others."""

    def __init__(self, observed: Tensor) -> None:
        self.observed = observed
        self.data = {m.name: torch.rand(len(observed), *m.shape, generator=seeded(5)) for m in MODALITIES}
        for index, values in enumerate(self.data.values()):
            values[~observed[:, index]] = 1e6

    def __len__(self) -> int:
        return len(self.observed)

    def batch(self, rows: Any) -> Batch:
        return Batch({name: values[rows] for name, values in self.data.items()}, self.observed[rows])


def draw_the_same_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch draw numbers that vary over the draws and the shared code, but not over rows, modalities or subsets."""

    def repeated(draw: Any, *size: Any, **options: Any) -> Tensor:
        shape = size[0] if isinstance(size[0], tuple) else size
        return draw([n if n in (LATENT, DRAWS) else 1 for n in shape], **options).expand(shape)

    for name in ("rand", "randn"):
        monkeypatch.setattr(torch, name, partial(repeated, getattr(torch, name)))


def gradients(model: MultimodalVAE, phase: int, batch: Batch) -> dict[str, Tensor]:
    """The gradient of the loss, summed over the rows, with respect to the parameters that it reaches."""
    model.zero_grad()
    model.phases()[phase].objective(batch, seeded(), 1.0).per_sample.sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@every_objective
def test_a_batch_has_the_gradient_of_its_rows_in_models_of_their_modalities(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perturb(build(name, **options).double(), 0.3, seeded(1)).eval()
    phases = [index for index, phase in enumerate(model.phases()) if not phase.complete]
    if not phases:
        pytest.skip("every phase needs complete rows")
    rows = Rows(OBSERVED)
    draw_the_same_for_all_rows(monkeypatch)
    for phase in phases:
        expected: dict[str, Tensor] = {}
        for pattern in all_subsets(3):
            kept = tuple(m for m, has in zip(MODALITIES, pattern.tolist(), strict=True) if has)
            missing = {m.name for m in MODALITIES if m not in kept}
            part = build(name, kept, **options).double().eval()
            part.load_state_dict({k: v for k, v in model.state_dict().items() if missing.isdisjoint(k.split("."))})
            members = rows.batch((pattern == OBSERVED).all(1))
            complete = torch.ones(len(members), len(kept), dtype=torch.bool)
            alone = Batch({m.name: members.data[m.name] for m in kept}, complete).to("cpu", torch.float64)
            for key, gradient in gradients(part, phase, alone).items():
                expected[key] = expected.get(key, 0) + gradient
        found = gradients(model, phase, rows.batch(slice(None)).to("cpu", torch.float64))
        assert found.keys() == expected.keys()
        for key, gradient in found.items():
            torch.testing.assert_close(
                gradient, expected[key], rtol=1e-8, atol=1e-8, msg=lambda m, key=key: f"{key}: {m}"
            )


@every_objective
def test_training_on_incomplete_rows_stays_finite(name: str, options: dict[str, Any]) -> None:
    """One missing modality in one row of a batch suffices to lose every gradient if one of its terms is not finite."""
    observed = torch.ones(16, 3, dtype=torch.bool)
    observed[5, 1] = False
    model = build(name, **options)
    for _ in train(model, Rows(observed), Settings(epochs=3, batch_size=8, device="cpu")):
        assert all(parameter.isfinite().all() for parameter in model.parameters())
