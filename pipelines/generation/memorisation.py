"""Check whether a density reproduces the codes that it was fitted to."""

from collections.abc import Mapping
from typing import Any

from postprior.pipelines.generation.fitting import as_fitted, fitted_rows
from postprior.pipelines.metrics.privacy.proximity import memorisation
from postprior.pipelines.settings.params import Fitting
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density


def check_memorisation(
    name: str, density: Density, fit: Mapping[str, Any], train: Codes, held_out: Codes, seed: int
) -> dict[str, Any]:
    """Run the memorisation check (`metrics.privacy.proximity`) on codes prepared as for the fit of the density.

    Args:
        fit: The record of the fit of `name`.
        train: The codes that the density was fitted to.
        held_out: Codes of other rows of the same distribution.
    """
    fitting = Fitting(**fit["fitting"])
    sides = {"train": train, "held-out": held_out}
    rows = {side: fitted_rows(name, fitting, side, codes, seed) for side, codes in sides.items()}
    tables = {side: as_fitted(fitting, codes, rows[side]) for side, codes in sides.items()}
    return memorisation(density, tables["train"], tables["held-out"], generator_for("cpu", seed, 2))
