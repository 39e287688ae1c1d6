"""Hamiltonian Monte Carlo over many chains at once."""

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
    """States of Markov chains that leave a density invariant (Neal 2011, arXiv 1206.1901, section 3).

    Each chain moves by itself: its noise does not depend on which other chains run, and its step size is its own,
    adapted to a given rate of acceptance in the first half of the warm-up (Andrieu & Thoms 2008) and fixed from then
    on, for a step that follows the chain would bias it. Steps are jittered, so that no trajectory closes on itself and
    a chain gets into corners too tight for its usual step. Coordinates should have scales near 1.

    Args:
        log_density: unnormalised, of the n chains that run: (n, D) → (n,), differentiable.
        start: (…, D).
        generator: source of all noise.
        draws: successive states to keep.
        warmup: transitions before the first of them.
        leapfrogs: gradient steps a transition.
        step: size of the first ones.
        acceptance: rate to adapt the step to.
        run: (…) bool, the chains to run; None for all.

    Returns:
        (draws, n, D), chains in the order of `run`.
    """
    run = start.new_ones(start.shape[:-1], dtype=torch.bool) if run is None else run
    z = start[run].detach()
    value, slope = value_and_gradient(log_density, z)
    log_step = torch.full_like(z[:, :1], step).log()
    kept = []
    for turn in range(warmup + draws):
        # Drawn for all chains, whichever run.
        momentum = normal(start.shape, start, generator)[run]
        jitter, chosen = (uniform((*start.shape[:-1], 1), start, generator)[run] for _ in range(2))  # (n, 1)
        size = log_step.exp() * (0.5 + 0.7 * jitter)  # (n, 1)
        there, push, end, end_slope = z, momentum + 0.5 * size * slope, value, slope
        for leap in range(leapfrogs):
            there = there + size * push
            end, end_slope = value_and_gradient(log_density, there)
            push = push + (0.5 if leap == leapfrogs - 1 else 1.0) * size * end_slope
        gain = end - value + 0.5 * (momentum.square().sum(-1) - push.square().sum(-1))
        # A trajectory that diverges to where the density is no number is refused.
        chance = gain.nan_to_num(nan=-torch.inf, posinf=-torch.inf).clamp_max(0).exp().unsqueeze(-1)
        moved = chosen < chance
        z, slope = torch.where(moved, there, z), torch.where(moved, end_slope, slope)
        value = torch.where(moved[:, 0], end, value)
        if turn < warmup // 2:
            log_step = log_step + (turn + 1) ** -0.6 * (chance - acceptance)
        if turn >= warmup:
            kept.append(z)
    return torch.stack(kept)


def value_and_gradient(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n,) at points (n, D), and their gradients (n, D), whether gradients are being recorded or not."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = function(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient
