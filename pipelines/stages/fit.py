"""Stage `fit`: fit a density to the training codes, and learn which values training rows lack."""

from functools import partial
from pathlib import Path

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import load_codes, origins_of
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.fitting import FrozenEncoder
from postprior.pipelines.generation.prior import FittedPrior
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking.runs import track
from postprior.stage1_vae.autoencoder import Autoencoder


def fit(name: str, params: Params, root: Path) -> None:
    """Fit the entry `name` of `density` to artefacts/codes/train; write artefacts/densities/<name>."""
    project = Project(root)
    codes = {split: load_codes(project.artefacts.codes / split) for split in SPLITS}
    origins = origins_of(project.artefacts.codes / "train")
    encoder = FrozenEncoder(partial(trained_on, project, origins["autoencoder"]))
    with track("fit", params, root, density=name) as run:
        prior = FittedPrior.fit(name, params, codes, project.dataset("train"), encoder, run.metrics)
        run.metrics({f"log_likelihood_{split}": value for split, value in prior.facts["log_likelihood"].items()})
        prior.save(project.artefacts.densities / name, origins)


def trained_on(project: Project, autoencoder: str) -> tuple[Autoencoder, Dataset]:
    """Load the autoencoder with the given hash, which encoded the codes, and its training rows."""
    model, artefact = load_autoencoder(project.artefacts.autoencoder)
    if artefact.hash != autoencoder:
        raise UserError(
            f"{project.artefacts.codes / 'train'}: found codes of autoencoder {autoencoder[:12]}, expected "
            f"{artefact.hash[:12]}, the one in {project.artefacts.autoencoder}; run postprior encode"
        )
    return model, project.dataset("train")
