"""The missingness of training rows, as a model of which modalities and cells synthetic rows lack.

A row of code z, label y and values x lacks a pattern of units (`Units`), drawn in two steps:

    pattern ~ softmax(W f(z, y, x)),    f = the code, the label and values that all rows have (`Predictors`)
    units that the level of a column decides about (`StructuralRule`) follow this level

The patterns are those of at least `RARE` training rows. All other rows form one more class, whose units are drawn one
after the other, p(unit | f, earlier units) being logistic; so no pattern of few rows is stored. The regressions are
fitted to posterior draws, as densities are: averaged over training rows, the probability of each pattern is its share.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.data.arrays import Rows
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import emptied
from postprior.pipelines.generation.missingness.predictors import Predictors
from postprior.pipelines.generation.missingness.regression import bernoulli, multinomial
from postprior.pipelines.generation.missingness.structural import (
    ColumnKey,
    StructuralRule,
    level_columns,
    level_of,
    sentences,
    structural_rules,
)
from postprior.pipelines.generation.missingness.units import Flags, Units
from postprior.pipelines.metrics.statistics.intervals import Ints
from postprior.stage1_vae.modalities import Modality
from postprior.stage2_latent.codes import Codes

RARE = 5  # rows from which on a pattern is a class of its own
MOST = 50_000  # training rows that are used
CLASSES = 64  # patterns that are classes, at most
CHAINED = 64  # units up to which each depends on the earlier ones
SLOPED = 1000  # units up to which each depends on the code
WORK = 10**8  # products per pass over the rows of rare patterns, at most; fewer rows are used where they would be more
ROUNDS = 50  # of the adjustment to samples
PREFIX = "missingness."  # of the names of stored arrays
NEVER = -30.0  # log-odds below which a unit is never lacked


@dataclass(frozen=True, eq=False)
class Missingness:
    """Which modalities and cells rows lack, given their shared code, label and values.

    Attributes:
        units: what rows may lack.
        rules: structural rules, in the order in which they apply.
        predictors: the F numbers that describe a row.
        patterns: (C, U) bool, the units that rows of each class lack.
        classes: (1 + F, C) or (1 + F, C + 1), coefficients of the classes; the last may be that of rare patterns.
        chances: (1 + F, U) or (1 + F + U, U), coefficients of the units in rare patterns.
    """

    units: Units
    rules: tuple[StructuralRule, ...]
    predictors: Predictors
    patterns: Tensor
    classes: Tensor
    chances: Tensor

    def __post_init__(self) -> None:
        U, rows, C = len(self.units), 1 + len(self.predictors), len(self.patterns)
        if self.patterns.dtype != torch.bool or self.patterns.shape != (C, U):
            raise ValueError("patterns: expected the units of each class")
        if tuple(self.classes.shape) not in ((rows, C), (rows, C + 1)):
            raise ValueError("classes: expected coefficients of every class")
        if tuple(self.chances.shape) not in ((rows, U), (rows + U, U)):
            raise ValueError("chances: expected coefficients of every unit")
        if not bool(self.classes.isfinite().all() and self.chances.isfinite().all()):
            raise ValueError("classes and chances: expected finite coefficients")
        tables = {m.name: len(m.columns) for m in self.units.modalities}
        columns = [rule.column for rule in self.rules if rule.column is not None]
        if any(not 0 <= place < tables.get(name, 0) for name, place in (*columns, *self.predictors.columns)):
            raise ValueError("columns: expected columns of the modalities")
        if any(not 0 <= rule.unit < U for rule in self.rules):
            raise ValueError("rules: expected units")

    @classmethod
    def fit(
        cls,
        data: Dataset,
        codes: Codes,
        labelled: bool,
        generator: torch.Generator,
        samples: tuple[Tensor, Dataset] | None = None,
    ) -> Self | None:
        """Learn the missingness of training rows from their codes; None if no row lacks anything.

        Args:
            data: N training rows.
            codes: Their codes.
            labelled: Whether synthetic rows have labels when their missing values are drawn.
            generator: Draws one code per row.
            samples: Codes z (n, D) and values of complete samples. If they are given, patterns have the same rates
                in them as in the training rows with the same label.
        """
        if data.mask is None and not data.cells:
            return None
        N = len(data)
        rows = np.arange(N) if N <= MOST else torch.randperm(N, generator=generator)[:MOST].sort().values.numpy()
        labels = np.asarray(data.labels)[rows] if labelled and data.labels is not None else None
        units, absent = Units.of(data, rows)
        columns = [*level_columns(data, labels, rows)]
        rules = structural_rules(units, absent, columns)
        predictors = Predictors.of(units, absent, codes.layout, data, labels is not None, rules)
        levels = {c.column: np.where(c.seen, c.level, -1) for c in columns}
        values = {name: data.data[name][rows] for name in {name for name, _ in predictors.columns}}
        x = predictors(codes.draw(generator, torch.from_numpy(rows)), labels, values, levels)
        x = torch.where(x.isnan(), x.nanmean(0).nan_to_num(), x)
        applicable = units.applicable(absent)
        for rule in rules:
            decided = np.logical_or(*rule.decided(levels[rule.column]))
            absent[decided, rule.unit], applicable[decided, rule.unit] = False, False
        patterns, members = frequent_patterns(absent)
        used = members >= 0
        C = len(patterns) + bool((members == len(patterns)).any())
        classes = multinomial(x[used], torch.from_numpy(members[used]), C, predictors.precision)
        rare = np.flatnonzero(members == len(patterns))
        chances = rare_chances(x[rare], absent[rare], applicable[rare], predictors.precision)
        model = cls(units, rules, predictors, torch.from_numpy(patterns), classes, chances)
        if samples is not None:
            rates = predictors.by_label((classes[0] + x @ classes[1:]).softmax(1), labels)
            model = model._with_rates(rates, *samples)
        return model if model.possible.any() else None

    def _with_rates(self, rates: Tensor, z: Tensor, samples: Dataset) -> Self:
        """Return the model whose classes have these rates by label in samples with codes z (n, D)."""
        x = self.predictors(z, samples.labels, samples.data, self._levels(samples.data, samples.labels))
        classes, place = self.classes.clone(), self.predictors.place_of_labels
        for _ in range(ROUNDS):  # iterative scaling
            found = self.predictors.by_label((classes[0] + x @ classes[1:]).softmax(1), samples.labels)
            classes[place] += (rates / found).log().nan_to_num()
        return replace(self, classes=classes)

    @property
    def possible(self) -> Flags:
        """(U,) bool: the units that rows may lack."""
        possible = self.patterns.any(0).numpy()
        if self.classes.shape[1] > len(self.patterns):
            possible = possible | ((self.chances[0] > NEVER) | (self.chances[1:] != 0).any(0)).numpy()
        possible[[rule.unit for rule in self.rules if rule.absent]] = True
        return possible

    @property
    def arrays(self) -> list[str]:
        """The names of the arrays that tell which values rows have."""
        mask = ["mask"] if self.possible[: len(self.units.modalities)].any() else []
        return mask + [f"{name}.observed" for name in self.units.cells]

    def draw(
        self, z: Tensor, labels: Ints | None, data: Mapping[str, Rows], generator: torch.Generator
    ) -> tuple[Flags, dict[str, Flags]]:
        """Draw the mask (n, M) and the observed cells (n, *shape) of rows; every row has a modality.

        Shapes: codes z (n, D), labels (n,), values data[m] (n, *shape).
        """
        M, n = len(self.units.modalities), len(z)
        levels = self._levels(data, labels)
        x = self.predictors(z, labels, data, levels)
        uniform = torch.rand(n, 1 + len(self.units), generator=generator, dtype=torch.float64)
        absent = self._patterns(torch.cat([x.new_ones(len(x), 1), x], 1), uniform).numpy()
        forced = np.zeros_like(absent)
        for rule in self.rules:
            lacks, has = rule.decided(levels[rule.column])
            if rule.column is not None:
                owner = [m.name for m in self.units.modalities].index(rule.column[0])
                unit = self.units.unit_of(*rule.column)
                seen = ~absent[:, owner] & ~(absent[:, unit] & (unit >= 0))
                lacks, has = lacks & seen, has & seen
            absent[:, rule.unit] = (absent[:, rule.unit] | lacks) & ~has
            forced[:, rule.unit] = lacks
        nothing = absent[:, :M].all(1)
        kept = (forced[:, :M] + uniform[:, 1 : 1 + M].numpy())[nothing].argmin(1)
        absent[nothing, kept] = False
        return self.units.observed(absent)

    def _levels(self, data: Mapping[str, Rows], labels: Ints | None) -> dict[ColumnKey, Ints]:
        """Return the levels (n,) of all columns that decide."""
        return {rule.column: level_of(rule.column, data, labels) for rule in self.rules}

    def _patterns(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Draw the units (n, U) that rows with predictors x (n, 1 + F) lack, before the rules apply."""
        cumulative = (x @ self.classes).softmax(1).cumsum(1)
        drawn = (uniform[:, :1] * cumulative[:, -1:] >= cumulative).sum(1)
        rare = drawn == len(self.patterns)
        absent = torch.zeros_like(uniform[:, 1:], dtype=torch.bool)
        absent[~rare] = self.patterns[drawn[~rare]]
        if bool(rare.any()):
            absent[rare] = self._rare(x[rare], uniform[rare, 1:])
        return absent

    def _rare(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Draw the units (n, U) that rows of rare patterns lack, one after the other where they depend on others."""
        F, units = x.shape[1], np.arange(len(self.units))
        absent = torch.zeros_like(uniform, dtype=torch.bool)
        slopes, logits = self.chances[F:], x @ self.chances[:F]
        steps = units[:, None] if len(slopes) else np.split(units, [len(self.units.modalities)])
        for step in steps:
            given = absent.double() @ slopes[:, step] if len(slopes) else 0.0
            lacking = uniform[:, step] < (logits[:, step] + given).sigmoid()
            absent[:, step] = lacking & ~absent[:, self.units.owner[step]]
        return absent

    def applied(self, rows: Dataset, z: Tensor, generator: torch.Generator) -> Dataset:
        """Return complete synthetic rows with codes z (n, D) without the values that they lack."""
        mask, cells = self.draw(z, rows.labels, rows.data, generator)
        return emptied(replace(rows, mask=mask if "mask" in self.arrays else None, cells=cells))

    def allows(self, rows: Dataset, labels: Ints) -> Flags:
        """Return which of the labels (K,) rows with these holes may have by the rules that labels decide: (n, K)."""
        allowed = np.ones((len(rows), len(labels)), bool)
        for rule in self.rules:
            if rule.column is None:
                lacks, has = self.units.states(rule.unit, rows)
                allowed &= ~np.outer(lacks, np.isin(labels, rule.present)) & ~np.outer(
                    has, np.isin(labels, rule.absent)
                )
        return allowed | ~allowed.any(1, keepdims=True)

    def sentences(self, data: Dataset) -> list[str]:
        """Return the rules as sentences, with the names that the training rows `data` give to levels."""
        return sentences(self.rules, self.units, data)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return named arrays and a plain description, the arguments of `from_state`."""
        tensors = {"shared": self.predictors.shared, "patterns": self.patterns, "classes": self.classes}
        arrays = {name: tensor.numpy() for name, tensor in (tensors | {"chances": self.chances}).items()}
        arrays |= {f"units.{name}": units for name, units in self.units.cells.items()} | {"owner": self.units.owner}
        description = self.predictors.describe() | {"rules": [rule.describe() for rule in self.rules]}
        return {f"{PREFIX}{name}": array for name, array in arrays.items()}, description

    @classmethod
    def from_state(
        cls, arrays: Mapping[str, np.ndarray], description: Mapping[str, Any], modalities: tuple[Modality, ...]
    ) -> Self:
        """Rebuild the missingness of rows with these modalities from what `state` returned."""
        found = {key.removeprefix(PREFIX): np.array(array) for key, array in arrays.items() if key.startswith(PREFIX)}
        cells = {m.name: found[key] for m in modalities if (key := f"units.{m.name}") in found}
        units = Units(modalities, found["owner"], cells)
        rules = tuple(map(StructuralRule.from_description, description["rules"]))
        shared, *tensors = (torch.from_numpy(found[name]) for name in ("shared", "patterns", "classes", "chances"))
        return cls(units, rules, Predictors.from_description(description, modalities, shared, rules), *tensors)


def frequent_patterns(absent: Flags) -> tuple[Flags, Ints]:
    """Return the patterns (C, U) of at least `RARE` rows, most frequent first, and the pattern of each row (N,).

    Rows of other patterns have number C; if they are fewer than `RARE`, they have none, −1, unless all rows are such.
    """
    packed = np.packbits(absent, axis=1)
    texts = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}")[:, 0]
    _, first, inverse, counts = np.unique(texts, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CLASSES]
    order = order[counts[order] >= RARE]
    number = np.full(len(counts), len(order))
    number[order] = np.arange(len(order))
    members = number[inverse]
    if len(order) and (members == len(order)).sum() < RARE:
        members[members == len(order)] = -1
    return absent[first[order]], members


def rare_chances(x: Tensor, absent: Flags, applicable: Flags, penalty: Tensor) -> Tensor:
    """Fit the units that rows (n, U) of rare patterns lack, given predictors x (n, F) and the units before each one."""
    n, U, F = len(x), absent.shape[1], x.shape[1]
    if n < RARE:
        return torch.full((1 + F, U), NEVER - 1, dtype=torch.float64) * (torch.arange(1 + F) == 0).double()[:, None]
    earlier = U if U <= CHAINED else 0
    step = 1 if U > SLOPED else -(-n * (F + earlier) * U // WORK)
    rows = slice(None, None, max(1, step))
    y, used = torch.from_numpy(absent[rows]), torch.from_numpy(applicable[rows])
    slopes = torch.cat([torch.ones(F, U), torch.ones(earlier, U).triu(1)]).bool() & (U <= SLOPED)
    inputs = torch.cat([x[rows], y[:, :earlier].double()], 1)
    return bernoulli(inputs, y, used, slopes, torch.cat([penalty, torch.full((earlier,), float(U)).double()]))
