"""Stage `encode`: the posterior of every row of every split, as a table of latent codes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import posteriors, save_codes
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    pass


def encode(params: Params, root: Path) -> None:
    """Encode the three splits; artefacts/codes/<split>."""
    from postprior.stage1_vae.randomness import generator_for

    model, artefact = load_autoencoder(root / "artefacts/autoencoder")
    with track("encode", params, root) as run:
        for index, split in enumerate(SPLITS):
            data = Dataset.load(root / "artefacts/data" / split)
            generator = generator_for("cpu", params.seed, index)
            codes = posteriors(model, data, params.encode.components, generator)
            save_codes(
                root / "artefacts/codes" / split, codes, {"autoencoder": artefact.hash, "data": data.hash}
            )
            run.metrics({f"{split}_posterior_variance": float(codes.posterior().variance.mean())})
