"""The algebra of experts: subsets of modalities, and products and mixtures of their posteriors."""

from __future__ import annotations

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import Diagonal, Mixture, Normal


def all_subsets(count: int, device: torch.device | str = "cpu") -> Tensor:
    """The 2^M − 1 non-empty subsets of M modalities, (2^M − 1, M) bool; row i holds the bits of i + 1."""
    codes = torch.arange(1, 2**count, device=device)
    return codes.unsqueeze(1).bitwise_right_shift(torch.arange(count, device=device)).bitwise_and(1).bool()


def numbered_subsets(observed: Tensor, numbers: Tensor) -> Tensor:
    """Subsets of what each row has, by number: (B, k, M) bool for numbers (B, k) from 1 to 2^|S| − 1.

    The bits of a number choose among the modalities that are observed (B, M), in their order.
    """
    rank = (observed.cumsum(-1) - 1).clamp_min(0)  # position of a modality among those that the row has
    bits = numbers.unsqueeze(-1).bitwise_right_shift(rank.unsqueeze(1)).bitwise_and(1).bool()
    return bits & observed.unsqueeze(1)


def product_of_experts(experts: Normal, subsets: Tensor, prior: Diagonal | None = None) -> Normal:
    """Normalised products of normal experts over subsets, by precisions (Cao & Fleet 2014, arXiv 1410.7827).

    Args:
        experts: batch shape (B, M), event (D,).
        subsets: (S, M) or (B, S, M) bool.
        prior: a further normal expert of every product, (D,), or None.

    Returns:
        Batch shape (B, S). The product over no expert at all is the prior, N(0, I) when none is given.
    """
    precision = experts.scale.pow(-2)  # (B, M, D)
    chosen = subsets.to(precision.dtype)
    total = chosen @ precision  # (B, S, D)
    moment = chosen @ (precision * experts.loc)
    if prior is None:
        total = total + (~subsets.any(-1, keepdim=True)).to(total.dtype)
    else:
        total = total + prior.scale.pow(-2)
        moment = moment + prior.loc * prior.scale.pow(-2)
    return Normal(moment / total, total.rsqrt())


def mixture_of_experts(experts: Diagonal, subsets: Tensor) -> Mixture:
    """Equal mixtures of experts over subsets, batch shape (B, S).

    Args:
        experts: batch shape (B, M), event (D,).
        subsets: (B, S, M) bool, of which each holds one expert at least.
    """
    size = (*subsets.shape, experts.loc.shape[-1])  # (B, S, M, D)
    loc, scale = (parameter.unsqueeze(1).expand(size) for parameter in (experts.loc, experts.scale))
    return Mixture.uniform(type(experts)(loc, scale), subsets)


def divided_product(experts: Normal, subsets: Tensor, prior: Diagonal) -> Normal:
    """Π_{m∈S} q_m / p^(|S|−1) of normal experts, guarded against precisions that the division would take too low.

    Where experts are hardly surer than the prior, the quotient's precision can fall to 0 or below. It is held at
    that of the surest expert, which no modality beside it can make less sure; the location there is that of the
    product without the division. One expert alone is itself.

    Args:
        experts: batch shape (B, M), event (D,).
        subsets: (B, S, M) bool, none of them empty.
        prior: normal, (D,).

    Returns:
        Batch shape (B, S).
    """
    precision = experts.scale.pow(-2)  # (B, M, D)
    chosen = subsets.to(precision.dtype)
    total = chosen @ precision  # (B, S, D)
    moment = chosen @ (precision * experts.loc)
    times = chosen.sum(-1, keepdim=True) - 1  # (B, S, 1): how often the prior is counted too much
    divided = total - times * prior.scale.pow(-2)
    surest = torch.where(subsets.unsqueeze(-1), precision.unsqueeze(1), 0).amax(-2)
    exact = divided >= surest
    loc = torch.where(
        exact, (moment - times * prior.loc * prior.scale.pow(-2)) / divided.clamp_min(surest), moment / total
    )
    return Normal(loc, divided.clamp_min(surest).rsqrt())
