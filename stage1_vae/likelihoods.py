"""Decoder outputs as distributions: what a modality's likelihood is.

A decoder's output is raw: unconstrained numbers of shape `raw_shape(modality)`, as many a value as the likelihood
needs, and the likelihood alone says what they mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from postprior.stage1_vae.discrete import (
    Bernoulli,
    Categorical,
    Independent,
    NegativeBinomial,
    ZeroInflatedNegativeBinomial,
)
from postprior.stage1_vae.distributions import Diagonal, Laplace, Normal
from postprior.stage1_vae.modalities import Column, Modality

Scale = float | Tensor


class Columns(Independent):
    """Independent columns of a table, each of its own likelihood; columns of one likelihood are handled together.

    Args:
        parts: for each likelihood the indices (n,) of its columns and their distribution, event (n,).
    """

    event = 1

    def __init__(self, parts: Sequence[tuple[Tensor, Likelihood]]) -> None:
        self.parts = parts
        self._order = torch.cat([index for index, _ in parts]).argsort()

    @property
    def mean(self) -> Tensor:
        """Mean of each column, (…, J); of a categorical one the most probable class."""
        return torch.cat([part.mean for _, part in self.parts], -1).index_select(-1, self._order)

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Log-density of each column of rows (…, J): (…, J)."""
        found = [part.elementwise_log_prob(value.index_select(-1, index)) for index, part in self.parts]
        return torch.cat(found, -1).index_select(-1, self._order)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Rows, (*shape, …, J); a gradient passes through normal and laplace columns alone."""
        drawn = torch.cat([part.rsample(shape, generator) for _, part in self.parts], -1)
        return drawn.index_select(-1, self._order)


Likelihood = Diagonal | Bernoulli | Categorical | NegativeBinomial | ZeroInflatedNegativeBinomial | Columns


def observed_log_prob(p: Likelihood, value: Tensor, seen: Tensor | None) -> Tensor:
    """log p of the cells of values (…, *event) that are `seen`, a mask of their shape: (…). None sees them all."""
    if seen is None:
        return p.log_prob(value)
    return p.elementwise_log_prob(value).masked_fill(~seen, 0).flatten(-p.event).sum(-1)


@dataclass(frozen=True)
class Elementwise:
    """A likelihood under which the values of a modality are alike and independent.

    Args:
        numbers: raw numbers P that each value needs.
        read: the distribution of raw numbers (…, P, *event), given the scale and the number of event dimensions.
    """

    numbers: Callable[[Modality], int]
    read: Callable[[Tensor, Scale, int], Likelihood]

    def raw_shape(self, modality: Modality) -> tuple[int, ...]:
        """(P·C, *space) of values (C, *space); tokens have no channels, hence (P, tokens)."""
        numbers = self.numbers(modality)
        if modality.kind == "sequence":
            return (numbers, *modality.shape)
        return (numbers * modality.shape[0], *modality.shape[1:])

    def __call__(self, modality: Modality, output: Tensor, scale: Scale) -> Likelihood:
        """The distribution of a raw output (…, *raw_shape)."""
        batch = output.shape[: output.dim() - len(self.raw_shape(modality))]
        raw = output.reshape(*batch, self.numbers(modality), *modality.shape)
        return self.read(raw, scale, len(modality.shape))


class TableLikelihood:
    """The likelihood of a table; its raw output holds the numbers of each group of columns in turn."""

    def raw_shape(self, modality: Modality) -> tuple[int, ...]:
        """(Σ_j P_j,) over the columns j."""
        return (sum(group.numbers for group in column_groups(modality.columns, torch.device("cpu"))),)

    def __call__(self, modality: Modality, output: Tensor, scale: Scale) -> Columns:
        """The distribution of a raw output (…, Σ_j P_j), whatever the scale: each column has its own."""
        found = column_groups(modality.columns, output.device)
        raw = output.split([group.numbers for group in found], -1)
        return Columns([(group.index, group.read(part)) for group, part in zip(found, raw, strict=True)])


@dataclass(frozen=True)
class ColumnGroup:
    """The columns of a table that share a likelihood.

    Args:
        index: their places in the table, (n,).
        numbers: raw numbers of them all.
        read: the distribution of raw numbers (…, numbers), event (n,).
    """

    index: Tensor
    numbers: int
    read: Callable[[Tensor], Likelihood]


@lru_cache(maxsize=64)
def column_groups(columns: tuple[Column, ...], device: torch.device) -> tuple[ColumnGroup, ...]:
    """The groups of a table's columns, their tensors on a device."""
    found = []
    with torch.inference_mode(False):  # what is kept here must serve training too
        for likelihood in dict.fromkeys(column.likelihood for column in columns):
            members = [place for place, column in enumerate(columns) if column.likelihood == likelihood]
            index = torch.tensor(members, device=device)
            if likelihood == "categorical":
                found.append(categorical_group(index, [columns[place].classes or 0 for place in members]))
            else:
                numbers, read = COLUMN_LIKELIHOODS[likelihood]
                found.append(ColumnGroup(index, numbers * len(members), read))
    return tuple(found)


