"""Bounds on the evidence: small functions of log-densities that know no network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ESTIMATORS = ("iwae", "dreg")
"""Gradients of an importance-weighted bound: the plain one, and `doubly_reparameterised`."""
BOUNDS = ("looser", "tight")
"""Where the mean over the experts of a mixture stands: outside of the logarithm, and inside."""


def importance_bound(log_weights: Tensor, dim: int, present: Tensor | None = None) -> Tensor:
    """log of the mean importance weight over `dim` (Burda et al. 2016, arXiv 1509.00519, eq. 8).

    Args:
        log_weights: log p(x, z) − log q(z | x).
        dim: dimension of the draws.
        present: bool, broadcastable to `log_weights`; draws marked False do not count. At least one is True.
    """
    if present is None:
        return log_weights.logsumexp(dim) - math.log(log_weights.shape[dim])
    count = present.expand_as(log_weights).sum(dim).to(log_weights.dtype)
    return log_weights.masked_fill(~present, -math.inf).logsumexp(dim) - count.log()


def doubly_reparameterised(log_weights: Tensor, z: Tensor, dim: int, present: Tensor) -> Tensor:
    """The importance bound with the gradient DReG (Tucker et al. 2019, arXiv 1810.04152, eq. 6).

    Its value is `importance_bound`; its gradient is Σ w̃ ∇log w for what reads the draws (decoders, prior) and
    Σ w̃² ∂log w/∂z · ∂z/∂φ for what made them (encoders): a hook on `z` multiplies by w̃ on the way back.

    Args:
        log_weights: (…), computed with the *parameters* of q detached inside log q.
        z: the draws (…, D) that the weights were computed from; the hook lives as long as their graph.
        dim: dimension of the draws.
        present: as in `importance_bound`.
    """
    bound = importance_bound(log_weights, dim, present)
    weights = (log_weights.masked_fill(~present, -math.inf)).softmax(dim).detach()
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * weights.reshape(z.shape[:-1]).unsqueeze(-1))
    surrogate = (weights * log_weights.masked_fill(~present, 0)).sum(dim)
    return bound.detach() + surrogate - surrogate.detach()


def mixture_bound(log_weights: Tensor, draws: Tensor, present: Tensor, bound: str, estimator: str) -> Tensor:
    """Importance bound of K draws from each of the M experts of a mixture (Shi et al. 2019, arXiv 1911.03393): (B,).

    looser:  1/|S| Σ_m log 1/K Σ_k w_m^k         tight:  log 1/(|S| K) Σ_{m,k} w_m^k

    Args:
        log_weights: (B, M, K), as `doubly_reparameterised` wants them where that is the estimator.
        draws: what the experts drew, (B, M, K, D).
        present: (B, M) bool: the experts that a row has.
        bound: one of `BOUNDS`.
        estimator: one of `ESTIMATORS`.
    """
    drawn = present.unsqueeze(-1).expand_as(log_weights)
    if bound == "tight":
        log_weights, drawn = log_weights.flatten(1), drawn.flatten(1)
    if estimator == "dreg":
        value = doubly_reparameterised(log_weights, draws, -1, drawn)
    else:
        value = importance_bound(log_weights, -1, drawn)
    return masked_mean(value, present) if bound == "looser" else value


def masked_mean(values: Tensor, present: Tensor, dim: int = -1) -> Tensor:
    """Mean over `dim` of the values marked in `present`, whatever the others hold."""
    return torch.where(present, values, 0).sum(dim) / present.sum(dim)
