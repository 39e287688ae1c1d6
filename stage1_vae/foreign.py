"""Read the posteriors and likelihoods of other libraries as the distributions of this package.

A posterior of codes (n, D) may be a `Diagonal` or a `Mixture` of this package, a pair of locations and scales, a tensor
of draws (n, K, D) or of one point per row (n, D), or a normal, a Laplace or a mixture of them of torch.distributions. A
draw becomes a narrow normal distribution, as in `JNF.encode`.

A likelihood of n values may be one of this package, one of torch.distributions, a negative binomial one with the
attributes `mu`, `theta` and, if it is zero-inflated, `zi_logits`, as scvi-tools has them, or the raw output of a
decoder (n, *raw_shape), as `likelihoods.likelihood` reads it: the locations of a normal or Laplace modality, the logits
of a binary one. `Located` gives locations and a family, whatever the likelihood of the modality is.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributions

from postprior.stage1_vae.discrete import Bernoulli, Categorical, NegativeBinomial, ZeroInflatedNegativeBinomial
from postprior.stage1_vae.distributions import LOG_SCALE, Diagonal, Laplace, Mixture, Normal
from postprior.stage1_vae.likelihoods import Columns, Likelihood, Scale, likelihood, raw_shape
from postprior.stage1_vae.modalities import Modality

FAMILIES: dict[type[Any], type[Diagonal]] = {distributions.Normal: Normal, distributions.Laplace: Laplace}


class Located(NamedTuple):
    """Locations (n, *shape) of a likelihood of a family whose scale is unknown."""

    loc: Tensor
    family: type[Diagonal]


POSTERIORS = "locations and scales, draws (n, K, D), or a normal, a Laplace or a mixture of them"


def as_mixture(found: Any, rows: int, dimensions: int) -> Mixture:
    """Return posteriors of n rows over codes of D dimensions as a mixture, batch shape (n,).

    Raises:
        ValueError: it is none of the known posteriors, or its shape differs.
    """
    q = _mixture(found, dimensions)
    if q is None:
        raise ValueError(f"{_told(found)}, expected {POSTERIORS}")
    components = q.components
    count = q.weights.shape[-1]
    for name, tensor, shape in (
        ("weights", q.weights, (rows, count)),
        ("locations", components.loc, (rows, count, dimensions)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)}, expected {shape}")
    scale = components.scale.expand_as(components.loc)
    return Mixture(q.weights.float(), type(components)(components.loc.float(), scale.float()))


def _mixture(found: Any, dimensions: int) -> Mixture | None:
    if isinstance(found, Mixture):
        return found
    if isinstance(found, Tensor):
        draws = found.unsqueeze(1) if found.dim() == 2 else found
        narrow = Normal(draws, torch.full_like(draws, LOG_SCALE[0]).exp())
        return Mixture.uniform(narrow, torch.ones_like(draws[..., 0], dtype=torch.bool))
    if isinstance(found, (tuple, list)) and len(found) == 2:
        return Mixture.single(Normal(*found))
    if isinstance(found, distributions.MixtureSameFamily):
        parts = _diagonal(found.component_distribution)
        return None if parts is None else Mixture(found.mixture_distribution.probs, parts)
    single = _diagonal(found)
    return None if single is None else Mixture.single(single)


def _diagonal(found: Any) -> Diagonal | None:
    if isinstance(found, Diagonal):
        return found
    base = _base(found)
    family = FAMILIES.get(type(base))
    return None if family is None else family(base.loc, base.scale)


def _base(found: Any) -> Any:
    """Return the distribution within `Independent`, at any depth."""
    while isinstance(found, distributions.Independent):
        found = found.base_dist
    return found


def as_likelihood(modality: Modality, found: Any, scale: Scale, batch: Sequence[int]) -> Likelihood:
    """Return the likelihood of n values as one of this package, with the batch shape `batch` of n entries.

    Args:
        modality: the modality of the values.
        found: what a decoder returned for n codes.
        scale: the scale of normal and Laplace likelihoods that are given by their locations.
        batch: the batch shape.

    Raises:
        ValueError: it is none of the known likelihoods, or its shape differs.
    """
    event, base = len(modality.shape), _base(found)

    def full(tensor: Tensor, shape: Sequence[int] = modality.shape) -> Tensor:
        entries = torch.Size([*batch, *shape])
        if tensor.numel() != entries.numel():
            expected = f"{tuple(shape)} for each of {torch.Size(batch).numel()} codes"
            raise ValueError(f"values of shape {tuple(tensor.shape)}, expected {expected}")
        return tensor.float().reshape(entries)

    if isinstance(base, Located):
        return base.family(full(base.loc), torch.as_tensor(scale), event)
    if isinstance(base, Tensor):
        if tuple(base.shape[1:]) == modality.shape and tuple(base.shape[1:]) != raw_shape(modality):
            return Normal(full(base), torch.as_tensor(scale), event)  # values alone, of a likelihood with more numbers
        return likelihood(modality, full(base, raw_shape(modality)), scale)
    if isinstance(base, Likelihood):
        return reshaped(base, batch)
    if type(base) in FAMILIES:
        return FAMILIES[type(base)](full(base.loc), full(base.scale.expand_as(base.loc)), event)
    if isinstance(base, distributions.Bernoulli):
        return Bernoulli(full(base.logits), event)
    if isinstance(base, distributions.Categorical):
        last = full(base.logits, (*modality.shape, base.logits.shape[-1]))
        return Categorical(last.movedim(-1, len(batch)), event)
    if hasattr(base, "mu") and hasattr(base, "theta"):
        mean, dispersion = (full(x.expand_as(base.mu)).clamp_min(1e-8).log() for x in (base.mu, base.theta))
        counts = NegativeBinomial(mean, dispersion, event)
        return ZeroInflatedNegativeBinomial(counts, full(base.zi_logits)) if hasattr(base, "zi_logits") else counts
    if isinstance(base, distributions.NegativeBinomial):
        return NegativeBinomial(full(base.mean).log(), full(base.total_count.expand_as(base.mean)).log(), event)
    raise ValueError(f"{_told(found)}, expected the raw output of a decoder, or a distribution of torch or postprior")


def reshaped(p: Any, batch: Sequence[int]) -> Any:
    """Return a likelihood of n values with the batch shape `batch` of n entries."""
    if isinstance(p, Columns):
        return Columns([(index, reshaped(part, batch)) for index, part in p.parts])
    same, n = copy.copy(p), torch.Size(batch).numel()
    for name, value in vars(p).items():
        if isinstance(value, Likelihood):
            setattr(same, name, reshaped(value, batch))
        elif isinstance(value, Tensor) and value.dim() > p.event and len(value) == n:
            setattr(same, name, value.unflatten(0, tuple(batch)))
    return same


def _told(found: Any) -> str:
    return f"a value of type {type(found).__name__}"
