"""Read the sheets of samples and the map of codes that the page shows from artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.pictures import Sheet, laid_out, sheet, sheet_of
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.params import BASELINE_ROWS, Params
from postprior.pipelines.storage import load_artefact
from postprior.stage1_vae.modalities import Modality

if TYPE_CHECKING:
    from postprior.pipelines.metrics.latent.code_map import CodeMap

PAIRS = 16  # shown pairs of a sample and its nearest training row, at most
ROWS = 4  # shown rows with conditionally generated modalities, at most


@dataclass(frozen=True)
class Pictures:
    """Sheets by row: samples, samples beside their nearest training rows, and conditional generation."""

    samples: Mapping[str, Sheet]
    neighbours: Mapping[str, Sheet]
    conditional: Mapping[str, Sheet]


def pictures(params: Params, project: Project) -> Pictures:
    """Read the sheets of all rows."""
    folders = project.artefacts
    sets = {name: project.synthetic(name) for name in params.densities}
    first = next(iter(sets.values()))
    samples = {name: sheet_of(dataset) for name, dataset in sets.items()}
    arrays = load_artefact(folders.baselines, "reference").arrays
    for row in BASELINE_ROWS:
        data = {m.name: arrays[key] for m in first.modalities if (key := f"gallery.{row}.{m.name}") in arrays}
        labels, mask = (arrays.get(f"{field}.{row}") for field in ("labels", "mask"))
        samples[row] = sheet(first.modalities, data, labels, first.label_names, mask)
    near = {name: neighbours(folders.privacy / name, first.modalities) for name in sets}
    conditional = {name: grid(folders.evaluation / name, first.modalities) for name in sets}
    kinds = (samples, near, conditional)
    return Pictures(*({name: image for name, image in sheets.items() if image} for sheets in kinds))


def neighbours(folder: Path, modalities: Sequence[Modality]) -> Sheet | None:
    """Return samples beside their nearest training rows, nearest pairs first; None if stage `privacy` stored none."""
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
    return laid_out(modalities, pairs, texts, ("Synthetic", "Nearest training row"))


def grid(folder: Path, modalities: Sequence[Modality]) -> Sheet | None:
    """Return rows with modalities generated from the given ones; None if stage `evaluate` stored none."""
    arrays = _arrays(folder, "evaluation")
    if "grid.observed" not in arrays:
        return None
    observed = np.asarray(arrays["grid.observed"][:ROWS], bool)  # (R, M - 1, M)
    values = {}
    for m in modalities:
        if f"grid.{m.name}" in arrays:
            real, generated = arrays[f"grid.real.{m.name}"][:ROWS], arrays[f"grid.{m.name}"][:ROWS]
            values[m.name] = np.concatenate([real[:, None], generated], axis=1).swapaxes(0, 1)  # (M, R, *shape)
    lines = ["Real", *(f"{given} given" for given in observed[0].sum(1))]
    unmarked = np.zeros_like(observed[:, :1])  # no cell of the real row is framed as given
    texts = [str(row + 1) for row in range(len(observed))]
    return laid_out(modalities, values, texts, lines, np.concatenate([unmarked, observed], axis=1))


def _arrays(folder: Path, kind: str) -> Mapping[str, np.ndarray]:
    """Return the arrays of an artefact, or none if the stage did not run."""
    try:
        return load_artefact(folder, kind).arrays
    except UserError:
        return {}


def code_points(params: Params, project: Project) -> CodeMap | None:
    """Return the map of training, held-out and drawn codes; None with fewer than two rows or dimensions."""
    if not project.artefacts.codes.exists():
        return None
    from postprior.pipelines.artefacts.codes import CompleteCodes, load_codes
    from postprior.pipelines.artefacts.density import load_density
    from postprior.pipelines.generation.generator import drawn_codes
    from postprior.pipelines.generation.request import SampleRequest
    from postprior.pipelines.metrics.latent.code_map import MOST, chosen, code_map

    train, held_out = (CompleteCodes(load_codes(project.artefacts.codes / split)).means for split in ("train", "test"))
    if train.shape[1] < 2 or len(train) < 2:
        return None
    request, folder = SampleRequest(MOST, params.seed), project.artefacts.densities
    drawn = {name: drawn_codes(load_density(folder / name), request).loc[:, 0].numpy() for name in params.densities}
    train, held_out = (means[chosen(len(means), params.seed)] for means in (train, held_out))
    return code_map(train, held_out, drawn, params.compare.map, params.seed)
