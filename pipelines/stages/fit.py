"""Stage `fit`: a density of the training codes. The same fit to codes of one's own: `fit_codes`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.density import KIND
from postprior.pipelines.artefacts.exchange import read_codes
from postprior.pipelines.data.dataset import SPLITS
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.fitting import FrozenEncoder, learn
from postprior.pipelines.publishing import check_folder
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import file_hash, files_of, load_artefact, save_artefact
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    from postprior.stage2_latent.codes import Codes


def fit(name: str, params: Params, root: Path) -> None:
    """Fit the entry `name` of `density` to artefacts/codes/train; artefacts/densities/<name>."""
    codes = {split: load_codes(root / "artefacts/codes" / split) for split in SPLITS}
    origin = load_artefact(root / "artefacts/codes/train", "codes")
    autoencoder = origin.manifest["autoencoder"]
    encoder = FrozenEncoder(root, autoencoder)
    with track("fit", params, root, density=name) as run:
        manifest, tensors = learn(name, params.density[name], codes, params.seed, encoder, run.metrics)
        run.metrics({f"log_likelihood_{split}": value for split, value in manifest["log_likelihood"].items()})
        run.metrics(manifest["memorisation"], prefix="memorisation.")
        origins = {"autoencoder": autoencoder, "codes": origin.hash}
        save_artefact(root / "artefacts/densities" / name, KIND, {**manifest, **origins}, tensors)


def fit_codes(
    name: str,
    params: Params | None,
    root: Path,
    codes: Path,
    validation: Path | None = None,
    out: Path | None = None,
) -> None:
    """Fit a density to codes of one's own, code folders or .npz files; artefacts/densities/<name>, or `out`.

    Args:
        name: an entry of `density`, or a density where there is none, which then has its default options.
        params: the settings, if there are any.
        root: the project's root.
        codes: what is fitted.
        validation: codes of other rows to choose by; None sets a tenth of the rows apart.
        out: the folder of the density.
    """
    paths = {"train": codes} if validation is None else {"train": codes, "validation": validation}
    folder = out or root / "artefacts/densities" / name
    check_folder(folder, partial(files_of, kind=KIND), paths.values())
    found = {split: _own(path) for split, path in paths.items()}
    origins = found["train"][1]
    for split, path in paths.items():
        if found[split][1].get("autoencoder") != origins.get("autoencoder"):
            raise UserError(f"{path}: codes of another autoencoder than those of {codes}; expected the same")
    written = params.density.get(name, {}) if params else {}
    seed = params.seed if params else 0
    manifest, tensors = learn(name, written, {split: table for split, (table, _) in found.items()}, seed)
    save_artefact(folder, KIND, {**manifest, **origins}, tensors, inputs=paths.values())


def _own(path: Path) -> tuple[Codes, dict[str, str]]:
    """Codes in a code folder or an .npz file, and the hashes of what they come from."""
    if path.is_dir():
        artefact = load_artefact(path, "codes")
        return load_codes(path), {"autoencoder": artefact.manifest["autoencoder"], "codes": artefact.hash}
    return read_codes(path), {"codes": file_hash(path)}
