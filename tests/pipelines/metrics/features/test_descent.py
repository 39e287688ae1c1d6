"""The optimiser of the evaluators: its steps are those of torch's AdamW and OneCycleLR."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from postprior.pipelines.metrics.features.descent import Descent


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_steps_are_those_of_torch(steps: int, decay: float) -> None:
    torch_module, module = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    module.load_state_dict(torch_module.state_dict())
    optimiser = torch.optim.AdamW(torch_module.parameters(), 0.1, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=max(2, steps))
    descent = Descent(module, 0.1, steps, decay)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(steps):
        optimiser.zero_grad()
        torch_module(x).square().sum().backward()
        (group,) = optimiser.param_groups
        assert descent.cycle() == pytest.approx((group["lr"], group["betas"][0]))
        optimiser.step()
        schedule.step()
        descent.step(module(x).square().sum())
    for found, expected in zip(module.parameters(), torch_module.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_no_compiler_is_imported() -> None:
    program = """
import sys, torch
from postprior.pipelines.metrics.features.descent import Descent
layer = torch.nn.Linear(2, 1)
Descent(layer, 0.1, 3).step(layer(torch.ones(1, 2)).sum())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
