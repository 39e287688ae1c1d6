"""Training rows that stay on an accelerator, so that a step copies the numbers of its rows alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.training import TrainingRows

SHARE = 0.25
"""Largest share of the free memory of a device that rows may take."""
PIECE = 4096
"""Rows that are copied at once."""


class StoredRows(TrainingRows, Protocol):
    """Training rows that can be read as they are stored."""

    @property
    def modalities(self) -> Sequence[Modality]:
        """The M modalities, in the order of the columns of `observed`."""

    @property
    def cells(self) -> Mapping[str, Any]:
        """Name → (N, *shape) bool, the observed cells of each modality with missing cells."""

    @property
    def tables(self) -> Mapping[str, Any]:
        """Name → (256,) float32, the numbers that bytes stand for, of each modality that is stored as bytes."""

    def stored(self, name: str, rows: Any) -> Tensor:
        """Return the values (n, *shape) of a modality: uint8 places in its table if it has one, else float32."""


class ResidentRows:
    """All rows of the data on a device, bytes as bytes. A batch has the values of the data, and is on the device."""

    def __init__(self, data: StoredRows, device: torch.device) -> None:
        self.observed = torch.as_tensor(data.observed)  # stays on the host, which knows what rows have

        def copied(read: Callable[[Any], Any]) -> Tensor:
            pieces = torch.arange(len(data)).split(PIECE)
            return torch.cat([torch.as_tensor(read(rows.numpy())).to(device) for rows in pieces])

        self._data = {m.name: copied(partial(data.stored, m.name)) for m in data.modalities}
        self._cells = {name: copied(cells.__getitem__) for name, cells in data.cells.items()}
        self._tables = {name: torch.as_tensor(table).to(device) for name, table in data.tables.items()}
        self._observed = self.observed.to(device)

    def __len__(self) -> int:
        return len(self.observed)

    def batch(self, rows: Any) -> Batch:
        """Return the batch of the rows at the given indices."""
        index = torch.as_tensor(rows)
        complete = bool(self.observed[index].all())
        place = index.to(self._observed.device, non_blocking=True)

        def taken(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: array.index_select(0, place) for name, array in arrays.items()}

        data = taken(self._data)
        for name, table in self._tables.items():
            data[name] = table.index_select(0, data[name].flatten().int()).view(data[name].shape)
        return Batch(data, self._observed.index_select(0, place), taken(self._cells), {}, complete)


def resident(data: StoredRows, device: torch.device) -> TrainingRows:
    """Return the rows on an accelerator if they fit there, else the data as they are, as on a CPU."""
    if device.type != "cuda" or not len(data):
        return data
    values = sum(data.stored(m.name, slice(1)).nbytes for m in data.modalities)
    row = values + sum(cells[:1].nbytes for cells in data.cells.values())
    free, _ = torch.cuda.mem_get_info(device)
    return ResidentRows(data, device) if row * len(data) <= SHARE * free else data
