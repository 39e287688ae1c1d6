"""What a model is trained on: phases, one after the other, and their losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from postprior.stage1_vae.modalities import Batch


@dataclass(frozen=True)
class Loss:
    """The quantity to minimise, per sample (B,), and its named terms, each (B,)."""

    per_sample: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """One phase of training.

    Args:
        name: what the phase is called in the history.
        parameters: what is trained; the trainer freezes all else meanwhile.
        objective: (batch, generator, kl_weight) → Loss.
        complete: trained on rows that have every modality; the others wait for a later phase.
        scope: `sample`, or `batch` where the objective is a statistic of the whole batch.
        share: part of the settings' epochs that the phase takes.
    """

    name: str
    parameters: list[nn.Parameter]
    objective: Callable[[Batch, torch.Generator, float], Loss]
    complete: bool = False
    scope: str = "sample"
    share: float = 1.0
