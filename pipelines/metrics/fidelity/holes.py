"""How much of each modality rows lack."""

from typing import Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset


def missing_shares(rows: Dataset) -> dict[str, dict[str, float]]:
    """Return by modality the share of the `rows` that lack it, and that of the `values` that the other rows lack.

    Modalities of which nothing is missing are left out.
    """
    shares: dict[str, dict[str, float]] = {}
    for modality, present in zip(rows.modalities, rows.observed.T, strict=True):
        name, values = modality.name, 0.0
        if name in rows.cells and present.any():
            values = 1 - float(np.mean(rows.cells[name][present]))
        if values or not present.all():
            shares[name] = {"rows": 1 - float(np.mean(present)), "values": values}
    return shares


def add_missing_shares(written: dict[str, Any], rows: Dataset) -> None:
    """Add the shares to a row as stored."""
    for name, shares in missing_shares(rows).items():
        written["modalities"].setdefault(name, {})["missing"] = shares
