"""Training rows that stay on an accelerator, so that a step copies the numbers of its rows alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from postprior.stage1_vae.modalities import Batch

if TYPE_CHECKING:
    from postprior.stage1_vae.training import TrainingRows

SHARE = 0.25
"""Largest share of the free memory of a device that rows may take."""
PIECE = 4096
"""Rows that are copied at once."""


class ResidentRows:
    """All rows of the data on a device. A batch has the values that it has in the data, and is on the device."""

    def __init__(self, data: TrainingRows, device: torch.device) -> None:
        self.observed = torch.as_tensor(data.observed)  # stays on the host, which knows what rows have
        pieces = [data.batch(rows.numpy()).to(device) for rows in torch.arange(len(data)).split(PIECE)]
        self._data, self._cells = (
            {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            for parts in ([piece.data for piece in pieces], [piece.cells for piece in pieces])
        )
        self._observed = torch.cat([piece.observed for piece in pieces])

    def __len__(self) -> int:
        return len(self.observed)

    def batch(self, rows: Any) -> Batch:
        """Return the batch of the rows at the given indices."""
        index = torch.as_tensor(rows)
        complete = bool(self.observed[index].all())
        place = index.to(self._observed.device, non_blocking=True)

        def taken(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: array.index_select(0, place) for name, array in arrays.items()}

        return Batch(taken(self._data), self._observed.index_select(0, place), taken(self._cells), {}, complete)


def resident(data: TrainingRows, device: torch.device) -> TrainingRows:
    """Return the rows on an accelerator if they fit there, else the data as they are, as on a CPU."""
    if device.type != "cuda" or not len(data):
        return data
    batch = data.batch(torch.arange(1).numpy())
    row = sum(values.nbytes for values in (*batch.data.values(), *batch.cells.values()))
    free, _ = torch.cuda.mem_get_info(device)
    return ResidentRows(data, device) if row * len(data) <= SHARE * free else data
