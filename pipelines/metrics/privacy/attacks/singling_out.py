"""Singling out: "there is exactly one person with these attributes" (Giomi et al. 2023).

The attacker looks for predicates that exactly one synthetic row satisfies, and guesses that they are true of exactly
one row of the training data.

- Univariate predicates name one attribute: a value that one synthetic row has, or numbers at least as large as the
  largest, or at most as large as the smallest.
- Multivariate predicates describe a synthetic row by several of its attributes, joined by "and": the class, or a number
  at least as large as the row's if that is above the median, else at most as large.

A missing value satisfies no predicate. The naive attacker draws attributes, values and directions at random.

The success of a guess depends on the number of rows, and there are fewer held-out rows than training rows. So the
control attack puts a held-out row in the place of a training row: the predicate isolates it if the held-out row
satisfies it and no other training row does. With n training and m held-out rows of which k and l satisfy a predicate,
its expected number of such successes over the whole table is

    n/m · l · (1[k = 0] + 1[k = 1] / n)

which has the expectation of 1[k = 1] if held-out and training rows have the same distribution.

Guesses depend on each other through the rows. The variance of the difference of both numbers of successes is the sum of
the squares of the influences of all rows (Efron & Stein 1981, https://doi.org/10.1214/aos/1176345462). Without a
held-out row, its own successes are lost. Without a training row, a predicate that isolates it is true of no other, so
that n/m · l successes of the control attack are added; and a predicate that is true of two rows isolates the other. The
effective number of attacks is their number, divided by the ratio of this variance to that of independent attacks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.privacy.attacks.attack import Outcome, Rate
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.pipelines.metrics.statistics.missing import Missing

Bools = NDArray[np.bool_]
CANDIDATES = 40  # drawn predicates per attack, at most
LARGEST = 10  # maximum number of attributes in a predicate
BLOCK = 2**24  # truth values in memory
FEWEST = 20  # attacks that a rate needs
EQUAL, LEAST, MOST = 0, 1, 2


@dataclass(frozen=True)
class Predicates:
    """Q predicates: the attributes (Q, A) that each names, their values (Q, A), and how they are compared (Q, A)."""

    named: Bools
    values: Floats
    comparison: Ints

    def __len__(self) -> int:
        return len(self.named)

    def select(self, chosen: Ints | Bools | slice) -> Self:
        """Return some of the predicates."""
        return type(self)(self.named[chosen], self.values[chosen], self.comparison[chosen])

    def blocks(self, rows: int) -> Iterator[Self]:
        """Yield the predicates in blocks whose truth values for some rows fit into memory."""
        step = max(1, BLOCK // max(rows, 1))
        for start in range(0, len(self), step):
            yield self.select(slice(start, start + step))

    def true(self, rows: Floats) -> Bools:
        """Return of which rows (N, A) each predicate is true, (Q, N)."""
        true = np.ones((len(self), len(rows)), bool)
        for attribute, column in enumerate(rows.T):
            for comparison, compare in ((EQUAL, np.equal), (LEAST, np.greater_equal), (MOST, np.less_equal)):
                own = np.flatnonzero(self.named[:, attribute] & (self.comparison[:, attribute] == comparison))
                true[own] &= compare(column, self.values[own, attribute, None])
        return true

    def isolating(self, rows: Floats) -> Self:
        """Return the predicates that are true of exactly one row (N, A)."""
        counts = [block.true(rows).sum(1) for block in self.blocks(len(rows))]
        return self.select(np.concatenate(counts) == 1) if counts else self


def singling_out(
    train: Floats, control: Floats, synthetic: Floats, classes: Bools, attacks: int, rng: np.random.Generator
) -> dict[str, Outcome | Missing]:
    """Return the outcomes of `singling_out`, with several attributes, and of `singling_out_univariate`.

    Shapes: rows (n, A), (m, A) and (N, A), NaN where missing; classes (A,).
    """
    found = {"singling_out": multivariate(synthetic, classes, attacks, rng)} if len(classes) > 1 else {}
    single = univariate(synthetic, classes)
    found["singling_out_univariate"] = single.select(np.sort(rng.permutation(len(single))[:attacks]))
    outcomes: dict[str, Outcome | Missing] = {"singling_out": Missing("the data have only one attribute")}
    for name, predicates in found.items():
        outcomes[name] = outcome_of(train, control, synthetic, classes, predicates, rng)
    return outcomes


def univariate(synthetic: Floats, classes: Bools) -> Predicates:
    """Return all predicates with one attribute that exactly one of the synthetic rows (N, A) satisfies."""
    found: list[tuple[int, float, int]] = []
    for attribute, column in enumerate(synthetic.T):
        values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
        found += [(attribute, value, EQUAL) for value in values[counts == 1]]
        if not classes[attribute] and len(values):
            ends = ((0, MOST), (-1, LEAST))
            found += [(attribute, values[end], comparison) for end, comparison in ends if counts[end] == 1]
    named = np.zeros((len(found), len(classes)), bool)
    values, comparison = np.zeros(named.shape), np.full(named.shape, EQUAL)
    attributes = np.array([attribute for attribute, _, _ in found], int)
    lines = np.arange(len(found))
    named[lines, attributes] = True
    values[lines, attributes] = [value for _, value, _ in found]
    comparison[lines, attributes] = [kind for _, _, kind in found]
    return Predicates(named, values, comparison)


def multivariate(synthetic: Floats, classes: Bools, attacks: int, rng: np.random.Generator) -> Predicates:
    """Return at most `attacks` random predicates that exactly one of the synthetic rows (N, A) satisfies."""
    median = np.nanmedian(np.where(np.isnan(synthetic).all(0), 0.0, synthetic), axis=0)
    found: list[Predicates] = []
    for _ in range(CANDIDATES):
        rows = synthetic[rng.integers(len(synthetic), size=attacks)]
        named = _drawn_attributes(rows.shape, rng) & ~np.isnan(rows)
        comparison = np.where(classes, EQUAL, np.where(rows > median, LEAST, MOST))
        drawn = Predicates(named, np.nan_to_num(rows), comparison).select(named.sum(1) > 1)
        found.append(drawn.isolating(synthetic))
        if sum(map(len, found)) >= attacks:
            break
    parts = [(p.named, p.values, p.comparison) for p in found]
    named, values, comparison = (np.concatenate(part)[:attacks] for part in zip(*parts, strict=True))
    return Predicates(named, values, comparison)


def _drawn_attributes(shape: tuple[int, ...], rng: np.random.Generator) -> Bools:
    """Draw for each of Q predicates between 2 and `LARGEST` of A attributes, as (Q, A)."""
    sizes = rng.integers(2, min(shape[1], LARGEST) + 1, size=shape[0])
    return rng.random(shape).argsort(1).argsort(1) < sizes[:, None]


def _naive(like: Predicates, synthetic: Floats, classes: Bools, rng: np.random.Generator) -> Predicates:
    """Return predicates with as many attributes, but with values and directions drawn at random."""
    shape = like.named.shape
    named = rng.random(shape).argsort(1).argsort(1) < like.named.sum(1, keepdims=True)
    seen = np.where(np.isnan(synthetic).all(0), 0.0, synthetic)
    low, high = np.nanmin(seen, 0), np.nanmax(seen, 0)
    values = low + (high - low) * rng.random(shape)
    comparison = np.where(classes, EQUAL, rng.integers(LEAST, MOST + 1, size=shape))
    return Predicates(named, np.where(classes, np.rint(values), values), comparison)


def outcome_of(
    train: Floats, control: Floats, synthetic: Floats, classes: Bools, guesses: Predicates, rng: np.random.Generator
) -> Outcome | Missing:
    """Return the outcome of guesses: main attack on training rows (n, A), control attack on held-out rows (m, A)."""
    if len(guesses) < FEWEST:
        needed = f"at least {FEWEST} predicates that isolate a synthetic row are needed, found {len(guesses)}"
        return Missing(needed)
    n, m = len(train), len(control)
    people, influence, others = np.zeros(n), np.zeros(n), np.zeros(m)
    for block in guesses.blocks(n + m):
        true, held_out = block.true(train), n / m * block.true(control)
        count = true.sum(1)
        people += true[count == 1].sum(0)
        influence += (1 + held_out[count == 1].sum(1)) @ true[count == 1] - true[count == 2].sum(0)
        others += ((count == 0) + (count == 1) / n) @ held_out
    hits, variance = people.sum() + others.sum(), np.square(influence).sum() + np.square(others).sum()
    size = len(guesses) / max(variance / hits if hits else n / m, 1)
    main, held = (Rate(min(float(side.sum()) / len(guesses), 1.0), float(size)) for side in (people, others))
    random = _naive(guesses, synthetic, classes, rng).isolating(train)
    details = {"people": int((people > 0).sum())}
    return Outcome(main, held, len(random) / len(guesses), len(guesses), details)
