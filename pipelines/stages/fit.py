"""Stage `fit`: a density of the training codes. The same fit to codes of one's own: `fit_codes`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.exchange import read_codes
from postprior.pipelines.errors import UserError
from postprior.pipelines.progress import progress
from postprior.pipelines.publishing import check_folder
from postprior.pipelines.settings.params import (
    Fitting,
    Options,
    Params,
    pick,
    read_entry,
)
from postprior.pipelines.stages.encode import SPLITS, load_codes
from postprior.pipelines.stages.train import load_autoencoder
from postprior.pipelines.storage import (
    Artefact,
    file_hash,
    files_of,
    load_artefact,
    rebuilding,
    save_artefact,
)
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    from torch import Tensor

    from postprior.stage1_vae.distributions import Mixture
    from postprior.stage1_vae.model import MultimodalVAE
    from postprior.stage2_latent.codes import Codes
    from postprior.stage2_latent.density import Density

KIND = "density"
MOST = 5000
"""Rows of a split whose log-likelihood is taken."""
Learned = tuple[dict[str, Any], dict[str, "Tensor"]]


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


def learn(
    name: str,
    written: Options,
    codes: dict[str, Codes],
    seed: int,
    encoder: FrozenEncoder | None = None,
    log: Callable[..., None] | None = None,
) -> Learned:
    """The density that an entry asks for, fitted: its manifest, with what is known of the fit, and its tensors.

    Args:
        name: the entry.
        written: what stands there.
        codes: by split: `train`, and `validation` and `test` where they are there.
        seed: of all randomness.
        encoder: the encoder that made the codes of `train`, for densities that learn with one.
        log: is handed the numbers of each pass.
    """
    from postprior.pipelines.metrics.privacy.memorisation import memorisation
    from postprior.stage1_vae.training import generator_for
    from postprior.stage2_latent.nested import PartialEncoder

    fitting, options = read_entry(name, written)
    chosen = {split: _rows(table, fitting, f"density.{name}.rows", split) for split, table in codes.items()}
    tables = {split: _table(table, chosen[split], fitting) for split, table in codes.items()}
    with progress(f"fit {name}", None) as step:

        def report(row: dict[str, Any]) -> None:
            if log is not None:
                log({key: value for key, value in row.items() if key != "step"}, step=int(row["step"]))
            step(f"held-out log-likelihood {row['validation_log_likelihood']:.2f}")

        try:
            density = _build(fitting, options)
            if density.needs_encoder and encoder is None:
                raise UserError(
                    f"density.{name}: {density.name} learns with the autoencoder's encoder, which codes alone do not "
                    f"bring; run postprior fit {name} in the autoencoder's project, without --codes"
                )
            view = None if encoder is None else PartialEncoder(encoder, chosen["train"])
            density.fit(tables["train"], tables.get("validation"), generator_for("cpu", seed), view, report)
        except ValueError as error:
            told = str(error).removeprefix(f"density {fitting.kind}: ")
            raise UserError(f"density.{name}: {told}") from None
    tensors, meta = density.state()
    known = {
        "fitting": fitting.model_dump(),
        "bound": density.bound,
        "log_likelihood": log_likelihoods(density, codes, seed),
        "memorisation": {},
    }
    held_out = tables.get("test", tables.get("validation"))
    if held_out is not None:
        generator = generator_for("cpu", seed, 2)
        known["memorisation"] = memorisation(density, tables["train"], held_out, generator)
    return {**meta, **known}, tensors


def _build(fitting: Fitting, options: Options) -> Density:
    """An unfitted density."""
    from postprior.stage2_latent import DENSITIES

    if fitting.independent:
        return DENSITIES["independent"](**{"density": fitting.kind, "options": options})
    return DENSITIES[fitting.kind](**options)


def _rows(codes: Codes, fitting: Fitting, key: str, split: str) -> Tensor:
    """Rows that are fitted, or chosen by: (n,) int64."""
    import torch

    if fitting.rows == "all":
        return torch.arange(len(codes))
    rows = whole_rows(codes)
    if not len(rows):
        raise UserError(f"{key}: found no {split} row with every modality, expected some; fit all rows")
    return rows


def _table(codes: Codes, rows: Tensor, fitting: Fitting) -> Codes:
    """The codes as they are fitted."""
    codes = codes.select(rows) if len(rows) < len(codes) else codes
    return codes if fitting.labels else replace(codes, labels=None, label_names=None)


def whole_rows(codes: Codes) -> Tensor:
    """Rows encoded from every modality, or with every block where the modalities are not known: (n,) int64."""
    whole = codes.complete if codes.whole is None else codes.complete & codes.whole
    return whole.nonzero().squeeze(-1)


def log_likelihoods(density: Density, codes: dict[str, Codes], seed: int) -> dict[str, Any]:
    """Mean log p(z) of one posterior draw of each row of each split, in nats, or the mean of a lower bound of it.

    Of rows that have every modality, as whole samples have, `MOST` at the most; nothing for a density without scores.
    Missing, as it is written, of a split without such rows, or with one to which the density gives no likelihood.
    """
    import torch

    from postprior.pipelines.metrics.statistics.intervals import Missing
    from postprior.stage1_vae.training import generator_for

    if not (density.exact_log_prob or density.bound):
        return {}
    means: dict[str, Any] = {}
    for split, table in codes.items():
        generator, rows = generator_for("cpu", seed, 1), whole_rows(table)
        if len(rows) > MOST:
            rows = rows[torch.randperm(len(rows), generator=generator)[:MOST]]
        if not len(rows):
            means[split] = Missing(f"no {split} row has every modality").written
            continue
        with torch.no_grad():
            mean = float(density.log_prob(table.draw(generator, rows)).mean())
        means[split] = mean if math.isfinite(mean) else Missing("some rows have no finite likelihood").written
    return means


def load_density(folder: Path | str) -> Density:
    """The fitted density in a folder; it needs neither data nor an autoencoder.

    Example:
        load_density("artefacts/densities/gmm").sample(1000)
    """
    return density_of(load_artefact(Path(folder), KIND), Path(folder))


def density_of(artefact: Artefact, folder: Path) -> Density:
    """The density of an artefact that lies in a folder."""
    from postprior.stage2_latent import DENSITIES

    family = pick(DENSITIES, artefact.manifest["density"], f"{folder}: density", "density")
    with rebuilding(folder):
        return family.from_state(artefact.tensors, artefact.manifest)


class FrozenEncoder:
    """The trained encoder as a density sees it: training inputs by row, and posteriors of inputs.

    Model and data are loaded when they are first asked for: few densities do.

    Args:
        root: the project's root.
        autoencoder: the hash of the autoencoder that the codes came from.
    """

    def __init__(self, root: Path, autoencoder: str) -> None:
        self.root, self.autoencoder = root, autoencoder

    @cached_property
    def model(self) -> MultimodalVAE:
        """The autoencoder, its parameters frozen."""
        model, artefact = load_autoencoder(self.root / "artefacts/autoencoder")
        if artefact.hash != self.autoencoder:
            raise UserError(
                f"artefacts/codes/train: codes of autoencoder {self.autoencoder[:12]}, found {artefact.hash[:12]} in "
                "artefacts/autoencoder; run postprior encode"
            )
        return model.requires_grad_(False)

    @cached_property
    def data(self) -> Dataset:
        """The training data."""
        return Dataset.load(self.root / "artefacts/data/train")

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """Data of some rows, one tensor (n, *shape) a modality; what one lacks is the mean of those that have it."""
        batch = self.data.batch(rows.numpy())
        for index, (name, values) in enumerate(batch.data.items()):
            observed = batch.observed[:, index]
            if not bool(observed.all()):
                values[~observed] = values[observed].mean(0) if bool(observed.any()) else values.mean(0)
                batch.data[name] = values
        return batch.data

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        """Posteriors of complete inputs, batch shape (n,), differentiable in them.

        Pseudo-inputs may leave the modalities' ranges: they stand for posteriors, not for data, and clamped to the
        ranges they would stop learning at the bounds.
        """
        import torch

        from postprior.stage1_vae.modalities import Batch
        from postprior.stage1_vae.training import generator_for

        rows = len(next(iter(inputs.values())))
        complete = Batch(dict(inputs), torch.ones(rows, len(inputs), dtype=torch.bool))
        return self.model.encode(complete, generator_for("cpu", 0))
