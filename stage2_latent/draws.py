"""Classes, and fresh posterior draws of the rows of each class: the data that densities are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from postprior.stage2_latent.categorical import draw_component
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.gaussians import Gaussians, covariance_factors
from postprior.stage2_latent.moments import Whitening, moments, regularised

ENOUGH_COMPLETE = 100
"""If at least this many held-out rows are complete, only complete rows are held out."""


@dataclass(frozen=True, eq=False)
class Classes:
    """The K labels of a density in ascending order; a single class −1 if there are no labels.

    Without labels, there may also be K clusters, the classes −K … −1; codes then have the indices of these as labels.

    Args:
        labels: (K,) int64.
        probabilities: p(label), (K,).
        names: names of all labels that may occur, or None.
    """

    labels: Tensor
    probabilities: Tensor
    names: tuple[str, ...] | None = None

    @classmethod
    def fit(cls, codes: Codes, labelled: bool) -> Self:
        """Return the labels that occur in the codes, with their frequencies among the rows that have a label."""
        if not labelled or codes.labels is None or not bool((codes.labels >= 0).any()):
            return cls(torch.tensor([-1]), torch.ones(1, dtype=codes.loc.dtype))
        labels, counts = codes.labels[codes.labels >= 0].unique(return_counts=True)
        return cls(labels, (counts.double() / counts.sum()).to(codes.loc.dtype), codes.label_names)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether the density has labels."""
        return int(self.labels[0]) >= 0

    def index(self, labels: Tensor) -> Tensor:
        """Return the class index of each label, −1 for a label that never occurred; shape (n,)."""
        place = torch.searchsorted(self.labels, labels.contiguous()).clamp_max(len(self) - 1)
        return torch.where(self.labels[place] == labels, place, -1)

    def resolve(self, labels: Tensor, n: int) -> Tensor:
        """Return the class index of each of n labels passed by the caller; raise ValueError if they are invalid."""
        labels = torch.as_tensor(labels)
        if not self.labelled:
            raise ValueError("labels: the density was fitted without labels, expected labels=None")
        if labels.is_floating_point() or tuple(labels.shape) != (n,):
            found = f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(f"labels: found {found}, expected integers of shape ({n},)")
        index = self.index(labels.long())
        if bool((index < 0).any()):
            unknown, known = int(labels[index < 0][0]), ", ".join(map(str, self.labels.tolist()))
            raise ValueError(f"labels: {unknown} is unknown, expected one of {known}")
        return index

    def of(self, codes: Codes) -> Tensor:
        """Return the class index of each row of codes, −1 for no label or one that never occurred; shape (N,)."""
        if not self.labelled and len(self) == 1:
            return torch.zeros(len(codes), dtype=torch.int64)
        if codes.labels is None:
            raise ValueError("codes: validation codes have no labels, expected labels, as the training codes have them")
        return self.index(codes.labels) if self.labelled else codes.labels


