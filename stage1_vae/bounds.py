"""Bounds on the log-likelihood, as functions of log-densities; no function here calls a network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ESTIMATORS = ("iwae", "dreg")
"""Gradient estimators of an importance-weighted bound: the standard one, and `doubly_reparameterised`."""
BOUNDS = ("looser", "tight")
"""Position of the mean over the experts of a mixture: outside of the logarithm (`looser`) or inside (`tight`)."""


def importance_bound(log_weights: Tensor, dim: int, present: Tensor | None = None) -> Tensor:
    """Return the log of the mean importance weight over `dim` (Burda et al. 2016, arXiv 1509.00519, eq. 8).

    Args:
        log_weights: log p(x, z) − log q(z | x).
        dim: dimension of the draws.
        present: bool, broadcastable to `log_weights`; draws marked False are ignored. Where none is True, the bound is
            NaN; it must be ignored there, as `masked_mean` does.
    """
    if present is None:
        return log_weights.logsumexp(dim) - math.log(log_weights.shape[dim])
    count = present.expand_as(log_weights).sum(dim).to(log_weights.dtype)
    return log_weights.masked_fill(~present, -math.inf).logsumexp(dim) - count.log()


def doubly_reparameterised(log_weights: Tensor, z: Tensor, dim: int, present: Tensor) -> Tensor:
    """Return the importance bound with the DReG gradient (Tucker et al. 2019, arXiv 1810.04152, eq. 6).

    The value equals `importance_bound`. The gradient is Σ w̃ ∇log w for the decoders and the prior, which use the draws,
    and Σ w̃² ∂log w/∂z · ∂z/∂φ for the encoders, which produce them: a hook on `z` multiplies its gradient by w̃.

    Args:
        log_weights: (…), computed with the *parameters* of q detached inside log q.
        z: the draws (…, D) from which the weights were computed; the hook exists as long as their graph.
        dim: dimension of the draws.
        present: as in `importance_bound`.
    """
    bound = importance_bound(log_weights, dim, present)
    weights = log_weights.masked_fill(~present, -math.inf).softmax(dim)
    weights = weights.masked_fill(~present, 0).detach()  # the softmax over absent draws alone is NaN
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * weights.reshape(z.shape[:-1]).unsqueeze(-1))
    surrogate = (weights * log_weights.masked_fill(~present, 0)).sum(dim)
    return bound.detach() + surrogate - surrogate.detach()


def mixture_bound(log_weights: Tensor, draws: Tensor, present: Tensor, bound: str, estimator: str) -> Tensor:
    """Return the bound (B,) from K draws of each of the M experts of a mixture (Shi et al. 2019, arXiv 1911.03393).

    looser:  1/|S| Σ_m log 1/K Σ_k w_m^k         tight:  log 1/(|S| K) Σ_{m,k} w_m^k

    Args:
        log_weights: (B, M, K); for the estimator `dreg`, as `doubly_reparameterised` expects them.
        draws: draws of the experts, (B, M, K, D).
        present: (B, M) bool, the experts available for each row.
        bound: one of `BOUNDS`.
        estimator: one of `ESTIMATORS`.
    """
    present_draws = present.unsqueeze(-1).expand_as(log_weights)
    if bound == "tight":
        log_weights, present_draws = log_weights.flatten(1), present_draws.flatten(1)
    if estimator == "dreg":
        value = doubly_reparameterised(log_weights, draws, -1, present_draws)
    else:
        value = importance_bound(log_weights, -1, present_draws)
    return masked_mean(value, present) if bound == "looser" else value


def masked_mean(values: Tensor, present: Tensor, dim: int = -1) -> Tensor:
    """Return the mean over `dim` of the values marked in `present`; all other values are ignored."""
    return torch.where(present, values, 0).sum(dim) / present.sum(dim)
