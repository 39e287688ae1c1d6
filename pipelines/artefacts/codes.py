"""Codes: posteriors of a dataset's rows, saved and loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.storage import file_hash, load_artefact, rebuilding, save_artefact
from postprior.stage1_vae.distributions import FAMILIES, Block, Mixture
from postprior.stage2_latent.codes import COLUMNS, Codes

if TYPE_CHECKING:  # who reads codes runs no model
    from postprior.stage1_vae.model import MultimodalVAE

KIND = "codes"
ROWS = 512  # rows encoded at a time: a fixed block, so that the bytes depend on the data alone


def posteriors(model: MultimodalVAE, data: Dataset, components: int, generator: Any) -> Codes:
    """Codes of all rows from whatever modalities they have; at most `components` components each."""
    starts = range(0, len(data), ROWS)
    with torch.no_grad():
        blocks = [model.encode(data.batch(slice(start, start + ROWS)), generator, components) for start in starts]
        prior = model.prior()
    q = Mixture.stack(blocks)
    return Codes(
        layout=model.layout,
        family=q.components.name,
        loc=q.components.loc,
        scale=q.components.scale,
        weights=q.weights,
        observed=observed_blocks(model, torch.from_numpy(np.array(data.observed))),
        prior=prior if isinstance(prior, Mixture) else Mixture.single(prior),
        labels=None if data.labels is None else torch.from_numpy(np.array(data.labels, np.int64)),
        label_names=data.label_names,
        ids=None if data.ids is None else [str(name) for name in data.ids],
        whole=torch.from_numpy(data.observed.all(1)),
    )


def observed_blocks(model: MultimodalVAE, observed: Tensor) -> Tensor:
    """Blocks of the code, (N, blocks) bool, that rows with these modalities (N, M) speak of: all but private ones of
    modalities that a row lacks."""
    columns = dict(zip([m.name for m in model.modalities], observed.T, strict=True))
    everywhere = torch.ones_like(observed[:, 0])
    return torch.stack([everywhere if b.owner is None else columns[b.owner] for b in model.layout], 1)


def save_codes(folder: Path, codes: Codes, origin: dict[str, Any]) -> None:
    """Publish codes as an artefact; `origin` names the hashes of what they were made from."""
    columns = {name: getattr(codes, name) for name in COLUMNS}
    arrays = {name: value.numpy() for name, value in columns.items() if value is not None}
    if codes.ids is not None:
        arrays["ids"] = np.array(codes.ids)
    manifest = {
        **origin,
        "layout": [block.describe() for block in codes.layout],
        "family": codes.family,
        "label_names": None if codes.label_names is None else list(codes.label_names),
    }
    tensors = {}
    if codes.prior is not None:
        components = codes.prior.components
        manifest["prior"] = components.name
        tensors = {"weights": codes.prior.weights, "loc": components.loc, "scale": components.scale}
    save_artefact(folder, KIND, manifest, tensors, arrays)


def load_codes(folder: Path) -> Codes:
    """The codes in a folder, with the prior of their autoencoder."""
    artefact = load_artefact(folder, KIND)
    manifest, prior = artefact.manifest, artefact.tensors
    arrays = {name: np.array(array) for name, array in artefact.arrays.items()}
    ids = arrays.pop("ids", None)
    columns: dict[str, Any] = {name: torch.from_numpy(arrays[name]) if name in arrays else None for name in COLUMNS}
    with rebuilding(folder):
        names, family = manifest["label_names"], FAMILIES[manifest["prior"]] if prior else None
        return Codes(
            layout=tuple(Block.from_description(each) for each in manifest["layout"]),
            family=manifest["family"],
            **columns,
            prior=Mixture(prior["weights"], family(prior["loc"], prior["scale"])) if family else None,
            label_names=None if names is None else tuple(names),
            ids=None if ids is None else ids.tolist(),
        )


def complete_rows(codes: Codes) -> Tensor:
    """Rows encoded from every modality, or with every block where the modalities are not known: (n,) int64."""
    whole = codes.complete if codes.whole is None else codes.complete & codes.whole
    return whole.nonzero().squeeze(-1)


@dataclass(frozen=True)
class CompleteCodes:
    """The rows of a table of codes that lack no block; there may be none."""

    table: Codes

    @property
    def rows(self) -> np.ndarray:
        """Their numbers (n,)."""
        return np.flatnonzero(self.table.complete.numpy())

    @property
    def codes(self) -> Codes:
        """Their codes (n, D), n at least 1."""
        return self.table.select(self.table.complete)

    @property
    def means(self) -> np.ndarray:
        """Posterior means (n, D)."""
        return self.table.mean[self.table.complete].numpy()

    @property
    def labels(self) -> np.ndarray | None:
        """The label of each (n,), if there are labels."""
        return None if self.table.labels is None else self.table.labels[self.table.complete].numpy()

    def __len__(self) -> int:
        return len(self.rows)


def origins_of(path: Path) -> dict[str, str]:
    """The hashes of codes in a code folder or an .npz file, and of their autoencoder, where it is known."""
    if not path.is_dir():
        return {"codes": file_hash(path)}
    artefact = load_artefact(path, "codes")
    return {"autoencoder": artefact.manifest["autoencoder"], "codes": artefact.hash}
