"""Learn the missingness of training rows for the samples of a density."""

import torch

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.fitting import FrozenEncoder
from postprior.pipelines.generation.generator import ROWS, Generator, draw_codes
from postprior.pipelines.generation.missingness.model import Missingness
from postprior.pipelines.generation.request import SampleRequest
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density

MOST = 16  # blocks of samples that rates are adjusted to
BYTES = 1 << 25  # bytes of these samples, at most; but there is one block


def learned_missingness(
    density: Density, data: Dataset, codes: Codes, seed: int, encoder: FrozenEncoder
) -> Missingness | None:
    """Return what samples of a density lack, learned from training rows and their codes; None if no row lacks anything.

    Neither does a density have exactly the distribution of the training codes, nor do decoders have that of the values.
    So the rates of patterns are adjusted to those of training rows in some samples.
    """
    if data.mask is None and not data.cells:
        return None
    generator = Generator(encoder.trained[0], density, {}, data.conversion)
    request = SampleRequest(ROWS * max(1, min(MOST, BYTES // (ROWS * generator.row_bytes))), seed)
    z = torch.cat([block.loc[:, 0] for _, _, block, _ in draw_codes(density, request)])
    samples = z, generator.draw(request)
    return Missingness.fit(data, codes, density.classes.labelled, generator_for("cpu", seed, 3), samples)
