"""The gradient descent that several densities share, on a parabola."""

from itertools import count

import pytest
import torch
from torch import nn

from postprior.stage2_latent.descent import cosine_decay, descend


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


def test_rates_fall_to_0_and_gradients_are_clipped() -> None:
    x = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimiser = torch.optim.SGD([x], 0.5)
    down = cosine_decay(optimiser, 2, [x], 1.0)
    down(50 * x.square().sum())
    torch.testing.assert_close(x.detach(), torch.tensor([2.7, 3.6]))  # a step of length 0.5
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.25)
    down(50 * x.square().sum())
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0)
