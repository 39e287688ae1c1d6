"""Whether a density repeats the codes that it was fitted to."""

from collections.abc import Mapping
from typing import Any

from postprior.pipelines.generation.fitting import as_fitted, fitted_rows
from postprior.pipelines.metrics.privacy.proximity import memorisation
from postprior.pipelines.settings.params import Fitting
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density


def check_memorisation(
    name: str, density: Density, known: Mapping[str, Any], train: Codes, held_out: Codes, seed: int
) -> dict[str, Any]:
    """The memorisation check (`metrics.privacy.proximity`), of codes as the density was fitted to them.

    `known` is what is known of the fit of `name`; `held_out` are codes of other rows, of the same distribution.
    """
    fitting = Fitting(**known["fitting"])
    sides = {"train": train, "held-out": held_out}
    tables = {side: as_fitted(fitting, codes, fitted_rows(name, fitting, side, codes)) for side, codes in sides.items()}
    return memorisation(density, tables["train"], tables["held-out"], generator_for("cpu", seed, 2))