def categorical_group(index: Tensor, classes: Sequence[int]) -> ColumnGroup:
    """Columns with their own numbers of classes: logits side by side, read as one table padded with −∞."""
    count = torch.tensor(classes, device=index.device)
    level = torch.arange(max(classes), device=index.device).unsqueeze(1)  # (K, 1)
    absent = level >= count  # (K, n)
    place = (count.cumsum(0) - count + level).masked_fill(absent, 0)

    def read(raw: Tensor) -> Likelihood:
        logits = raw.index_select(-1, place.flatten()).unflatten(-1, place.shape)
        return Categorical(logits.masked_fill(absent, -math.inf), 1)

    return ColumnGroup(index, sum(classes), read)


def first(raw: Tensor, event: int) -> Tensor:
    """The only raw number of each value: (…, 1, *event) → (…, *event)."""
    return raw.select(-event - 1, 0)


def location_scale(family: type[Diagonal]) -> Callable[[Tensor, Scale, int], Likelihood]:
    """A location–scale family whose scale is given: a number, or a learned parameter ()."""

    def read(raw: Tensor, scale: Scale, event: int) -> Likelihood:
        return family(first(raw, event), torch.as_tensor(scale, dtype=raw.dtype, device=raw.device), event)

    return read


def counts(raw: Tensor, event: int) -> NegativeBinomial:
    """Raw numbers (…, 2, *event): log μ, log θ."""
    log_mean, log_dispersion = raw.unbind(-event - 1)
    return NegativeBinomial(log_mean, log_dispersion, event)


def inflated_counts(raw: Tensor, event: int) -> ZeroInflatedNegativeBinomial:
    """Raw numbers (…, 3, *event): log μ, log θ, logit of π."""
    log_mean, log_dispersion, dropout = raw.unbind(-event - 1)
    return ZeroInflatedNegativeBinomial(NegativeBinomial(log_mean, log_dispersion, event), dropout)


LIKELIHOODS: dict[str, Elementwise | TableLikelihood] = {
    "normal": Elementwise(lambda modality: 1, location_scale(Normal)),
    "laplace": Elementwise(lambda modality: 1, location_scale(Laplace)),
    "bernoulli": Elementwise(lambda modality: 1, lambda raw, scale, event: Bernoulli(first(raw, event), event)),
    "categorical": Elementwise(
        lambda modality: modality.classes or 0, lambda raw, scale, event: Categorical(raw, event)
    ),
    "negative_binomial": Elementwise(lambda modality: 2, lambda raw, scale, event: counts(raw, event)),
    "zero_inflated_negative_binomial": Elementwise(
        lambda modality: 3, lambda raw, scale, event: inflated_counts(raw, event)
    ),
    "columns": TableLikelihood(),
}
"""Name → shape of a decoder's raw output, and the distribution of a value given that output and the scale."""

SCALED = ("normal", "laplace")
"""Likelihoods that take the scale; the others have all their parameters from the decoder."""

COLUMN_LIKELIHOODS: dict[str, tuple[int, Callable[[Tensor], Likelihood]]] = {
    "normal": (2, Normal.from_raw),
    "laplace": (2, Laplace.from_raw),
    "bernoulli": (1, lambda raw: Bernoulli(raw, 1)),
    "negative_binomial": (2, lambda raw: counts(raw.unflatten(-1, (2, -1)), 1)),
    "zero_inflated_negative_binomial": (3, lambda raw: inflated_counts(raw.unflatten(-1, (3, -1)), 1)),
}
"""Name → raw numbers P of a column, and the distribution of the raw numbers (…, P·n) of n such columns."""


def raw_shape(modality: Modality) -> tuple[int, ...]:
    """Shape of a decoder's raw output for one value: (P·C, *space), (P, tokens) or (Σ_j P_j,) for columns j."""
    return LIKELIHOODS[modality.likelihood].raw_shape(modality)


def likelihood(modality: Modality, output: Tensor, scale: Scale) -> Likelihood:
    """p(x | z) of one modality from its decoder's raw output (…, *raw_shape)."""
    return LIKELIHOODS[modality.likelihood](modality, output, scale)
