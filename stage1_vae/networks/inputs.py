"""Values as encoders and judges read them: classes one-hot, counts as logarithms. No module here has parameters.

The one-hot of K classes is times √K: its mean square is 1, like that of standardised values, whatever their number.
Missing cells of a partial modality come as NaN; they are read as 0, and beside the values stands which are there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from postprior.stage1_vae.modalities import COUNTS, Modality


def input_layer(modality: Modality) -> Values | Table:
    """The module (B, *shape) → (B, *module.shape) that prepares the values of a modality."""
    return Table(modality) if modality.columns else Values(modality)


def observed_cells(x: Tensor) -> Tensor:
    """Which cells are no NaN, as 0 and 1 of the type of x."""
    return (~x.isnan()).to(x.dtype)


class Values(nn.Module):
    """Values (B, C, *space), all of one likelihood, as (B, K·C, *space): K channels for the K classes, one without.

    Tokens have no channels, hence (B, tokens) → (B, K, tokens). A count x gives log(1 + x). A value that is no class,
    as may stand where none was observed, gives zeros. A partial modality has C further channels, 1 where a cell is
    there.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.counts, self.classes = modality.likelihood in COUNTS, modality.classes
        self.partial = modality.partial
        channels, *self.space = (1, *modality.shape) if modality.kind == "sequence" else modality.shape
        # Of the values, and of which are there: told below, as a batch may have no row to count them by.
        self.channels = (channels * (modality.classes or 1), channels * self.partial)
        self.shape = (sum(self.channels), *self.space)

    @property
    def trivial(self) -> bool:
        """Whether values are given as they are."""
        return not self.counts and self.classes is None and not self.partial

    def forward(self, x: Tensor) -> Tensor:
        """(B, *modality.shape) → (B, *shape)."""
        parts = [observed_cells(x)] if self.partial else []
        if self.counts:
            x = x.clamp_min(0).log1p()
        if self.classes is not None:
            levels = torch.arange(self.classes, device=x.device).view(-1, *[1] * (x.dim() - 1))
            x = (x.unsqueeze(1) == levels).to(x.dtype) * self.classes**0.5  # (B, K, *modality.shape)
        if not parts:
            return x.reshape(len(x), *self.shape)
        parts = [x.nan_to_num(), *parts]
        sized = zip(parts, self.channels, strict=True)
        return torch.cat([part.reshape(len(x), size, *self.space) for part, size in sized], 1)


class Table(nn.Module):
    """Rows (B, J) as (B, Σ_j K_j): plain columns, then log(1 + x) of counts, then the classes of the others.

    A partial table has J further features, 1 where a cell is there.
    """

    trivial = False

    plain: Tensor
    counts: Tensor
    column: Tensor
    level: Tensor
    height: Tensor

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        places = dict(enumerate(modality.columns))
        counts = [place for place, column in places.items() if column.likelihood in COUNTS]
        classes = [(place, k) for place, column in places.items() for k in range(column.classes or 0)]
        plain = [place for place, column in places.items() if place not in counts and column.classes is None]
        for name, numbers in (
            ("plain", plain),
            ("counts", counts),
            ("column", [place for place, _ in classes]),
            ("level", [k for _, k in classes]),
        ):
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.long), persistent=False)
        heights = torch.tensor([(modality.columns[place].classes or 1) ** 0.5 for place, _ in classes])
        self.register_buffer("height", heights, persistent=False)
        self.partial = modality.partial
        self.shape = (len(plain) + len(counts) + len(classes) + self.partial * len(places),)

    def forward(self, x: Tensor) -> Tensor:
        """(B, J) → (B, Σ_j K_j)."""
        counts = x.index_select(1, self.counts).clamp_min(0).log1p()
        classes = (x.index_select(1, self.column) == self.level).to(x.dtype) * self.height
        parts = [x.index_select(1, self.plain), counts, classes]
        if not self.partial:
            return torch.cat(parts, 1)
        return torch.cat([*(part.nan_to_num() for part in parts), observed_cells(x)], 1)
