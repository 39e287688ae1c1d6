"""The command `fit --codes`: fit a density to custom codes."""

from functools import partial
from pathlib import Path

from postprior.pipelines.artefacts.codes import load_codes, origins_of
from postprior.pipelines.artefacts.density import KIND, save_density
from postprior.pipelines.artefacts.exchange import read_codes
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.fitting import fit_density
from postprior.pipelines.generation.memorisation import check_memorisation
from postprior.pipelines.publishing import check_folder
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import files_of


def fit_codes(
    name: str, params: Params | None, root: Path, codes: Path, validation: Path | None = None, out: Path | None = None
) -> Path:
    """Fit a density to custom codes and save it to artefacts/densities/<name>, or to `out`; return that folder.

    Args:
        name: Entry of `density` in params.yaml; without such an entry, the density has its default options.
        codes: A code folder or an .npz file.
        validation: Codes of other rows for model selection; if None, a tenth of the rows is set apart.
    """
    paths = {"train": codes} if validation is None else {"train": codes, "validation": validation}
    folder = out or Project(root).artefacts.densities / name
    check_folder(folder, partial(files_of, kind=KIND), paths.values())
    tables = {split: load_codes(path) if path.is_dir() else read_codes(path) for split, path in paths.items()}
    origins = origins_of(codes)
    if validation and origins_of(validation).get("autoencoder") != origins.get("autoencoder"):
        raise UserError(
            f"{validation}: codes and those in {codes} come from different autoencoders, expected the same autoencoder"
        )
    written, seed = (params.density.get(name, {}), params.seed) if params else ({}, 0)
    density, fit = fit_density(name, written, tables, seed)
    if validation:
        fit["memorisation"] = check_memorisation(name, density, fit, tables["train"], tables["validation"], seed)
    save_density(folder, density, fit | origins, inputs=paths.values())
    return folder
