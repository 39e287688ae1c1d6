"""The table of latent codes that densities are fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import FAMILIES, Block, Mixture, Normal
from postprior.stage2_latent.categorical import draw_component
from postprior.stage2_latent.layouts import Layout, coordinates

__all__ = ["Block", "Codes"]

EMPIRICAL = "empirical"
FLOATS = 2**22
"""Maximum number of floats of the rows of a table in a temporary tensor; more rows are taken in chunks."""
COLUMNS = ("loc", "scale", "weights", "observed", "labels", "whole")
"""Fields that hold a tensor with N rows, or None."""


@dataclass(frozen=True, eq=False)
class Codes:
    """Posteriors of N rows over one code vector of D dimensions, the concatenation of the blocks of the layout.

    The posterior of row n is the mixture Σ_c w_nc p(· | loc_nc, scale_nc) of C diagonal components of one family. One
    component is drawn for all blocks together. If the family is `empirical`, row n has C points instead, and a draw is
    one of them, chosen with the probabilities `weights`.

    Args:
        layout: blocks of the code vector, in order.
        family: `normal`, `laplace` or `empirical`.
        loc: (N, C, D).
        scale: (N, C, D), the scale parameter of the family, positive; None for `empirical`.
        weights: (N, C) probabilities.
        observed: (N, blocks) bool. A block that is not observed has no posterior: its entries in loc and scale are
            never read, and its draws are NaN.
        prior: prior of the autoencoder over the code vector, an unbatched mixture.
        labels: (N,) int64, indices into `label_names` if these are given; −1 for rows without a label.
        ids: N names of rows.
        label_names: names of the labels.
        whole: (N,) bool, whether a row was encoded from all modalities; None if unknown.

    Raises:
        ValueError: if shapes differ, numbers are not finite or labels are out of range.

    Example:
        >>> codes = Codes.empirical((Block("z", (2,)),), torch.zeros(3, 2))
        >>> codes.draw(torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
    """

    layout: Layout
    family: str
    loc: Tensor
    scale: Tensor | None
    weights: Tensor
    observed: Tensor
    prior: Mixture | None = None
    labels: Tensor | None = None
    ids: Sequence[str] | None = None
    label_names: tuple[str, ...] | None = None
    whole: Tensor | None = None

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_values()

    @classmethod
    def empirical(
        cls,
        layout: Layout,
        z: Tensor,
        labels: Tensor | None = None,
        label_names: tuple[str, ...] | None = None,
    ) -> Self:
        """Return codes that are known points z (N, D) instead of posteriors."""
        weights = torch.ones(len(z), 1, dtype=z.dtype, device=z.device)
        observed = torch.ones(len(z), len(layout), dtype=torch.bool, device=z.device)
        loc = z.unsqueeze(1)
        return cls(layout, EMPIRICAL, loc, None, weights, observed, labels=labels, label_names=label_names)

    def __len__(self) -> int:
        return len(self.loc)

    @property
    def dimensions(self) -> int:
        """D, the number of dimensions of the code vector."""
        return self.loc.shape[-1]

    @property
    def complete(self) -> Tensor:
        """Whether all blocks of a row have a posterior, (N,) bool."""
        return self.observed.all(-1)

    @property
    def mean(self) -> Tensor:
        """Posterior means, (N, D)."""
        return self._blank(self.posterior().mean)

    def posterior(self, rows: Tensor | slice = slice(None)) -> Mixture:
        """Return the posteriors of the given rows, batch shape (n,), by default of all.

        Empirical codes give normals of scale 0, which have no score.
        """
        loc = self.loc[rows]
        scale = torch.zeros_like(loc) if self.scale is None else self.scale[rows]
        return Mixture(self.weights[rows], FAMILIES.get(self.family, Normal)(loc, scale))

    def draw(self, generator: torch.Generator, rows: Tensor | None = None) -> Tensor:
        """Return one fresh posterior draw per row, (n, D); int64 `rows` may repeat, None means all rows."""
        rows = torch.arange(len(self), device=self.loc.device) if rows is None else rows
        component = draw_component(self.weights[rows], torch.arange(len(rows), device=rows.device), generator)
        z = self.loc[rows, component]
        if self.scale is not None:
            z = FAMILIES[self.family](z, self.scale[rows, component]).rsample((), generator)
        return self._blank(z, rows)

    def select(self, rows: Tensor) -> Codes:
        """Return the codes of a subset of rows, given by int64 indices or a bool mask."""
        index = rows.nonzero().squeeze(-1) if rows.dtype == torch.bool else rows
        columns = {name: value for name in COLUMNS if (value := getattr(self, name)) is not None}
        ids = None if self.ids is None else [self.ids[row] for row in index.tolist()]
        return replace(self, ids=ids, **{name: value[index] for name, value in columns.items()})

    def only(self, name: str) -> Codes:
        """Return the codes of one block only, for the rows in which it is observed."""
        place = [block.name for block in self.layout].index(name)
        rows = self.select(self.observed[:, place])
        start = sum(block.size for block in self.layout[:place])
        columns = slice(start, start + self.layout[place].size)
        return replace(
            rows,
            layout=(self.layout[place],),
            loc=rows.loc[..., columns],
            scale=None if rows.scale is None else rows.scale[..., columns],
            observed=rows.observed[:, place : place + 1],
            prior=None if self.prior is None else self.prior.marginal(columns),
        )

    def known(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Return the mask of the coordinates that have a posterior, (n, D) bool, for the given rows, by default all."""
        return coordinates(self.layout, self.observed[rows])

    def chunks(self) -> Iterator[slice]:
        """Yield slices that cover all rows, each with at most `FLOATS` coordinates of components, or one row."""
        step = max(1, FLOATS // self.loc[0].numel())
        yield from (slice(start, start + step) for start in range(0, len(self), step))

    def _blank(self, z: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        if bool(self.observed.all()):
            return z
        return z.masked_fill(~self.known(rows), torch.nan)

    def _check_shapes(self) -> None:
        if self.loc.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"codes: loc has type {self.loc.dtype}, expected torch.float32 or torch.float64")
        if self.family not in (*FAMILIES, EMPIRICAL):
            families = ", ".join((*FAMILIES, EMPIRICAL))
            raise ValueError(f"codes: family is {self.family!r}, expected one of {families}")
        if self.loc.ndim != 3 or 0 in self.loc.shape:
            raise ValueError(f"codes: loc has shape {tuple(self.loc.shape)}, expected (N, C, D), none of them 0")
        N, C, D = self.loc.shape
        if sum(block.size for block in self.layout) != D:
            blocks = ", ".join(f"{block.name} {block.shape}" for block in self.layout)
            raise ValueError(f"codes: loc has {D} dimensions, expected the sum of the sizes of the blocks ({blocks})")
        if (self.scale is None) != (self.family == EMPIRICAL):
            raise ValueError(f"codes: scale must be given for posteriors and left out for {EMPIRICAL} draws")
        expected = {"scale": (N, C, D), "weights": (N, C), "observed": (N, len(self.layout))}
        expected |= {"labels": (N,), "whole": (N,)}
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"codes: {name} has shape {tuple(value.shape)}, expected {shape} to match loc")
        if self.ids is not None and len(self.ids) != N:
            raise ValueError(f"codes: found {len(self.ids)} ids, expected {N}, one per row")

    def _check_values(self) -> None:
        for rows in self.chunks():
            known = self.known(rows).unsqueeze(1)
            if not bool((self.loc[rows].isfinite() | ~known).all()):
                raise ValueError("codes: loc holds NaN or infinity, expected finite numbers: encode the data again")
            scale = None if self.scale is None else self.scale[rows]
            if scale is not None and not bool((((scale > 0) & scale.isfinite()) | ~known).all()):
                raise ValueError("codes: scale holds numbers that are not positive and finite: encode the data again")
            weights = self.weights[rows]
            if not bool((weights >= 0).all() and ((weights.sum(-1) - 1).abs() < 1e-3).all()):
                raise ValueError("codes: weights must be probabilities that sum to 1 over the components of each row")
        if self.labels is None:
            return
        if self.labels.dtype != torch.int64:
            raise ValueError(f"codes: labels have type {self.labels.dtype}, expected torch.int64")
        low, high = int(self.labels.min()), int(self.labels.max())
        highest = high if self.label_names is None else len(self.label_names) - 1
        if low < -1 or high > highest:
            expected = f"expected 0 to {highest}, or −1 for rows without a label"
            raise ValueError(f"codes: labels run from {low} to {high}, {expected}")
