"""Fit densities to codes."""

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
from postprior.pipelines.texts import tell
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.distributions import Mixture
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.task import PartialEncoder

MOST, MOST_HELD_OUT = 1_000_000, 100_000
"""Largest numbers of training rows that a density is fitted to, and of held-out rows that it is selected by."""


class FrozenEncoder:
    """The trained encoder for densities that need it: training inputs by row, and posteriors of inputs.

    `load` returns the autoencoder and its training rows. It is called on first use, since few densities need them.
    """

    def __init__(self, load: Callable[[], tuple[Autoencoder, Dataset]]) -> None:
        self._load = load

    @cached_property
    def trained(self) -> tuple[Autoencoder, Dataset]:
        """The autoencoder, with frozen parameters, and its training rows."""
        model, data = self._load()
        return model.requires_grad_(False), data

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """Return data of the rows, (n, *shape) per modality; missing ones are set to the mean of observed rows."""
        batch = self.trained[1].batch(rows.numpy())
        for index, (name, values) in enumerate(batch.data.items()):
            observed = batch.observed[:, index]
            if not bool(observed.all()):
                values[~observed] = values[observed].mean(0) if bool(observed.any()) else values.mean(0)
                batch.data[name] = values
        return batch.data

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        """Return posteriors of complete inputs, batch shape (n,), differentiable with respect to the inputs.

        Pseudo-inputs may leave the ranges of the modalities: they parametrise posteriors and are not data. If they were
        clamped, they would receive no gradient beyond the bounds.
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
    """Fit the density of an entry of `density` to codes; return it and a record of the fit.

    Args:
        written: Settings of the entry `name`, as written in params.yaml.
        codes: Codes by split: `train`, and optionally `validation` and `test`.
        encoder: The encoder of the codes of `train`, for densities that need it.
        log: Receives the metrics of each pass.

    Raises:
        UserError: A setting is invalid, the density needs an encoder and there is none, or the density cannot be
            fitted to the codes.
    """
    fitting, options = read_entry(name, written)
    rows = {split: fitted_rows(name, fitting, split, table, seed) for split, table in codes.items()}
    tables = {split: as_fitted(fitting, table, rows[split]) for split, table in codes.items()}
    try:
        kind, arguments = fitting.kind, options
        if fitting.independent:
            kind, arguments = "independent", {"density": fitting.kind, "options": options}
        density = DENSITIES[kind](**arguments)
        if density.needs_encoder and encoder is None:
            raise UserError(
                f"density.{name}: {density.name} needs the encoder of the autoencoder, which codes do not contain; "
                f"run postprior fit {name} in the project of the autoencoder, without --codes"
            )
        view = None if encoder is None else PartialEncoder(encoder, rows["train"])
        with progress(f"fit {name}", density.checks + 1) as step:

            def report(row: dict[str, Any]) -> None:
                if log is not None:
                    log({key: value for key, value in row.items() if key != "step"}, step=int(row["step"]))
                step(f"held-out log-likelihood {row['validation_log_likelihood']:.2f}")

            density.fit(tables["train"], tables.get("validation"), generator_for("cpu", seed), view, report)
            tell_about_labels(name, density)
            likelihoods = log_likelihoods(density, codes, seed)
            step("log-likelihood of all splits")
    except ValueError as error:
        message = str(error).removeprefix(f"density {fitting.kind}: ")
        raise UserError(f"density.{name}: {message}") from None
    return density, {"fitting": fitting.model_dump(), "bound": density.bound, "log_likelihood": likelihoods}


def tell_about_labels(name: str, density: Density) -> None:
    """Tell what a density with labels made of training rows that have none."""
    if inferred := density.rows.get("inferred"):
        used = density.rows["used"]
        tell(f"fit {name}: {inferred} of {used} training rows have no label; EM infers their labels", err=True)
    if unlabelled := density.rows.get("unlabelled"):
        remedy = f"density.{name}.labels: false fits one density to all rows"
        tell(f"fit {name}: {unlabelled} training rows have no label and are left out; {remedy}", err=True)


def fitted_rows(name: str, fitting: Fitting, split: str, codes: Codes, seed: int) -> Tensor:
    """Return the rows of a split that the density is fitted to or selected by, (n,) int64: a random subset of many."""
    rows = torch.arange(len(codes)) if fitting.rows == "all" else complete_rows(codes)
    if not len(rows):
        key = f"density.{name}.rows"
        raise UserError(f"{key}: found no complete {split} row, expected at least one; set it to all")
    most = MOST if split == "train" else MOST_HELD_OUT
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=generator_for("cpu", seed, 4))[:most].sort().values]


def as_fitted(fitting: Fitting, codes: Codes, rows: Tensor) -> Codes:
    """Return codes of the fitted rows (n,), without labels if the density is fitted without labels."""
    codes = codes if len(rows) == len(codes) else codes.select(rows)
    return codes if fitting.labels else replace(codes, labels=None, label_names=None)
