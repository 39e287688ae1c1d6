"""Fitting of densities to codes."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from postprior.pipelines.artefacts.codes import complete_rows
from postprior.pipelines.artefacts.density import log_likelihoods
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.checks import read_entry
from postprior.pipelines.settings.params import Fitting, Options
from postprior.stage1_vae.distributions import Mixture
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.task import PartialEncoder


class FrozenEncoder:
    """The trained encoder as a density sees it: training inputs by row, and posteriors of inputs.

    `load` gives the autoencoder and its training rows; called when they are first asked for, which few densities do.
    """

    def __init__(self, load: Callable[[], tuple[MultimodalVAE, Dataset]]) -> None:
        self._load = load

    @cached_property
    def trained(self) -> tuple[MultimodalVAE, Dataset]:
        """The autoencoder, its parameters frozen, and its training rows."""
        model, data = self._load()
        return model.requires_grad_(False), data

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """Data of some rows, one tensor (n, *shape) a modality; what one lacks is the mean of those that have it."""
        batch = self.trained[1].batch(rows.numpy())
        for index, (name, values) in enumerate(batch.data.items()):
            observed = batch.observed[:, index]
            if not bool(observed.all()):
                values[~observed] = values[observed].mean(0) if bool(observed.any()) else values.mean(0)
                batch.data[name] = values
        return batch.data

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        """Posteriors of complete inputs, batch shape (n,), differentiable in them.

        Pseudo-inputs may leave the modalities' ranges: they stand for posteriors, not for data, and clamped to the
        ranges they would stop learning at the bounds.
        """
        rows = len(next(iter(inputs.values())))
        complete = Batch(dict(inputs), torch.ones(rows, len(inputs), dtype=torch.bool))
        return self.trained[0].encode(complete, generator_for("cpu", 0))


def fit_density(
    name: str,
    written: Options,
    codes: dict[str, Codes],
    seed: int,
    encoder: FrozenEncoder | None = None,
    log: Callable[..., None] | None = None,
) -> tuple[Density, dict[str, Any]]:
    """The density that an entry asks for, fitted to codes by split, and what is known of the fit.

    There are `train`, and perhaps `validation` and `test`. `encoder` is the one that made the codes of `train`, for
    densities that learn with one; `log` is handed the numbers of each pass.
    """
    fitting, options = read_entry(name, written)
    chosen = {split: fitted_rows(name, fitting, split, table) for split, table in codes.items()}
    tables = {split: as_fitted(fitting, table, chosen[split]) for split, table in codes.items()}
    with progress(f"fit {name}", None) as step:

        def report(row: dict[str, Any]) -> None:
            if log is not None:
                log({key: value for key, value in row.items() if key != "step"}, step=int(row["step"]))
            step(f"held-out log-likelihood {row['validation_log_likelihood']:.2f}")

        try:
            apart = ("independent", {"density": fitting.kind, "options": options})
            kind, given = apart if fitting.independent else (fitting.kind, options)
            density = DENSITIES[kind](**given)
            if density.needs_encoder and encoder is None:
                raise UserError(
                    f"density.{name}: {density.name} learns with the autoencoder's encoder, which codes alone do not "
                    f"bring; run postprior fit {name} in the autoencoder's project, without --codes"
                )
            view = None if encoder is None else PartialEncoder(encoder, chosen["train"])
            density.fit(tables["train"], tables.get("validation"), generator_for("cpu", seed), view, report)
        except ValueError as error:
            told = str(error).removeprefix(f"density {fitting.kind}: ")
            raise UserError(f"density.{name}: {told}") from None
    likelihoods = log_likelihoods(density, codes, seed)
    return density, {"fitting": fitting.model_dump(), "bound": density.bound, "log_likelihood": likelihoods}


def fitted_rows(name: str, fitting: Fitting, split: str, codes: Codes) -> Tensor:
    """The rows of a split that are fitted, or chosen by: (n,) int64."""
    if fitting.rows == "all":
        return torch.arange(len(codes))
    if not len(rows := complete_rows(codes)):
        key = f"density.{name}.rows"
        raise UserError(f"{key}: found no {split} row with every modality, expected some; fit all rows")
    return rows


def as_fitted(fitting: Fitting, codes: Codes, rows: Tensor) -> Codes:
    """Rows (n,) of codes as a density is fitted to them."""
    codes = codes if fitting.rows == "all" else codes.select(rows)
    return codes if fitting.labels else replace(codes, labels=None, label_names=None)
