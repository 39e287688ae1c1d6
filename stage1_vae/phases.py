"""Phases of training and their losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from postprior.stage1_vae.modalities import Batch, Modality


@dataclass(frozen=True)
class Loss:
    """The quantity to minimise, per sample (B,), and its named terms, each (B,)."""

    per_sample: Tensor
    terms: dict[str, Tensor]


Objective = Callable[[Batch, torch.Generator, float], Loss]
"""(batch, generator, kl_weight) → the loss of the batch."""


@dataclass(frozen=True)
class Phase:
    """One phase of training.

    Args:
        name: name of the phase in the history.
        parameters: the parameters to train; the training loop freezes all others during the phase.
        objective: (batch, generator, kl_weight) → Loss.
        complete: whether the phase uses complete rows only.
        scope: `sample`, or `batch` if the objective is a statistic of the whole batch.
        share: fraction of the epochs in the settings that the phase takes.
        static: whether the shapes in the objective are the same for all batches of complete rows of one size.
    """

    name: str
    parameters: list[nn.Parameter]
    objective: Objective
    complete: bool = False
    scope: str = "sample"
    share: float = 1.0
    static: bool = True


class Trainable(nn.Module, ABC):
    """What `training.train` trains: a module with the modalities that it reads, its networks and its phases.

    Attributes:
        modalities: the modalities, in the order of the columns of every mask.
        networks: import paths of user-defined networks by modality, which errors name.
    """

    modalities: tuple[Modality, ...]
    networks: Mapping[str, str]

    @abstractmethod
    def phases(self) -> list[Phase]:
        """Return the phases of training, in order."""
