"""Stage `fit`: a density of the training codes. The same fit to codes of one's own: `fit_codes`."""

from functools import partial
from pathlib import Path

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.density import KIND, save_density
from postprior.pipelines.artefacts.exchange import read_codes
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.fitting import FrozenEncoder, learn
from postprior.pipelines.publishing import check_folder
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import file_hash, files_of, load_artefact
from postprior.pipelines.tracking.runs import track
from postprior.stage1_vae.model import MultimodalVAE


def fit(name: str, params: Params, root: Path) -> None:
    """Fit the entry `name` of `density` to artefacts/codes/train; artefacts/densities/<name>."""
    project = Project(root)
    codes = {split: load_codes(project.artefacts.codes / split) for split in SPLITS}
    origins = origins_of(project.artefacts.codes / "train")
    encoder = FrozenEncoder(partial(trained_on, project, origins["autoencoder"]))
    with track("fit", params, root, density=name) as run:
        density, known = learn(name, params.density[name], codes, params.seed, encoder, run.metrics)
        run.metrics({f"log_likelihood_{split}": value for split, value in known["log_likelihood"].items()})
        run.metrics(known["memorisation"], prefix="memorisation.")
        save_density(project.artefacts.densities / name, density, known | origins)


def trained_on(project: Project, autoencoder: str) -> tuple[MultimodalVAE, Dataset]:
    """The autoencoder of this hash, which codes came from, and its training rows."""
    model, artefact = load_autoencoder(project.artefacts.autoencoder)
    if artefact.hash != autoencoder:
        raise UserError(
            f"{project.artefacts.codes / 'train'}: codes of autoencoder {autoencoder[:12]}, found {artefact.hash[:12]} "
            f"in {project.artefacts.autoencoder}; run postprior encode"
        )
    return model, project.dataset("train")


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
    density, known = learn(name, written, tables, seed)
    save_density(folder, density, known | origins, inputs=paths.values())


def origins_of(path: Path) -> dict[str, str]:
    """The hashes of codes in a code folder or an .npz file, and of their autoencoder, where it is known."""
    if not path.is_dir():
        return {"codes": file_hash(path)}
    artefact = load_artefact(path, "codes")
    return {"autoencoder": artefact.manifest["autoencoder"], "codes": artefact.hash}
