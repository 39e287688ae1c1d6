"""The transposed convolution of images against that of torch."""

import pytest
import torch
from support.equations import seeded
from torch import nn

from postprior.stage1_vae.networks.transposed import FEW, TransposedConvolution


@pytest.mark.parametrize("outputs", [1, FEW])
def test_few_outputs_have_the_values_and_gradients_of_a_transposed_convolution(outputs: int) -> None:
    """Also for the gradient of the input alone, and in the layout of channels last."""
    fast, plain = (kind(3, outputs, 4, 2, 1).double() for kind in (TransposedConvolution, nn.ConvTranspose2d))
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=seeded()).to(memory_format=torch.channels_last)
    results = []
    for layer in (fast, plain):
        for frozen in (False, True):
            layer.requires_grad_(not frozen)
            leaf = x.clone().requires_grad_()
            output = layer(leaf)
            output.square().sum().backward()
            results.append([output.detach(), leaf.grad, layer.weight.grad, layer.bias.grad])
    for found in results[1:]:
        for ours, expected in zip(found, results[-1], strict=True):
            torch.testing.assert_close(ours, expected)
    assert "AsConvolution" in type(fast(x.requires_grad_()).grad_fn).__name__


@pytest.mark.parametrize(("outputs", "padding"), [(FEW + 1, 0), (1, 1)])
def test_other_transposed_convolutions_are_those_of_torch(outputs: int, padding: int) -> None:
    """Those with more outputs, and those whose outputs have an odd size."""
    fast, plain = (kind(3, outputs, 4, 2, 1, padding) for kind in (TransposedConvolution, nn.ConvTranspose2d))
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 3, 4, 4, generator=seeded())
    assert torch.equal(fast(x), plain(x))
    assert fast(x).shape == (2, outputs, 8 + padding, 8 + padding)
