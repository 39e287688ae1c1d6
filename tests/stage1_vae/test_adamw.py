"""AdamW: the bytes of torch's own class, and the equation."""

import pytest
import torch
from support.equations import seeded
from torch import Tensor

from postprior.stage1_vae.adamw import AdamW

STEPS = 5


def parameters() -> list[Tensor]:
    """A matrix, a scalar, a kernel in another memory layout, and numbers that are trained in every other step."""
    generator = seeded()
    drawn = [torch.randn(shape, generator=generator) for shape in ((3, 4), (), (2, 3, 2, 2), (5,))]
    drawn[2] = drawn[2].contiguous(memory_format=torch.channels_last)
    return [tensor.requires_grad_() for tensor in drawn]


def loss(values: list[Tensor], step: int) -> Tensor:
    return sum(((value - 1) ** 4).sum() * (index + 1) for index, value in enumerate(values[: 4 - step % 2]))


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_it_computes_the_bytes_of_torch(decay: float) -> None:
    ours, theirs, betas = parameters(), parameters(), (0.8, 0.95)
    one = AdamW(ours, 0.1, betas, decay)
    other = torch.optim.AdamW(theirs, 0.1, betas, weight_decay=decay, fused=True)
    for step in range(STEPS):
        one.learning_rate = other.param_groups[0]["lr"] = 0.1 / (step + 1)
        for optimiser, values in ((one, ours), (other, theirs)):
            optimiser.zero_grad()
            loss(values, step).backward()
            optimiser.step()
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
    for index, state in other.state_dict()["state"].items():
        assert state.keys() == one.state[index].keys()
        for name, tensor in state.items():
            assert torch.equal(tensor, one.state[index][name])
            assert tensor.stride() == one.state[index][name].stride()


def test_it_follows_the_equation() -> None:
    x, (beta1, beta2), rate, decay = (
        torch.tensor([2.0, -0.5], dtype=torch.float64, requires_grad=True),
        (0.9, 0.99),
        0.1,
        0.2,
    )
    optimiser = AdamW([x], rate, (beta1, beta2), decay)
    expected, m, v = x.detach().clone(), torch.zeros(2), torch.zeros(2)
    for step in range(1, STEPS + 1):
        gradient = 3 * expected**2
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
        unbiased = m / (1 - beta1**step), v / (1 - beta2**step)
        expected = (1 - rate * decay) * expected - rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        optimiser.zero_grad()
        (x**3).sum().backward()
        optimiser.step()
    torch.testing.assert_close(x.detach(), expected, rtol=1e-12, atol=0)
