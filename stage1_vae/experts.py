"""Subsets of modalities, and products and mixtures of their unimodal posteriors (experts)."""

from __future__ import annotations

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import Diagonal, Mixture, Normal


def all_subsets(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the 2^M − 1 non-empty subsets of M modalities, (2^M − 1, M) bool; row i holds the bits of i + 1."""
    codes = torch.arange(1, 2**count, device=device)
    return codes.unsqueeze(1).bitwise_right_shift(torch.arange(count, device=device)).bitwise_and(1).bool()


def numbered_subsets(observed: Tensor, numbers: Tensor) -> Tensor:
    """Return the subsets (B, k, M) bool with the given numbers (B, k) from 1 to 2^|S| − 1, per row.

    The bits of a number select among the observed modalities (B, M) of the row, in their order.
    """
    rank = (observed.cumsum(-1) - 1).clamp_min(0)  # position of a modality among the observed ones
    bits = numbers.unsqueeze(-1).bitwise_right_shift(rank.unsqueeze(1)).bitwise_and(1).bool()
    return bits & observed.unsqueeze(1)


def full_product(one: Tensor, other: Tensor) -> Tensor:
    """Return one @ other in the precision of both, which automatic mixed precision would round."""
    with torch.autocast(one.device.type, enabled=False):
        return one @ other


def product_of_experts(experts: Normal, subsets: Tensor, prior: Diagonal | None = None) -> Normal:
    """Return normalised products of normal experts over subsets, by precisions (Cao & Fleet 2014, arXiv 1410.7827).

    Args:
        experts: batch shape (B, M), event (D,).
        subsets: (S, M) or (B, S, M) bool.
        prior: an additional normal expert in every product, (D,), or None.

    Returns:
        Batch shape (B, S). The product over an empty subset is the prior, or N(0, I) if no prior is given.
    """
    precision = experts.scale.pow(-2)  # (B, M, D)
    chosen = subsets.to(precision.dtype)
    total = full_product(chosen, precision)  # (B, S, D)
    moment = full_product(chosen, precision * experts.loc)
    if prior is None:
        total = total + (~subsets.any(-1, keepdim=True)).to(total.dtype)
    else:
        total = total + prior.scale.pow(-2)
        moment = moment + prior.loc * prior.scale.pow(-2)
    return Normal(moment / total, total.rsqrt())


def mixture_of_experts(experts: Diagonal, subsets: Tensor) -> Mixture:
    """Return mixtures with equal weights of the experts in each subset, batch shape (B, S).

    Args:
        experts: batch shape (B, M), event (D,).
        subsets: (B, S, M) bool; each subset holds at least one expert.
    """
    size = (*subsets.shape, experts.loc.shape[-1])  # (B, S, M, D)
    loc, scale = (parameter.unsqueeze(1).expand(size) for parameter in (experts.loc, experts.scale))
    return Mixture.uniform(type(experts)(loc, scale), subsets)


def divided_product(experts: Normal, subsets: Tensor, prior: Diagonal) -> Normal:
    """Return Π_{m∈S} q_m / p^(|S|−1) of normal experts, with a lower bound on the precision.

    If the experts are hardly more precise than the prior, the precision of the quotient can be 0 or negative. It is
    therefore at least the precision of the most precise expert, because a further modality cannot make the posterior
    less certain. Where this bound applies, the location is that of the product without the division. The product of a
    single expert is that expert.

    Args:
        experts: batch shape (B, M), event (D,).
        subsets: (B, S, M) bool, none of them empty.
        prior: normal distribution, (D,).

    Returns:
        Batch shape (B, S).
    """
    precision = experts.scale.pow(-2)  # (B, M, D)
    chosen = subsets.to(precision.dtype)
    total = full_product(chosen, precision)  # (B, S, D)
    moment = full_product(chosen, precision * experts.loc)
    excess = chosen.sum(-1, keepdim=True) - 1  # (B, S, 1): how many times too often the prior is counted
    divided = total - excess * prior.scale.pow(-2)
    lowest = torch.where(subsets.unsqueeze(-1), precision.unsqueeze(1), 0).amax(-2)  # precision of the best expert
    exact = divided >= lowest
    loc = torch.where(
        exact, (moment - excess * prior.loc * prior.scale.pow(-2)) / divided.clamp_min(lowest), moment / total
    )
    return Normal(loc, divided.clamp_min(lowest).rsqrt())
