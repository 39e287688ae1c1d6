"""Save and load the refiner of an autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from postprior.pipelines.artefacts.allocations import AllocationLimit
from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import MANIFEST, check_tensors, load_artefact, rebuilding, save_artefact

if TYPE_CHECKING:  # a project that is not refined imports no torch in the stage `refine`
    from postprior.stage2_latent.refiner import Refiner

KIND = "refiner"
OFF = {"refiner": None}
"""The manifest of a project that has no refiner."""


def save_refiner(folder: Path, refiner: Refiner, record: dict[str, Any]) -> None:
    """Publish a trained refiner with a record of its training and origins."""
    tensors, description = refiner.state()
    save_artefact(folder, KIND, {"refiner": description, **record}, tensors)


def save_no_refiner(folder: Path) -> None:
    """Publish that the project has no refiner."""
    save_artefact(folder, KIND, OFF)


def load_refiner(folder: Path, autoencoder: str) -> tuple[Refiner, str]:
    """Load the refiner in a folder, and return it with its hash; `autoencoder` is the hash of its autoencoder.

    Raises:
        UserError: There is none, it is damaged, or it is the refiner of another autoencoder.
    """
    from postprior.stage2_latent.refiner import Refiner

    artefact = load_artefact(folder, KIND) if (folder / MANIFEST).exists() else None
    if artefact is None or artefact.manifest["refiner"] is None:
        raise UserError(
            f"values: found refined, but {folder} has no refiner; set refine: {{}} in params.yaml and run postprior "
            "refine, or choose other values"
        )
    if artefact.manifest["autoencoder"] != autoencoder:
        raise UserError(
            f"{folder}: found the refiner of autoencoder {artefact.manifest['autoencoder'][:12]}, expected that of "
            f"{autoencoder[:12]}; run postprior refine"
        )
    with rebuilding(folder), AllocationLimit.of(artefact.tensors):
        refiner = Refiner.from_state(artefact.tensors, artefact.manifest["refiner"])
        check_tensors(artefact.tensors, refiner.state()[0])
    return refiner, artefact.hash
