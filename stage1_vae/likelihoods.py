"""Converts decoder outputs to the likelihoods of modalities.

The output of a decoder is raw: unconstrained numbers of shape `raw_shape(modality)`. The likelihood determines how many
numbers each value needs and how they are interpreted.
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
    NegativeBinomialMixture,
    ZeroInflatedNegativeBinomial,
)
from postprior.stage1_vae.distributions import Diagonal, Laplace, Normal, at_least_single
from postprior.stage1_vae.hurdle import Hurdle, HurdleLogNormal, HurdleSoftplus
from postprior.stage1_vae.intervals import IntervalNormal
from postprior.stage1_vae.modalities import Column, Modality

Scale = float | Tensor


class Columns(Independent):
    """Independent columns of a table, each with its own likelihood; columns with the same likelihood form one part.

    Args:
        parts: for each likelihood, the indices (n,) of its columns and their distribution, event (n,).
    """

    event = 1

    def __init__(self, parts: Sequence[tuple[Tensor, Likelihood]]) -> None:
        self.parts = parts
        self._order = torch.cat([index for index, _ in parts]).argsort()

    @property
    def mean(self) -> Tensor:
        """Mean of each column, (…, J); for a categorical column, the most probable class."""
        return torch.cat([part.mean for _, part in self.parts], -1).index_select(-1, self._order)

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of each column of the rows (…, J): (…, J)."""
        log_probs = [part.elementwise_log_prob(value.index_select(-1, index)) for index, part in self.parts]
        return torch.cat(log_probs, -1).index_select(-1, self._order)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return rows (*shape, …, J); only normal and laplace columns have a gradient."""
        drawn = torch.cat([part.rsample(shape, generator) for _, part in self.parts], -1)
        return drawn.index_select(-1, self._order)


Likelihood = (
    Diagonal
    | Bernoulli
    | Categorical
    | IntervalNormal
    | NegativeBinomial
    | NegativeBinomialMixture
    | ZeroInflatedNegativeBinomial
    | Hurdle
    | Columns
)


def observed_log_prob(p: Likelihood, value: Tensor, observed: Tensor | None) -> Tensor:
    """Return log p of the observed cells of the values (…, *event): (…).

    `observed` is a bool mask with the shape of the values; None means that all cells are observed.
    """
    if observed is None:
        return p.log_prob(value)
    return p.elementwise_log_prob(value).masked_fill(~observed, 0).flatten(-p.event).sum(-1)


def tempered(p: Likelihood, temperature: Tensor) -> Likelihood:
    """Return a likelihood with the logits of classes and binary values divided by a temperature; others are unchanged.

    A temperature above 1 makes the probabilities more alike. The most probable class stays the same.

    Args:
        p: likelihood of values (…, *event).
        temperature: positive, broadcastable to *event; (J,) for the columns of a table.
    """
    if isinstance(p, Columns):
        return Columns([(index, tempered(part, temperature[index])) for index, part in p.parts])
    if isinstance(p, (Bernoulli, Categorical)):
        return type(p)(p.logits / temperature, p.event)
    return p


@dataclass(frozen=True)
class Elementwise:
    """A likelihood with independent values that all belong to the same family.

    Args:
        numbers: returns the number P of raw numbers per value of a modality.
        read: returns the distribution given raw numbers (…, P, *event), the scale and the number of event dimensions.
    """

    numbers: Callable[[Modality], int]
    read: Callable[[Tensor, Scale, int], Likelihood]

    def raw_shape(self, modality: Modality) -> tuple[int, ...]:
        """Return (P·C, *space) for values (C, *space), or (P, tokens) for a sequence, which has no channels."""
        numbers = self.numbers(modality)
        if modality.kind == "sequence":
            return (numbers, *modality.shape)
        return (numbers * modality.shape[0], *modality.shape[1:])

    def __call__(self, modality: Modality, output: Tensor, scale: Scale) -> Likelihood:
        """Return the distribution given a raw output (…, *raw_shape)."""
        batch = output.shape[: output.dim() - len(self.raw_shape(modality))]
        raw = output.reshape(*batch, self.numbers(modality), *modality.shape)
        return self.read(raw, scale, len(modality.shape))


class TableLikelihood:
    """The likelihood of a table; its raw output holds the raw numbers of one group of columns after another."""

    def raw_shape(self, modality: Modality) -> tuple[int, ...]:
        """Return (Σ_j P_j,), the sum over the columns j."""
        return (sum(group.numbers for group in column_groups(modality.columns, torch.device("cpu"))),)

    def __call__(self, modality: Modality, output: Tensor, scale: Scale) -> Columns:
        """Return the distribution given a raw output (…, Σ_j P_j). `scale` is ignored: each column has its own."""
        groups = column_groups(modality.columns, output.device)
        raw = output.split([group.numbers for group in groups], -1)
        return Columns([(group.index, group.read(part)) for group, part in zip(groups, raw, strict=True)])


@dataclass(frozen=True)
class ColumnGroup:
    """The columns of a table that share a likelihood.

    Args:
        index: indices of the columns in the table, (n,).
        numbers: number of raw numbers of all these columns.
        read: returns the distribution, event (n,), given raw numbers (…, numbers).
    """

    index: Tensor
    numbers: int
    read: Callable[[Tensor], Likelihood]


@lru_cache(maxsize=64)
def column_groups(columns: tuple[Column, ...], device: torch.device) -> tuple[ColumnGroup, ...]:
    """Return the columns of a table grouped by likelihood, with tensors on the given device."""
    groups = []
    with torch.inference_mode(False):  # cached tensors must be usable in training too
        keys = [(column.likelihood, bool(column.intervals)) for column in columns]
        for likelihood, intervals in dict.fromkeys(keys):
            members = [position for position, key in enumerate(keys) if key == (likelihood, intervals)]
            index = torch.tensor(members, device=device)
            if likelihood == "categorical":
                groups.append(categorical_group(index, [columns[position].classes or 0 for position in members]))
            elif intervals:
                groups.append(interval_group(index, [columns[position].intervals for position in members]))
            else:
                numbers, read = COLUMN_LIKELIHOODS[likelihood]
                groups.append(ColumnGroup(index, numbers * len(members), read))
    return tuple(groups)


def categorical_group(index: Tensor, classes: Sequence[int]) -> ColumnGroup:
    """Return the group of categorical columns, which may differ in their numbers of classes.

    The raw numbers are the concatenated logits of the columns; `read` arranges them as (K, n) and pads with −∞.
    """
    count = torch.tensor(classes, device=index.device)
    level = torch.arange(max(classes), device=index.device).unsqueeze(1)  # (K, 1)
    absent = level >= count  # (K, n)
    position = (count.cumsum(0) - count + level).masked_fill(absent, 0)

    def read(raw: Tensor) -> Likelihood:
        logits = raw.index_select(-1, position.flatten()).unflatten(-1, position.shape)
        return Categorical(logits.masked_fill(absent, -math.inf), 1)

    return ColumnGroup(index, sum(classes), read)


def interval_group(index: Tensor, intervals: Sequence[Sequence[tuple[float, float]]]) -> ColumnGroup:
    """Return the group of normal columns with intervals, which may differ in their numbers of intervals."""
    most = max(map(len, intervals))
    ends = [[*own, *[(math.inf, -math.inf)] * (most - len(own))] for own in intervals]
    low, high = torch.tensor(ends, device=index.device).unbind(-1)  # (n, K)
    return ColumnGroup(index, 2 * len(intervals), lambda raw: IntervalNormal(Normal.from_raw(raw), low, high))


def only_number(raw: Tensor, event: int) -> Tensor:
    """Return the only raw number of each value: (…, 1, *event) → (…, *event)."""
    return raw.select(-event - 1, 0)


def scale_like(raw: Tensor, scale: Scale) -> Tensor:
    """Return a scale with the type and device of raw numbers; a number is written there, not copied from the host."""
    return scale.to(raw) if isinstance(scale, Tensor) else raw.new_full((), scale)


def location_scale(family: type[Diagonal]) -> Callable[[Tensor, Scale, int], Likelihood]:
    """Return the `read` function of a location–scale family; its scale is a number, () or one per coordinate."""

    def read(raw: Tensor, scale: Scale, event: int) -> Likelihood:
        return family(only_number(raw, event), scale_like(raw, scale), event)

    return read


def counts(raw: Tensor, event: int) -> NegativeBinomial:
    """Return the distribution given raw numbers (…, 2, *event): log μ, log θ."""
    log_mean, log_dispersion = raw.unbind(-event - 1)
    return NegativeBinomial(log_mean, log_dispersion, event)


def inflated_counts(raw: Tensor, event: int) -> ZeroInflatedNegativeBinomial:
    """Return the distribution given raw numbers (…, 3, *event): log μ, log θ, logit of π."""
    log_mean, log_dispersion, dropout = raw.unbind(-event - 1)
    return ZeroInflatedNegativeBinomial(NegativeBinomial(log_mean, log_dispersion, event), dropout)


def hurdle(family: type[Hurdle]) -> Callable[[Tensor, Scale, int], Likelihood]:
    """Return the `read` function of a hurdle model with raw numbers (…, 2, *event): m, logit of π."""

    def read(raw: Tensor, scale: Scale, event: int) -> Likelihood:
        loc, absence = raw.unbind(-event - 1)
        return family(loc, scale_like(raw, scale), absence, event)

    return read


LIKELIHOODS: dict[str, Elementwise | TableLikelihood] = {
    "normal": Elementwise(lambda modality: 1, location_scale(Normal)),
    "laplace": Elementwise(lambda modality: 1, location_scale(Laplace)),
    "bernoulli": Elementwise(lambda modality: 1, lambda raw, scale, event: Bernoulli(only_number(raw, event), event)),
    "categorical": Elementwise(
        lambda modality: modality.classes or 0, lambda raw, scale, event: Categorical(raw, event)
    ),
    "negative_binomial": Elementwise(lambda modality: 2, lambda raw, scale, event: counts(raw, event)),
    "zero_inflated_negative_binomial": Elementwise(
        lambda modality: 3, lambda raw, scale, event: inflated_counts(raw, event)
    ),
    "hurdle_lognormal": Elementwise(lambda modality: 2, hurdle(HurdleLogNormal)),
    "hurdle_softplus": Elementwise(lambda modality: 2, hurdle(HurdleSoftplus)),
    "columns": TableLikelihood(),
}
"""Name → likelihood: the shape of the raw decoder output, and the distribution given that output and the scale."""

COLUMN_LIKELIHOODS: dict[str, tuple[int, Callable[[Tensor], Likelihood]]] = {
    "normal": (2, Normal.from_raw),
    "laplace": (2, Laplace.from_raw),
    "bernoulli": (1, lambda raw: Bernoulli(raw, 1)),
    "negative_binomial": (2, lambda raw: counts(raw.unflatten(-1, (2, -1)), 1)),
    "zero_inflated_negative_binomial": (3, lambda raw: inflated_counts(raw.unflatten(-1, (3, -1)), 1)),
}
"""Name → number P of raw numbers per column, and the distribution given the raw numbers (…, P·n) of n columns."""


def raw_shape(modality: Modality) -> tuple[int, ...]:
    """Return the shape of the raw decoder output for one value: (P·C, *space), (P, tokens) or (Σ_j P_j,)."""
    return LIKELIHOODS[modality.likelihood].raw_shape(modality)


def likelihood(modality: Modality, output: Tensor, scale: Scale) -> Likelihood:
    """Return p(x | z) of one modality given the raw output (…, *raw_shape) of its decoder."""
    return LIKELIHOODS[modality.likelihood](modality, at_least_single(output), scale)
