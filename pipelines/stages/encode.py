"""Stage `encode`: encode every row of every split, and store the posteriors as tables of latent codes."""

from pathlib import Path

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import encoded, save_codes
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.artefacts.sharing import sharing_of
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking.runs import track


def encode(params: Params, root: Path) -> None:
    """Encode the three splits to artefacts/codes/<split>."""
    project = Project(root)
    model, artefact = load_autoencoder(project.artefacts.autoencoder)
    splits = project.splits()
    read = [project.artefacts.autoencoder, *(project.artefacts.data / split for split in splits)]
    sharing = sharing_of(project, params, "stages.encode", read)
    with track("encode", params, root) as run:
        for split, codes in encoded(model, splits, params.encode.components, params.seed, sharing):
            save_codes(
                project.artefacts.codes / split, codes, {"autoencoder": artefact.hash, "data": splits[split].hash}
            )
            variances = (codes.posterior(rows).variance.double().sum() for rows in codes.chunks())
            run.metrics({f"{split}_posterior_variance": float(sum(variances)) / (len(codes) * codes.dimensions)})
