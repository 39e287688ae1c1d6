"""Fit the density that replaces the prior of an autoencoder, together with the labels and holes of its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from postprior.pipelines.artefacts.density import save_density
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.fitting import FrozenEncoder, fit_density
from postprior.pipelines.generation.missingness.learning import learned_missingness
from postprior.pipelines.generation.missingness.model import Missingness
from postprior.pipelines.generation.relabelling.learning import learned_relabelling
from postprior.pipelines.generation.relabelling.model import Relabelling
from postprior.pipelines.settings.params import Params
from postprior.pipelines.texts import tell
from postprior.pipelines.threads import suited_to
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density


@dataclass(frozen=True)
class FittedPrior:
    """A density fitted to the codes of training rows, what its samples lack, their labels, and the fit's record."""

    density: Density
    missingness: Missingness | None  # None if training rows lack nothing
    relabelling: Relabelling | None  # None if samples have the labels of the density
    facts: dict[str, Any]

    @classmethod
    def fit(
        cls,
        name: str,
        params: Params,
        codes: dict[str, Codes],
        train: Dataset,
        encoder: FrozenEncoder,
        log: Callable[..., None] | None = None,
    ) -> Self:
        """Fit the entry `name` of `density` to the codes of the rows `train`; see `fit_density`."""
        with suited_to(train.modalities):
            density, facts = fit_density(name, params.density[name], codes, params.seed, encoder, log)
            missingness = learned_missingness(density, train, codes["train"], params.seed, encoder)
            relabelling = learned_relabelling(density, train, params.seed, encoder, missingness)
        if relabelling is not None:
            tell(f"fit {name}: {relabelling.sentence}", err=True)
        if missingness is not None:
            tell(*(f"fit {name}: {line}; samples follow this" for line in missingness.sentences(train)), err=True)
        return cls(density, missingness, relabelling, facts)

    def save(self, folder: Path, origins: Mapping[str, str]) -> None:
        """Publish the density; `origins` are the hashes of the codes and of their autoencoder."""
        arrays: dict[str, np.ndarray] = {}
        entries: dict[str, Any] = {}
        for name, part in (("missingness", self.missingness), ("relabelling", self.relabelling)):
            if part is not None:
                own, entries[name] = part.state()
                arrays |= own
        save_density(folder, self.density, {**self.facts, **entries, **origins}, arrays=arrays)
