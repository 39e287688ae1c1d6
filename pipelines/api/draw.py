"""The command `draw`: codes of a fitted density alone, as an .npz file."""

from __future__ import annotations

from pathlib import Path

from postprior.pipelines.artefacts.density import load_density
from postprior.pipelines.artefacts.exchange import write_codes
from postprior.pipelines.generation.generator import draw_codes
from postprior.pipelines.publishing import check_file


def draw(
    folder: Path,
    out: Path,
    samples: int | None = None,
    seed: int = 0,
    labels: dict[str, int] | None = None,
    temperature: float = 1.0,
    truncation: float = 0.0,
    force: bool = False,
) -> None:
    """Draw codes from the density in a folder: those that `generate` decodes with the same seed.

    A file at `out` is replaced with `force` alone.
    """
    check_file(out, force)
    import torch

    from postprior.stage2_latent.codes import Codes

    density = load_density(folder)
    blocks = draw_codes(density, samples, seed, labels, temperature, truncation)
    parts = [codes.select(torch.arange(kept)) for _, kept, codes, _ in blocks]
    z, drawn = torch.cat([part.loc[:, 0] for part in parts]), [part.labels for part in parts]
    known = None if drawn[0] is None else torch.cat([numbers for numbers in drawn if numbers is not None])
    write_codes(out, Codes.empirical(density.layout, z, known, density.classes.names))
