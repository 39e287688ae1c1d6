"""Stage `encode`: encode every row of every split, and store the posteriors as tables of latent codes."""

from pathlib import Path

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import posteriors, save_codes
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import SPLITS
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking.runs import track
from postprior.stage1_vae.randomness import generator_for


def encode(params: Params, root: Path) -> None:
    """Encode the three splits to artefacts/codes/<split>."""
    project = Project(root)
    model, artefact = load_autoencoder(project.artefacts.autoencoder)
    with track("encode", params, root) as run, progress("encode", len(SPLITS)) as step:
        for index, (split, data) in enumerate(project.splits().items()):
            codes = posteriors(model, data, params.encode.components, generator_for("cpu", params.seed, index))
            save_codes(project.artefacts.codes / split, codes, {"autoencoder": artefact.hash, "data": data.hash})
            run.metrics({f"{split}_posterior_variance": float(codes.posterior().variance.mean())})
            step(split)
