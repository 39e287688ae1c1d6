"""Logistic regressions with a ridge penalty, whose mean predictions on the training rows are the observed shares."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

STEPS = 200  # most steps of L-BFGS
MEMORY = 100  # changes of the gradient that L-BFGS remembers, as in torch
LEAST = 1e-15  # share in place of 0


def multinomial(x: Tensor, classes: Tensor, count: int, penalty: Tensor) -> Tensor:
    """Fit p(class | x) = softmax([1, x] W) to rows x (n, F) and classes (n,).

    Slopes of standardised features have normal priors with the precisions `penalty` (F,). Intercepts have none, so the
    mean probability of each class is its share of the rows.

    Returns:
        W (1 + F, C).
    """
    shares = torch.bincount(classes, minlength=count) / len(classes)

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, classes)

    start = shares.double().clamp_min(LEAST).log()
    return _fitted(x, start, torch.ones(x.shape[1], count, dtype=torch.bool), penalty, loss)


def bernoulli(x: Tensor, y: Tensor, used: Tensor, slopes: Tensor, penalty: Tensor) -> Tensor:
    """Fit p(y_u | x) = σ([1, x] w_u) for U outcomes y (n, U) bool on the rows `used` (n, U); as `multinomial`.

    `slopes` (F, U) bool are the slopes that are fitted; the others are 0. So are those of outcomes that do not vary.

    Returns:
        W (1 + F, U).
    """
    weights = used.double() / len(x)
    share = (y.double() * weights).sum(0) / weights.sum(0).clamp_min(LEAST)

    def loss(logits: Tensor) -> Tensor:
        return (weights * F.binary_cross_entropy_with_logits(logits, y.double(), reduction="none")).sum()

    return _fitted(x, torch.logit(share, LEAST), slopes & (share > 0) & (share < 1), penalty, loss)


def _fitted(x: Tensor, intercept: Tensor, slopes: Tensor, penalty: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Minimise the loss of logits [1, x] W plus the penalty, from these intercepts (C,), with these slopes (F, C)."""
    mean = x.mean(0)
    centred = x - mean
    scale = centred.square().mean(0).sqrt()
    z = torch.where(scale > 1e-9 * mean.abs().clamp_min(1), centred / scale, 0.0)
    coefficients = torch.cat([intercept[None], torch.zeros_like(slopes, dtype=torch.float64)])
    if bool(slopes.any()):
        from scipy.optimize import minimize

        free = torch.cat([slopes.any(0, keepdim=True), slopes])
        start = coefficients

        def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            """Return the value and the gradient at a change (F + 1, C) of the free coefficients, flattened."""
            change = torch.from_numpy(flat).view_as(start).requires_grad_()
            W = start + change * free
            value = loss(W[0] + z @ W[1:]) + penalty @ W[1:].square().sum(1) / (2 * len(x))
            (gradient,) = torch.autograd.grad(value, change)
            return float(value.detach()), gradient.numpy().ravel()

        # torch's own L-BFGS imports the compiler of torch, which takes as long as the import of torch itself
        options = {"maxiter": STEPS, "maxcor": MEMORY, "gtol": 1e-8, "ftol": 0}
        found = minimize(objective, np.zeros(start.numel()), jac=True, method="L-BFGS-B", options=options)
        coefficients = start + torch.from_numpy(found.x).view_as(start) * free
    raw = torch.where(scale[:, None] > 0, coefficients[1:] / scale[:, None].clamp_min(1e-300), 0.0)
    return torch.cat([(coefficients[0] - mean @ raw)[None], raw])
