"""One separately fitted density per block, for comparison with a joint density."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.categorical import draw_class_and_component
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.layouts import known_blocks, split_blocks
from postprior.stage2_latent.nested import gather, rebuild
from postprior.stage2_latent.options import choice
from postprior.stage2_latent.task import PartialEncoder, Task


class Independent(Density):
    """p(z, w₁, …, w_M | y) = p(z | y) Π_m p(w_m | y): shared and private codes as independent given the label.

    Each block has its own density, fitted to the rows in which the block is observed. Draws of the blocks are
    independent given the label, or fully independent without labels. This removes the dependence of the private codes
    on the shared code; the difference to a joint fit measures the effect of that dependence.

    Args:
        density: name of the density of each block.
        options: options of that density.
    """

    name = "independent"
    whitens = False

    parts: dict[str, Density]

    def __init__(self, *, density: str = "gmm", options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        names = sorted(set(DENSITIES) - {self.name})
        self.family = DENSITIES[choice("density", density, names)]
        if options is not None and not isinstance(options, Mapping):
            raise ValueError(
                f"option options: found {options!r}, expected a mapping from option names of {density} to values"
            )
        self.part_options = dict(options or {})
        self._take_capabilities(self.family(**self.part_options))

    def _fit(self, task: Task) -> None:
        tables = task.train.table(), task.validation.table()
        self.parts, start = {}, 0
        for place, block in enumerate(self.layout):
            rows = task.train.rows[tables[0].observed[:, place]]
            columns = slice(start, start + block.size)
            encoder = None if task.encoder is None else PartialEncoder(task.encoder, rows, columns)
            train, validation = (table.only(block.name) for table in tables)
            part = self.family(**self.part_options)
            self.parts[block.name] = part.fit(train, validation, task.generator, encoder)
            start += block.size
        self._take_capabilities(*self.parts.values())
        if self.exact_log_prob or self.bound:
            self._record_scores(task)

    def _take_capabilities(self, *parts: Density) -> None:
        """Take the capabilities of the densities of the blocks, whose scores may differ in kind."""
        part = parts[0]
        self.exact_log_prob = all(each.exact_log_prob for each in parts)
        self.bound = not self.exact_log_prob and all(each.exact_log_prob or each.bound for each in parts)
        self.labelled, self.needs_encoder = part.labelled, part.needs_encoder
        self.stores_training_codes, self.proposals = part.stores_training_codes, part.proposals
        self.conditional = self.marginal = self.exact_log_prob

    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        return self._scores(x, torch.ones_like(x[0], dtype=torch.bool), index)

    def _scores(self, z: Tensor, known: Tensor, index: int) -> Tensor:
        """Return log p of the known blocks given the class, shape (n,)."""
        labels = self._labels(torch.full_like(z[:, 0], index, dtype=torch.int64))
        total = torch.zeros_like(z[:, 0])
        for name, values in split_blocks(self.layout, z, known_blocks(self.layout, known)).items():
            total = total + self.parts[name].log_prob(values.flatten(1), labels)
        return total

    def _sample(self, classes: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        labels = self._labels(classes)
        drawn = [part.sample(len(classes), generator, labels, temperature) for part in self.parts.values()]
        return torch.cat([codes.loc[:, 0] for codes in drawn], dim=1)

    def _marginal(self, z: Tensor, known: Tensor, classes: Tensor | None) -> Tensor:
        scores = torch.stack([self._scores(z, known, index) for index in range(len(self.classes))], -1)
        if classes is None:
            return (scores + self.classes.probabilities.log()).logsumexp(-1)
        return scores.gather(1, classes.unsqueeze(-1)).squeeze(-1)

    def _condition(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        scores = torch.stack([self._scores(z, known, index) for index in range(len(self.classes))], -1)
        joint = (scores + self.classes.probabilities.log()).unsqueeze(-1)  # (n, K, 1)
        chosen, _ = draw_class_and_component(joint, classes, generator)
        return self._sample(chosen, generator, 1.0), chosen

    def _labels(self, classes: Tensor) -> Tensor | None:
        return self.classes.labels[classes] if self.classes.labelled else None

    def _tensors(self) -> dict[str, Tensor]:
        return gather(self.parts)[0]

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        parts = rebuild(tensors, learned["parts"])  # a file orders them by name, not by block
        self.parts = {block.name: parts[block.name] for block in self.layout}
        self._take_capabilities(*self.parts.values())

    def _learned(self) -> dict[str, Any]:
        return {"parts": gather(self.parts)[1]}
