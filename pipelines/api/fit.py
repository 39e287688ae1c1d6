"""`postprior fit --codes`: a density of codes of one's own."""

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
) -> None:
    """Fit a density to codes of one's own, code folders or .npz files; artefacts/densities/<name>, or `out`.

    Without an entry `name` the density has its default options. `validation` are codes of other rows to choose by; None
    sets a tenth of the rows apart.
    """
    paths = {"train": codes} if validation is None else {"train": codes, "validation": validation}
    folder = out or Project(root).artefacts.densities / name
    check_folder(folder, partial(files_of, kind=KIND), paths.values())
    tables = {split: load_codes(path) if path.is_dir() else read_codes(path) for split, path in paths.items()}
    origins = origins_of(codes)
    if validation and origins_of(validation).get("autoencoder") != origins.get("autoencoder"):
        raise UserError(f"{validation}: codes of another autoencoder than those of {codes}; expected the same")
    written, seed = (params.density.get(name, {}), params.seed) if params else ({}, 0)
    density, known = fit_density(name, written, tables, seed)
    if validation:
        known["memorisation"] = check_memorisation(name, density, known, tables["train"], tables["validation"], seed)
    save_density(folder, density, known | origins, inputs=paths.values())
