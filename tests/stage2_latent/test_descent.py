"""The gradient descent that several densities share, on a parabola."""

import subprocess
import sys
from itertools import count

import pytest
import torch
from torch import Tensor, nn

from postprior.stage2_latent.descent import Descent, Group, descend


def test_looks_stand_before_every_third_step_and_the_last() -> None:
    taken: list[int] = []
    looked: list[tuple[int, int]] = []

    def look(step: int) -> float:
        looked.append((step, len(taken)))
        return 0.0

    descend(taken.append, look, lambda: None, steps=7, every=3)
    assert looked == [(0, 0), (3, 3), (6, 6), (7, 7)]
    assert taken == list(range(8))


@pytest.mark.parametrize(("patience", "looks"), [(1, 4), (2, 5), (9, 6)])
def test_the_best_state_is_kept_as_it_was_and_patience_counts_looks(patience: int, looks: int) -> None:
    scores, state, number = iter([1.0, 2.0, 3.0, 2.5, 2.9, 2.0]), [0], count()

    def take(step: int) -> None:
        state[0] = step + 1

    def look(step: int) -> float:
        next(number)
        return next(scores)

    assert descend(take, look, lambda: state, steps=5, every=1, patience=patience) == [2]
    assert next(number) == looks


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"held-out log-likelihood: never found a finite number, .*learning_rate"):
        descend(lambda step: None, lambda step: float("nan"), lambda: None, steps=2, every=1)


@pytest.mark.parametrize("steps", [None, 6])
def test_steps_are_those_of_torch(steps: int | None) -> None:
    """Two groups, of which one decays and has clipped gradients, under a cosine or a constant learning rate.

    The gradient of the first parameter is transposed in memory, as those of images in channels-last layers are.
    """
    start = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second, first_torch, second_torch = (nn.Parameter(start.clone()) for _ in range(4))
    still = nn.Parameter(start.clone(), requires_grad=False)
    ours = Descent(Group([first, still], 0.1, 0.3, limit=0.5), Group([second], 0.02), steps=steps, betas=(0.8, 0.99))
    groups = [
        {"params": [first_torch], "lr": 0.1, "weight_decay": 0.3},
        {"params": [second_torch], "lr": 0.02, "weight_decay": 0.0},
    ]
    torchs = torch.optim.AdamW(groups, betas=(0.8, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(torchs, steps or 1)

    weights = torch.rand(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return (a.T.square().square() * weights).sum() + (b * start.sin()).sin().sum()

    for _ in range(6):
        torchs.zero_grad()
        loss(first_torch, second_torch).backward()
        nn.utils.clip_grad_norm_([first_torch], 0.5)
        torchs.step()
        if steps:
            schedule.step()
        ours.step(loss(first, second))
    for found, expected in ((first, first_torch), (second, second_torch), (still, start)):
        torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-6, atol=1e-8)
    assert (first - start).abs().max() > 0.1


def test_no_compiler_is_imported() -> None:
    program = """
import sys, torch
from postprior.stage2_latent.descent import Descent, Group
x = torch.ones(2, requires_grad=True)
Descent(Group([x], 0.1)).step(x.sum())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
