"""The sentence about a step that is not finite names the term, the place and the modality."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.equations import batch, build, seeded
from torch import Tensor, nn

from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import MVTCAE
from postprior.stage1_vae.nonfinite import explain, not_finite


class Then(nn.Module):
    """A network, then a function of its outputs."""

    def __init__(self, network: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.function = network, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.network(x))


def explained(model: MultimodalVAE) -> str:
    """The sentence about a step; the model has to be as it was."""
    before = dict(vars(model))
    phase = model.phases()[0]
    loss = phase.objective(batch(), seeded(), 1.0)
    loss.per_sample.mean().backward()
    assert not_finite(loss.per_sample, phase.parameters)
    sentence = explain(model, phase, lambda: phase.objective(batch(), seeded(), 1.0))
    assert vars(model) == before
    assert not any(layer._forward_hooks for layer in model.modules())
    return sentence


def test_a_finite_step() -> None:
    """Also if the squares of its gradients overflow."""
    model = build(MVTCAE)
    phase = model.phases()[0]
    loss = phase.objective(batch(), seeded(), 1.0)
    (1e200 * loss.per_sample).mean().backward()
    assert not not_finite(loss.per_sample, phase.parameters)
    next(model.parameters()).grad[0] = torch.inf
    assert not_finite(loss.per_sample, phase.parameters)
    model.zero_grad()
    assert not_finite(loss.per_sample.log() * torch.inf, phase.parameters)


def test_a_likelihood_that_overflows() -> None:
    assert explained(build(MVTCAE, likelihood_scale={"b": 1e-320})) == (
        "training: phase joint: the term reconstruction became inf in the log-likelihood of b, "
        "expected finite numbers; lower train.learning_rate, or raise vae.likelihood_scale of b"
    )


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: (x - x - 1).log(), "the term reconstruction became nan in encoders.c"),
        (
            lambda x: x + (0 * x).abs().sqrt(),
            "the gradient of the term reconstruction became infinite or NaN in "
            "encoders.c.network.convolutions.0.weight, the first of 4 such parameters",
        ),
    ],
)
def test_a_network_that_is_not_finite(function: Any, found: str) -> None:
    """In its values, then in its gradient alone; the remedy depends on whose network it is."""
    model = build(MVTCAE)
    model.encoders["c"] = Then(model.encoders["c"], function)
    sentence = f"training: phase joint: {found}, expected finite numbers; "
    assert explained(model) == sentence + "lower train.learning_rate"
    model.networks["c"] = "own:Encoder,own:Decoder"
    assert explained(model) == sentence + "check the classes in vae.networks of c, or lower train.learning_rate"
