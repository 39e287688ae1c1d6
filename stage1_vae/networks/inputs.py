"""Input layers of encoders and evaluators: classes become one-hot, counts and zero-heavy values logarithms.

No module here has parameters.
The one-hot encoding of K classes is multiplied by √K. Its mean square is then 1 for any K, like that of standardised
values. Missing cells of a partial modality are NaN in the input; they are replaced by 0, and a mask of the observed
cells is appended to the values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from postprior.stage1_vae.modalities import COUNTS, LOGARITHMIC, Modality


def input_layer(modality: Modality) -> Values | Table:
    """Return the module (B, *shape) → (B, *module.shape) that prepares the values of a modality."""
    return Table(modality) if modality.columns else Values(modality)


def observed_cells(x: Tensor) -> Tensor:
    """Return the mask of the cells that are not NaN, as 0 and 1 with the type of x."""
    return (~x.isnan()).to(x.dtype)


class Values(nn.Module):
    """Values (B, C, *space) with one likelihood → (B, K·C, *space), with K = 1 if the modality has no classes.

    Sequences have no channels: (B, tokens) → (B, K, tokens). A value x under one of the likelihoods `LOGARITHMIC`
    becomes log(1 + x). A value that is not a class, as can occur in missing entries, becomes zeros. A partial modality
    has C additional channels, 1 where a cell is observed.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.logarithmic, self.classes = modality.likelihood in LOGARITHMIC, modality.classes
        self.partial = modality.partial
        channels, *self.space = (1, *modality.shape) if modality.kind == "sequence" else modality.shape
        # Channels of the values and of the mask. `forward` cannot infer them from a batch without rows.
        self.channels = (channels * (modality.classes or 1), channels * self.partial)
        self.shape = (sum(self.channels), *self.space)

    @property
    def trivial(self) -> bool:
        """Whether the layer returns the values unchanged."""
        return not self.logarithmic and self.classes is None and not self.partial

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, *modality.shape) to (B, *shape)."""
        mask = observed_cells(x) if self.partial else None
        if self.logarithmic:
            x = x.clamp_min(0).log1p()
        if self.classes is not None:
            levels = torch.arange(self.classes, device=x.device).view(-1, *[1] * (x.dim() - 1))
            x = (x.unsqueeze(1) == levels).to(x.dtype) * self.classes**0.5  # (B, K, *modality.shape)
        if mask is None:
            return x.reshape(len(x), *self.shape)
        parts = zip((x.nan_to_num(), mask), self.channels, strict=True)
        return torch.cat([part.reshape(len(x), size, *self.space) for part, size in parts], 1)


class Table(nn.Module):
    """Rows (B, J) → (B, Σ_j K_j): plain columns, then log(1 + x) of counts, then the one-hot classes.

    A partial table has J additional features, 1 where a cell is observed.
    """

    trivial = False

    plain: Tensor
    counts: Tensor
    column: Tensor
    level: Tensor
    height: Tensor

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        columns = dict(enumerate(modality.columns))
        counts = [index for index, column in columns.items() if column.likelihood in COUNTS]
        classes = [(index, k) for index, column in columns.items() for k in range(column.classes or 0)]
        plain = [index for index, column in columns.items() if index not in counts and column.classes is None]
        for name, numbers in (
            ("plain", plain),
            ("counts", counts),
            ("column", [index for index, _ in classes]),
            ("level", [k for _, k in classes]),
        ):
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.long), persistent=False)
        heights = torch.tensor([(modality.columns[index].classes or 1) ** 0.5 for index, _ in classes])
        self.register_buffer("height", heights, persistent=False)
        self.partial = modality.partial
        self.shape = (len(plain) + len(counts) + len(classes) + self.partial * len(columns),)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, J) to (B, Σ_j K_j)."""
        counts = x.index_select(1, self.counts).clamp_min(0).log1p()
        classes = (x.index_select(1, self.column) == self.level).to(x.dtype) * self.height
        parts = [x.index_select(1, self.plain), counts, classes]
        if not self.partial:
            return torch.cat(parts, 1)
        return torch.cat([*(part.nan_to_num() for part in parts), observed_cells(x)], 1)
