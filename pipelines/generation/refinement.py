"""Train the refiner: the density of images and volumes given what the decoders of a trained autoencoder return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import enumerated
from postprior.stage1_vae import training
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.phases import Loss, Phase, Trainable
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.refiner import Examples, Refiner

CALIBRATED = 1024
"""Largest number of training rows that set the scales of residuals and codes."""
LIKELIHOODS = ("normal", "laplace", "bernoulli")
"""Likelihoods of values whose mean is a value: classes and counts are not refined."""


def is_refinable(modality: Modality) -> bool:
    """Return whether a modality has neighbouring values of which the mean of the decoder loses the detail."""
    return modality.kind in ("image", "volume") and modality.likelihood in LIKELIHOODS


@dataclass(frozen=True)
class LabelledBatch(Batch):
    """A batch with the label of each row, (B,) int64, −1 where there is none."""

    labels: Tensor | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> LabelledBatch:
        moved = super().to(device, dtype)
        labels = None if self.labels is None else self.labels.to(device)
        return LabelledBatch(**{each.name: getattr(moved, each.name) for each in fields(Batch)}, labels=labels)


@dataclass(frozen=True)
class LabelledRows:
    """The rows of a dataset in batches that have their labels."""

    data: Dataset

    def __len__(self) -> int:
        return len(self.data)

    @property
    def observed(self) -> Any:
        """(N, M) bool, the observed modalities of each row."""
        return self.data.observed

    def batch(self, rows: Any) -> LabelledBatch:
        """Return the batch of the rows at the given indices."""
        batch = self.data.batch(rows)
        known = None if self.data.labels is None else torch.from_numpy(np.asarray(self.data.labels[rows], np.int64))
        return LabelledBatch(**{each.name: getattr(batch, each.name) for each in fields(Batch)}, labels=known)


class Refinement(Trainable):
    """What `training.train` trains: a refiner, on posterior draws of the rows, decoded by a frozen autoencoder."""

    def __init__(self, refiner: Refiner, model: Autoencoder) -> None:
        super().__init__()
        self.refiner, self.modalities = refiner, model.modalities
        self.networks: dict[str, str] = {}
        self._frozen = (model.eval().requires_grad_(False),)  # not a part of the state

    def phases(self) -> list[Phase]:
        """Return the only phase of training."""
        return [Phase("refine", list(self.refiner.parameters()), self.objective)]

    def objective(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        """Return the loss of a batch: per row, the mean over its observed images and volumes."""
        total = torch.zeros(len(batch), device=batch.observed.device)
        for name, loss in self.refiner.loss(self.examples(batch, generator), generator).items():
            total[self._rows(batch, name)] += loss
        counts = torch.stack([self._rows(batch, name) for name in self.refiner.shapes]).sum(0)
        return Loss(total / counts.clamp_min(1), {})

    @torch.no_grad()
    def examples(self, batch: Batch, generator: torch.Generator) -> dict[str, Examples]:
        """Return the observed values of a batch and the means of their decoders, given one posterior draw per row."""
        model = self._frozen[0].to(batch.observed.device)
        latents = posterior_latents(model, batch, generator)
        labels = getattr(batch, "labels", None)
        known = torch.full_like(batch.observed[:, 0], -1, dtype=torch.int64) if labels is None else labels
        examples = {}
        for m in self.modalities:
            rows = self._rows(batch, m.name) if m.name in self.refiner.shapes else None
            if rows is not None and bool(rows.any()):
                cells = batch.cells.get(m.name)
                examples[m.name] = Examples(
                    batch.data[m.name][rows],
                    model.decode_one(m, latents[rows]).mean,
                    latents[rows],
                    known[rows],
                    None if cells is None else cells[rows],
                )
        return examples

    def _rows(self, batch: Batch, name: str) -> Tensor:
        """Return which rows of a batch have a modality, (B,) bool."""
        return batch.observed[:, [m.name for m in self.modalities].index(name)]


def posterior_latents(model: Autoencoder, batch: Batch, generator: torch.Generator) -> Tensor:
    """Draw what the decoders read from the posterior of each row: (B, F)."""
    codes, states = model.candidates(batch, 1, generator)
    return model.descend(codes[:, 0], generator) if states is None else states[:, 0]


def build_refiner(model: Autoencoder, data: Dataset, options: Mapping[str, Any], seed: int) -> Refiner:
    """Build the untrained refiner of a model, with the scales of its residuals on training rows.

    Raises:
        UserError: no modality is an image or a volume, or an option is invalid.
    """
    shapes = {m.name: m.shape for m in model.modalities if is_refinable(m)}
    if not shapes:
        found = enumerated(sorted({f"{m.kind} ({m.likelihood})" for m in model.modalities}))
        expected = f"expected an image or a volume with likelihood {' or '.join(LIKELIHOODS)}"
        raise UserError(f"refine: found modalities of kind {found}, {expected}; set refine to null")
    generator = generator_for("cpu", seed, 0)
    rows = torch.randperm(len(data), generator=generator)[:CALIBRATED].sort().values.numpy()
    batch = LabelledRows(data).batch(rows)
    with torch.no_grad():
        size = posterior_latents(model, data.batch(rows[:1]), generator_for("cpu", seed)).shape[-1]
    labels = 0 if data.labels is None else 1 + int(np.max(data.labels, initial=-1))
    try:
        refiner = Refiner(shapes, size, max(labels, len(data.label_names or ())), seed=seed, **options)
    except ValueError as error:
        raise UserError(f"refine: {error}") from None
    refiner.standardise(Refinement(refiner, model).examples(batch, generator))
    return refiner


def refiner_epochs(
    refiner: Refiner,
    model: Autoencoder,
    train: Dataset,
    validation: Dataset | None,
    settings: Mapping[str, Any],
    seed: int,
    resume: training.Snapshot | None = None,
) -> Iterator[training.Epoch]:
    """Train a refiner in place and yield after every epoch; `training.train` says how.

    It ends with the weights of the epoch whose held-out loss is lowest, and on the CPU.

    Raises:
        UserError: the loss or a gradient is not finite.
    """
    held_out = None if validation is None else LabelledRows(validation)
    how = training.Settings(**settings, seed=seed, hide_cells=0.0)
    try:
        yield from training.train(Refinement(refiner, model), LabelledRows(train), how, held_out, resume)
    except FloatingPointError as error:
        raise UserError(str(error).replace("train.learning_rate", "refine.learning_rate")) from None
    for module in (refiner, model):
        module.to("cpu")
