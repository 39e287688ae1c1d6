"""Redraw imputed cells of tables in turn, each given the other cells of its row: a pseudo-Gibbs sampler.

Decoders of tables draw each cell of a row independently, given a code of a few dimensions. Where columns determine each
other (a decile and its value, a plan and its rate), a cell that is missing alone is known far better from the rest of
its row. A draw of the decoders is therefore the start of a chain in which every missing cell is drawn anew from

    p(x_j | x_k for k ≠ j, y, μ_j),    μ_j = E[x_j | z = E_q[z | x_k for k ≠ j]],

given all other cells, the label y, if rows have one, and what the autoencoder says of the cell, its decoded location
μ_j. (Rezende et al. 2014, https://arxiv.org/abs/1401.4082, appendix F, draw from the decoder itself; with learned
conditionals, these are chained equations: van Buuren & Groothuis-Oudshoorn 2011,
https://doi.org/10.18637/jss.v045.i03.) The conditionals are forests whose draws are values of training rows (Doove et
al. 2014, https://doi.org/10.1016/j.csda.2013.10.025); half of their trees are extremely randomised, which smooths them
(Geurts et al. 2006, https://doi.org/10.1007/s10994-006-6226-1).

Beside vectors, the principal components of these stand in place of μ_j: they are computed once, not for every cell. The
conditional of a number is then a forest or predictive mean matching (`metrics.imputation.matching`), whichever predicts
training rows better that it did not learn from. Vectors keep the draws of their decoders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import as_data
from postprior.pipelines.generation.posterior import decodes_codes, has_tables
from postprior.pipelines.generation.vector_components import VectorComponents
from postprior.pipelines.metrics.imputation.forest import Forest
from postprior.pipelines.metrics.imputation.matching import Matching
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.networks.inputs import Table, input_layer
from postprior.stage1_vae.randomness import generator_from

WIDEST = 64  # columns of all tables, at most
CELLS = 2**15  # training rows times columns, at most
FEWEST = 50  # training rows that have a column, at least
TREES = 30  # of each ensemble
LEAF, FEATURES = 10, 0.8  # rows per leaf, at least, and the share of the predictors that a split may use
SWEEPS = 5  # rounds over all columns


Cell = tuple[str, int]
"""A column: the name of its table, and its number there."""
Values = Mapping[str, np.ndarray]
"""Rows of tables by name, each (B, J)."""


def can_be_redrawn(model: Autoencoder) -> bool:
    """Return whether a model has tables, alone or beside vectors, and decoders that read the code itself."""
    return has_tables(model.modalities) and decodes_codes(model)


@dataclass(frozen=True, eq=False)
class CellForests:
    """The conditionals of columns of tables, by `Cell`.

    Attributes:
        model: the autoencoder of the rows.
        forests: the conditionals, forests or beside vectors also matching.
        classes: the labels of training rows, (L,); empty if they have none.
        components: those of the vectors beside the tables.
    """

    model: Autoencoder
    forests: Mapping[Cell, Forest | Matching]
    classes: Ints
    components: VectorComponents

    @classmethod
    @torch.no_grad()
    def fit(cls, model: Autoencoder, train: Dataset, labels: Ints | None, seed: int) -> Self:
        """Learn the conditionals of all columns from training rows with labels (N,), −1 for rows without, or None.

        What training rows lack is drawn by the autoencoder. There are no forests if the tables have too many columns.
        """
        columns = [(m.name, j) for m in model.modalities if m.columns for j in range(m.shape[0])]
        classes = np.unique(labels[labels >= 0]) if labels is not None else np.zeros(0, int)
        if len(columns) > WIDEST:
            return cls(model, {}, classes, VectorComponents({}))
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permutation(len(train))[: CELLS // len(columns)])
        train, labels = train.select(rows), None if labels is None else labels[rows]
        whole, forests = _completed(model, train, generator_from(rng)), {}
        tables = {m.name: whole[m.name] for m in model.modalities if m.columns}
        components = VectorComponents.fit([m for m in model.modalities if not m.columns], whole)
        learner, context = cls(model, {}, classes, components), components(whole, len(train))
        for name, j in columns:
            seen = np.flatnonzero(~train.missing(name)[:, j])
            if len(seen) >= FEWEST:
                known = {each: values[seen] for each, values in tables.items()}
                given = None if labels is None else labels[seen]
                forests[name, j] = learner._learned((name, j), known, given, context[seen], rng)
        return replace(learner, forests=forests)

    @property
    def names(self) -> list[tuple[str, str]]:
        """The names of the tables and of their columns that have a conditional."""
        return [(name, _modality(self.model, name).columns[j].name) for name, j in self.forests]

    def only(self, cells: Collection[Cell]) -> Self:
        """Return the conditionals of these columns alone; others keep their first draws."""
        return replace(self, forests={cell: forest for cell, forest in self.forests.items() if cell in cells})

    @torch.no_grad()
    def swept(
        self,
        values: Values,
        free: Mapping[str, NDArray[np.bool_]],
        labels: Ints | None,
        context: Floats,
        rng: np.random.Generator,
    ) -> dict[str, np.ndarray]:
        """Return completed rows with the cells free[m] (B, J) drawn anew.

        If only one cell of a row is drawn, its conditional stays the same, so that one round suffices.

        Args:
            labels: as in `fit`, (B,).
            context: the components of the vectors of the rows, (B, C).
        """
        values = {name: np.array(rows) for name, rows in values.items()}
        places = {cell: rows for cell in self.forests if len(rows := np.flatnonzero(free[cell[0]][:, cell[1]]))}
        if not places:
            return values
        cells = np.stack([free[name][:, j] for name, j in places]).sum(0)
        for turn in range(SWEEPS):
            if turn == 1:
                several = ((cell, rows[cells[rows] > 1]) for cell, rows in places.items())
                places = {cell: rows for cell, rows in several if len(rows)}
            for (name, j), rows in places.items():
                whole = {each: array[rows] for each, array in values.items()}
                given, conditional = None if labels is None else labels[rows], self.forests[name, j]
                predictors = self._indicators if isinstance(conditional, Matching) else self._numbers
                x = predictors((name, j), whole, given, context[rows])
                values[name][rows, j] = conditional.draws(x, rng)[:, 0]
        return values

    def _learned(
        self, cell: Cell, whole: Values, labels: Ints | None, context: Floats, rng: np.random.Generator
    ) -> Forest | Matching:
        """Learn a column from complete training rows (N)."""
        name, j = cell
        table, values, beside = _modality(self.model, name), whole[name][:, j], bool(self.components.modalities)
        forest = _forest(table, values, j, self._numbers(cell, whole, labels, context), rng, beside)
        if not beside or table.columns[j].likelihood == "categorical":
            return forest
        matching = Matching(values.astype(np.float64), self._indicators(cell, whole, labels, context))
        return matching if matching.left_out_error < forest.left_out_error else forest

    def _numbers(self, cell: Cell, whole: Values, labels: Ints | None, context: Floats) -> Floats:
        """Return what predicts a column in complete rows (B), for trees, which read a class by its number.

        That is the other columns, the label, and the components of vectors or the decoded location.
        """
        name, j = cell
        others = [np.delete(values, j, 1) if each == name else values for each, values in whole.items()]
        known = [] if labels is None else [np.where(labels < 0, np.nan, labels)[:, None]]
        location = [_location(self.model, whole, cell)[:, None]] if not self.components.modalities else []
        return np.concatenate([*others, *known, *location, context], 1)

    def _indicators(self, cell: Cell, whole: Values, labels: Ints | None, context: Floats) -> Floats:
        """Return the same predictors for regressions: features as encoders read them, with indicators of classes."""
        parts = []
        for name, values in whole.items():
            layer = input_layer(replace(_modality(self.model, name), partial=False))
            assert isinstance(layer, Table)
            source = torch.cat([layer.plain, layer.counts, layer.column]).numpy()
            x = layer(torch.from_numpy(np.asarray(values, np.float32))).numpy()
            parts.append(x[:, source != cell[1]] if name == cell[0] else x)
        if labels is not None:
            parts.append(labels[:, None] == self.classes)
        return np.concatenate([*parts, context], 1, dtype=np.float64)


def _modality(model: Autoencoder, name: str) -> Modality:
    return next(m for m in model.modalities if m.name == name)


def _completed(model: Autoencoder, rows: Dataset, generator: torch.Generator) -> dict[str, np.ndarray]:
    """Return rows whose missing cells are one draw of the autoencoder."""
    z, whole = model.proposal(rows.batch(slice(None))).rsample((), generator), {}
    for m in model.modalities:
        x = m.to_support(model.decode_one(m, z).rsample((), generator)).numpy()
        whole[m.name] = np.where(rows.missing(m.name), as_data(m, x, rows.conversion), rows.data[m.name])
    return whole


def _location(model: Autoencoder, whole: Values, cell: Cell) -> Floats:
    """Return the decoded location (B,) of a column, encoded without it."""
    name, j = cell
    data = {m.name: torch.from_numpy(np.asarray(whole[m.name], np.float32)) for m in model.modalities}
    cells = torch.ones_like(data[name], dtype=torch.bool)
    cells[:, j] = False
    observed = torch.ones(len(cells), len(data), dtype=torch.bool)
    alone = cells.shape[1] == 1 and len(data) > 1  # without its only column, the table is missing
    observed[:, list(data).index(name)] = not alone
    z = model.proposal(Batch(data, observed, {name: cells})).mean
    location: Floats = model.decode_one(_modality(model, name), z).mean[:, j].numpy()
    return location


def _forest(
    table: Modality, values: np.ndarray, column: int, x: Floats, rng: np.random.Generator, left_out: bool
) -> Forest:
    """Learn a column (N,) from its predictors x (N, P); with `left_out`, its error for rows left out is known."""
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

    def ensemble(trees: Callable[..., object], **settings: bool) -> object:
        seed = int(rng.integers(2**31))
        return trees(TREES, min_samples_leaf=LEAF, max_features=FEATURES, random_state=seed, **settings)

    classes = values[:, None] == np.unique(values) if table.columns[column].likelihood == "categorical" else None
    ensembles = [ensemble(RandomForestRegressor, oob_score=left_out), ensemble(ExtraTreesRegressor)]
    return Forest(values[:, None], x, ensembles, classes)
