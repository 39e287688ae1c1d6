"""The command `draw`: draw codes from a fitted density and write them to an .npz file."""

from pathlib import Path

from postprior.pipelines.artefacts.density import load_density
from postprior.pipelines.artefacts.exchange import write_codes
from postprior.pipelines.generation.generator import drawn_codes
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.publishing import check_file
from postprior.pipelines.space import check_space


def draw(folder: Path, out: Path, request: SampleRequest, force: bool = False) -> None:
    """Draw codes from the density in a folder; `generate` decodes the same codes with the same seed.

    An existing file at `out` is replaced only with `force`.
    """
    check_file(out, force)
    density = load_density(folder)
    size = 4 * request.size * sum(block.size for block in density.layout)
    check_space(f"samples: {request.size} codes", memory=2 * size, disk=size, place=out)  # blocks, then the array
    write_codes(out, drawn_codes(density, request))
