"""Random draws of classes and mixture components, one per row."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_component(probabilities: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Draw an index for each row n from the distribution probabilities[rows[n]], (K, T) and (n,) → (n,).

    A single search in the K concatenated cumulative distributions avoids a table of shape (n, T).
    """
    cumulative = probabilities.double().cumsum(-1)  # (K, T)
    cumulative = cumulative / cumulative[:, -1:]
    ends = cumulative + torch.arange(len(cumulative), device=cumulative.device).unsqueeze(-1)
    uniform = torch.rand(len(rows), generator=generator, dtype=torch.float64, device=cumulative.device)
    place = torch.searchsorted(ends.flatten(), rows + uniform, right=True)
    last = probabilities.shape[-1] - 1
    return (place - rows * (last + 1)).clamp_max(last)  # rows + uniform may round up to the next row


def draw_class_and_component(
    joint: Tensor, classes: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a class and a component for each row from log-probabilities (n, K, T), within `classes` (n,) if given."""
    K, T = joint.shape[1:]
    if classes is not None:
        others = torch.arange(K, device=joint.device) != classes.unsqueeze(-1)
        joint = joint.masked_fill(others.unsqueeze(-1), -torch.inf)
    place = torch.multinomial(joint.flatten(1).softmax(-1), 1, generator=generator).squeeze(-1)
    return place // T, place % T
