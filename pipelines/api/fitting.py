"""Fit a density to the codes of a trained project, with what drawing from it needs."""

from __future__ import annotations

from typing import Any

from postprior.pipelines.api.init import write_settings
from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import load_codes, origins_of
from postprior.pipelines.artefacts.evaluators import save_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import SPLITS
from postprior.pipelines.generation.fitting import FrozenEncoder
from postprior.pipelines.generation.prior import FittedPrior
from postprior.pipelines.metrics.features.fitting import fit_evaluators
from postprior.pipelines.publishing import write_bytes
from postprior.pipelines.settings.checks import check_density, load_params
from postprior.pipelines.settings.params import BASELINE_ROWS, Params
from postprior.pipelines.settings.round_trip import TEMPLATES
from postprior.pipelines.storage import MANIFEST


def add_density(project: Project, name: str, options: dict[str, Any]) -> None:
    """Fit entry `name` of `density` of a project with changed options, and list it in params.yaml.

    The prior of the autoencoder (`normal`) is always scored and not listed.

    Raises:
        UserError: there is no such entry, or an option or its value is wrong.
    """
    file = project.root / TEMPLATES[0]
    before, densities = file.read_bytes(), load_params(file).densities
    try:
        chosen = {f"density.{name}.{key}": value for key, value in options.items()}
        listed = densities if name in BASELINE_ROWS else dict.fromkeys((*densities, name))
        write_settings(file, {**chosen, "densities": [*listed]})
        params = load_params(file)
        check_density(params, name)
        fit_density(name, params, project)
    except BaseException:
        write_bytes(file, before)
        raise


def fit_density(name: str, params: Params, project: Project) -> None:
    """Fit a density to the codes of a project; evaluators label the samples of one without labels.

    Raises:
        UserError: the density cannot be fitted to these codes.
    """
    codes = {split: load_codes(project.artefacts.codes / split) for split in SPLITS}
    train = project.dataset("train")
    encoder = FrozenEncoder(lambda: (load_autoencoder(project.artefacts.autoencoder)[0], train))
    prior = FittedPrior.fit(name, params, codes, train, encoder)
    prior.save(project.artefacts.densities / name, origins_of(project.artefacts.codes / "train"))
    fitted = (project.artefacts.evaluators / MANIFEST).exists()
    if not prior.density.classes.labelled and train.labels is not None and not fitted:
        save_evaluators(project.artefacts.evaluators, fit_evaluators(train, params, project.root), train.hash)