class Filling(Protocol):
    """A distribution per class that fills in the missing blocks of codes, such as `Gaussians`."""

    def complete(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw (n, D), keeping the coordinates of z marked in `known` (D,); also return the classes (n,)."""


class Labelling(Protocol):
    """A distribution per class, with p(class), that infers the class of codes, such as `Gaussians`."""

    def class_probabilities(self, z: Tensor, known: Tensor) -> Tensor:
        """Return p(class | the coordinates of z (n, D) marked in `known` (D,)), (n, K)."""


def patterns(known: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the different rows of a mask `known` (n, D), each with the indices of the rows that are equal to it."""
    distinct, group = known.unique(dim=0, return_inverse=True)
    for number, pattern in enumerate(distinct):
        yield pattern, (group == number).nonzero().squeeze(-1)


class Draws:
    """Fresh, whitened posterior draws of a subset of the rows of a table of codes.

    Rows without a label are not drawn from until `infer` has drawn a class for each of them.

    Args:
        codes: the full table.
        rows: rows of the table to draw from.
        classes: class index of each of these rows, 0 … K − 1; −1 for rows without a label.
        whitening: applied to each draw.
        count: K.
        filling: draws the missing blocks of rows, not whitened; a density that learns a better distribution may
            replace it.
    """

    def __init__(
        self,
        codes: Codes,
        rows: Tensor,
        classes: Tensor,
        whitening: Whitening,
        count: int,
        filling: Filling | None = None,
    ) -> None:
        self.codes, self.whitening, self.filling, self._count = codes, whitening, filling, count
        known = classes >= 0
        self._labelled, self.unlabelled = (rows[known], classes[known]), rows[~known]
        self._arrange(*self._labelled)

    def _arrange(self, rows: Tensor, classes: Tensor) -> None:
        """Draw from these rows (n,) of these classes (n,), sorted by class."""
        order = classes.argsort(stable=True)
        self.rows, self.classes = rows[order], classes[order]
        self.counts = torch.bincount(classes, minlength=self._count)  # (K,) number of rows per class
        self._start = self.counts.cumsum(0) - self.counts

    def __len__(self) -> int:
        return len(self.rows)

    def table(self) -> Codes:
        """Return the codes of the rows that are drawn from."""
        return self.codes.select(self.rows)

    def draw(self, generator: torch.Generator, index: Tensor | None = None) -> Tensor:
        """Return one fresh draw per row of `rows`, or of those at `index`; shape (n, D)."""
        rows, classes = (self.rows, self.classes) if index is None else (self.rows[index], self.classes[index])
        z = self.codes.draw(generator, rows)
        if self.filling is not None:
            z = self._filled(z, self.codes.known(rows), classes, self.filling, generator)
        return self.whitening.forward(z)

    def _filled(
        self, z: Tensor, known: Tensor, classes: Tensor, filling: Filling, generator: torch.Generator
    ) -> Tensor:
        """Draw the unknown coordinates given the known ones, for one pattern of missing blocks at a time."""
        for pattern, rows in patterns(known):
            if not bool(pattern.all()):
                z[rows] = filling.complete(z[rows], pattern, classes[rows], generator)[0]
        return z

    def repeated(self, times: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return several draws per row, (times·n, D), and their classes, (times·n,)."""
        draws = torch.cat([self.draw(generator) for _ in range(times)])
        return draws, self.classes.repeat(times)

    def shuffled(self, generator: torch.Generator) -> Self:
        """Return the same draws with the rows of each class in random order."""
        order = torch.randperm(len(self), generator=generator)
        rows = torch.cat([self.rows[order], self.unlabelled])
        classes = torch.cat([self.classes[order], torch.full_like(self.unlabelled, -1)])
        return type(self)(self.codes, rows, classes, self.whitening, self._count, self.filling)

    def infer(self, mixtures: Labelling, generator: torch.Generator) -> Tensor:
        """Draw a class for each row without a label from p(class | z), for a fresh z of the row.

        Returns:
            p(class) of all rows, (K,): the mean over rows of the known class, or of p(class | z).
        """
        rows, classes = self._labelled
        z, known = self.codes.draw(generator, self.unlabelled), self.codes.known(self.unlabelled)
        posterior = z.new_empty(len(z), self._count)
        for pattern, chosen in patterns(known):
            posterior[chosen] = mixtures.class_probabilities(z[chosen], pattern)
        drawn = draw_component(posterior, torch.arange(len(z), device=z.device), generator)
        self._arrange(torch.cat([rows, self.unlabelled]), torch.cat([classes, drawn]))
        expected = torch.bincount(classes, minlength=self._count) + posterior.sum(0)
        return expected / expected.sum()

    def places(self, step: int, size: int) -> Tensor:
        """Return indices into `rows` of the step-th batch, (K, size); each class cycles through its rows in order."""
        turn = torch.arange(step * size, (step + 1) * size)
        return self._start.unsqueeze(-1) + turn % self.counts.unsqueeze(-1)

    def balanced(self, step: int, size: int, generator: torch.Generator) -> Tensor:
        """Return fresh draws of the step-th batch, with the same number of rows per class; shape (K, size, D)."""
        places = self.places(step, size)
        return self.draw(generator, places.flatten()).unflatten(0, tuple(places.shape))


def split(
    codes: Codes,
    validation: Codes | None,
    classes: Classes,
    whitening: Whitening,
    usable: Callable[[Codes], Tensor],
    generator: torch.Generator,
) -> tuple[Draws, Draws]:
    """Return draws for fitting and held-out draws, both of `usable` rows.

    Without validation codes, or if none of them has a label, a tenth of each class is held out. If at least
    `ENOUGH_COMPLETE` held-out rows are complete, only these are held out, because the filled-in blocks of the others
    are themselves model predictions.
    """
    train, count = usable(codes), len(classes)
    filling = None if bool(codes.complete[train].all()) else fit_filling(codes, train, classes)
    if classes.labelled and validation is not None and validation.labels is not None:
        validation = validation if bool((validation.labels >= 0).any()) else None

    def draws(source: Codes, chosen: Tensor) -> Draws:
        rows = chosen.nonzero().squeeze(-1)
        complete = bool(source.complete[rows].all())
        return Draws(source, rows, classes.of(source)[rows], whitening, count, None if complete else filling)

    if validation is None:
        shuffled = draws(codes, train).shuffled(generator)
        rank = torch.arange(len(shuffled), device=shuffled.rows.device) - shuffled._start[shuffled.classes]
        tenth = shuffled.rows[(rank % 10 == 0) & (shuffled.counts[shuffled.classes] > 1)]
        held_out = torch.zeros_like(train).index_fill(0, tenth, True)
        train, validation = train & ~held_out, codes
    else:
        held_out = usable(validation) & (classes.of(validation) >= 0)
        if filling is None and not bool(validation.complete[held_out].all()):
            held_out &= validation.complete
    if int((held_out & validation.complete).sum()) >= ENOUGH_COMPLETE:
        held_out &= validation.complete
    if not bool(held_out.any()):
        raise ValueError(
            "codes: found no complete validation row with a label of the training codes, expected at least one"
        )
    return draws(codes, train), draws(validation, held_out)


def fit_filling(codes: Codes, rows: Tensor, classes: Classes) -> Gaussians:
    """Fit one Gaussian per class to the observed blocks of the rows marked in `rows` (N,), as the first filling.

    Each covariance is shrunk towards the mean covariance with the weight of D rows. Rows without a label are not used.
    """
    index = classes.of(codes).masked_fill(~rows, -1)
    means, covariances = moments(codes, index, len(classes))
    counts = torch.bincount(index[index >= 0], minlength=len(classes)).to(means)[:, None, None]
    pooled = (counts * covariances).sum(0) / counts.sum()
    mean = (counts.squeeze(-1) * means).sum(0) / counts.sum()
    pooled = regularised(pooled, mean, int(counts.sum()), torch.finfo(codes.loc.dtype).eps)
    D = codes.dimensions
    factors = covariance_factors((counts * covariances + D * pooled) / (counts + D))
    parameters = (means.new_zeros(len(means), 1), means.unsqueeze(1), factors.unsqueeze(1))
    return Gaussians(*(parameter.to(codes.loc) for parameter in parameters))
