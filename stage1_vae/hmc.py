"""Hamiltonian Monte Carlo with many chains in parallel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from postprior.stage1_vae.randomness import normal, uniform


def hamiltonian_draws(
    log_density: Callable[[Tensor], Tensor],
    start: Tensor,
    generator: torch.Generator | None,
    *,
    draws: int = 1,
    warmup: int = 60,
    leapfrogs: int = 5,
    step: float = 0.4,
    acceptance: float = 0.9,
    run: Tensor | None = None,
) -> Tensor:
    """Return states of Markov chains that leave a density invariant (Neal 2011, arXiv 1206.1901, section 3).

    The chains are independent: the noise of a chain does not depend on which other chains run, and each chain has its
    own step size. The step size is adapted to a target acceptance rate in the first half of the warm-up (Andrieu &
    Thoms 2008). It is then fixed, because a step size that depends on the state would bias the chain. Steps are
    jittered, so that no trajectory returns to its start and a chain can enter regions that are too narrow for its usual
    step. Coordinates should have scales near 1.

    Args:
        log_density: unnormalised log-density of the n chains that run: (n, D) → (n,), differentiable.
        start: (…, D).
        generator: source of all noise.
        draws: number of successive states to keep.
        warmup: number of transitions before the first kept state.
        leapfrogs: number of gradient steps per transition.
        step: initial step size.
        acceptance: target acceptance rate.
        run: (…) bool, the chains to run; None for all.

    Returns:
        (draws, n, D), chains in the order of `run`.
    """
    run = start.new_ones(start.shape[:-1], dtype=torch.bool) if run is None else run
    z = start[run].detach()
    value, gradient = value_and_gradient(log_density, z)
    log_step = torch.full_like(z[:, :1], step).log()
    states = []
    for transition in range(warmup + draws):
        # Noise is drawn for all chains, so that it does not depend on which of them run.
        first_momentum = normal(start.shape, start, generator)[run]
        jitter, threshold = (uniform((*start.shape[:-1], 1), start, generator)[run] for _ in range(2))  # (n, 1)
        size = log_step.exp() * (0.5 + 0.7 * jitter)  # (n, 1)
        new_z, momentum, new_value, new_gradient = z, first_momentum + 0.5 * size * gradient, value, gradient
        for leapfrog in range(leapfrogs):
            new_z = new_z + size * momentum
            new_value, new_gradient = value_and_gradient(log_density, new_z)
            momentum = momentum + (0.5 if leapfrog == leapfrogs - 1 else 1.0) * size * new_gradient
        log_ratio = new_value - value + 0.5 * (first_momentum.square().sum(-1) - momentum.square().sum(-1))
        # A trajectory that diverges to a point where the density is not finite is rejected.
        probability = log_ratio.nan_to_num(nan=-torch.inf, posinf=-torch.inf).clamp_max(0).exp().unsqueeze(-1)
        accepted = threshold < probability
        z, gradient = torch.where(accepted, new_z, z), torch.where(accepted, new_gradient, gradient)
        value = torch.where(accepted[:, 0], new_value, value)
        if transition < warmup // 2:
            log_step = log_step + (transition + 1) ** -0.6 * (probability - acceptance)
        if transition >= warmup:
            states.append(z)
    return torch.stack(states)


def value_and_gradient(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Return values (n,) and gradients (n, D) of a function at points (n, D), even inside `torch.no_grad`."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = function(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient
