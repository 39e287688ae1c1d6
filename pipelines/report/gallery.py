"""Samples as pictures: sheets of cells, of which the page cuts what a reader asks for.

A cell is one modality of one line of one sample. A synthetic sample has one line; beside its nearest training row it
has two; a row whose modalities are generated from parts of it has one for every part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from postprior.pipelines.data.pictures import Sheet, _sheet
from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import load_artefact
from postprior.stage1_vae.modalities import Modality

PAIRS = 16  # of samples and training rows
ROWS = 4  # whose modalities are generated from parts


def neighbours(folder: Path, modalities: Sequence[Modality]) -> Sheet | None:
    """Samples beside their nearest training rows, the nearest first, of artefacts/privacy/<density>; None without."""
    arrays = _arrays(folder, "privacy")
    if "distances" not in arrays:
        return None
    order = np.argsort(arrays["distances"], kind="stable")[:PAIRS]
    pairs = {
        m.name: np.stack([arrays[f"{kind}.{m.name}"][order] for kind in ("synthetic", "nearest")])
        for m in modalities
        if f"nearest.{m.name}" in arrays
    }
    texts = [f"{distance:.2f}" for distance in arrays["distances"][order]]
    return _sheet(modalities, pairs, texts, ("Synthetic", "Nearest training row"))


def grid(folder: Path, modalities: Sequence[Modality]) -> Sheet | None:
    """Rows whose modalities are generated from parts of them, of artefacts/evaluation/<density>; None without."""
    arrays = _arrays(folder, "evaluation")
    if "grid.observed" not in arrays:
        return None
    observed = np.asarray(arrays["grid.observed"][:ROWS], bool)  # (R, M - 1, M)
    values = {}
    for m in modalities:
        if f"grid.{m.name}" in arrays:
            real, made = arrays[f"grid.real.{m.name}"][:ROWS], arrays[f"grid.{m.name}"][:ROWS]
            values[m.name] = np.concatenate([real[:, None], made], axis=1).swapaxes(0, 1)  # (M, R, *shape)
    lines = ["Real", *(f"{given} given" for given in observed[0].sum(1))]
    own = np.zeros_like(observed[:, :1])  # nothing of the real row is marked
    texts = [str(row + 1) for row in range(len(observed))]
    return _sheet(modalities, values, texts, lines, np.concatenate([own, observed], axis=1))


def _arrays(folder: Path, kind: str) -> Mapping[str, np.ndarray]:
    """The arrays of an artefact, none where the stage did not run."""
    try:
        return load_artefact(folder, kind).arrays
    except UserError:
        return {}
