"""The command `draw`: draw codes from a fitted density and write them to an .npz file."""

from pathlib import Path

from postprior.pipelines.artefacts.density import load_density
from postprior.pipelines.artefacts.exchange import write_codes
from postprior.pipelines.generation.generator import drawn_codes
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.publishing import check_file


def draw(folder: Path, out: Path, request: SampleRequest, force: bool = False) -> None:
    """Draw codes from the density in a folder; `generate` decodes the same codes with the same seed.

    An existing file at `out` is replaced only with `force`.
    """
    check_file(out, force)
    write_codes(out, drawn_codes(load_density(folder), request))
