"""Stage `encode`: the posterior of every row of every split, as a table of latent codes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.train import load_autoencoder
from postprior.pipelines.storage import load_artefact, rebuilding, save_artefact
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    from torch import Tensor

    from postprior.stage1_vae.model import MultimodalVAE
    from postprior.stage2_latent.codes import Codes

KIND = "codes"
SPLITS = ("train", "validation", "test")
COLUMNS = ("loc", "scale", "weights", "observed", "labels", "whole")  # tensors of codes, each a file
ROWS = 512
"""Rows encoded at a time: a fixed block, so that the bytes depend on the data alone."""


def encode(params: Params, root: Path) -> None:
    """Encode the three splits; artefacts/codes/<split>."""
    from postprior.stage1_vae.training import generator_for

    model, artefact = load_autoencoder(root / "artefacts/autoencoder")
    with track("encode", params, root) as run:
        for index, split in enumerate(SPLITS):
            data = Dataset.load(root / "artefacts/data" / split)
            generator = generator_for("cpu", params.seed, index)
            codes = posteriors(model, data, params.encode.components, generator)
            save_codes(
                root / "artefacts/codes" / split, codes, {"autoencoder": artefact.hash, "data": data.hash}
            )
            run.metrics({f"{split}_posterior_variance": float(codes.posterior().variance.mean())})


def posteriors(model: MultimodalVAE, data: Dataset, components: int, generator: Any) -> Codes:
    """Codes of all rows from whatever modalities they have; at most `components` components each."""
    import torch

    from postprior.stage1_vae.distributions import Mixture
    from postprior.stage2_latent.codes import Codes

    starts = range(0, len(data), ROWS)
    with torch.no_grad():
        blocks = [
            model.encode(data.batch(slice(start, start + ROWS)), generator, components) for start in starts
        ]
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
    """Blocks of the code that rows with these modalities (N, M) say something of, (N, blocks) bool: what is shared, and
    the private ones of the modalities that a row has."""
    import torch

    names = [m.name for m in model.modalities]
    everywhere = torch.ones_like(observed[:, 0])
    columns = [
        everywhere if block.owner is None else observed[:, names.index(block.owner)] for block in model.layout
    ]
    return torch.stack(columns, 1)


def save_codes(folder: Path, codes: Codes, origin: dict[str, Any]) -> None:
    """Publish codes as an artefact; `origin` names the hashes of what they were made from."""
    columns = {name: getattr(codes, name) for name in COLUMNS}
    arrays = {name: value.numpy() for name, value in columns.items() if value is not None}
    if codes.ids is not None:
        arrays["ids"] = np.array(codes.ids)
    manifest = {
        **origin,
        "layout": [{"name": b.name, "shape": list(b.shape), "owner": b.owner} for b in codes.layout],
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
    import torch

    from postprior.stage1_vae.distributions import FAMILIES, Block, Mixture
    from postprior.stage2_latent.codes import Codes

    artefact = load_artefact(folder, KIND)
    manifest, prior = artefact.manifest, artefact.tensors
    arrays = {name: np.array(array) for name, array in artefact.arrays.items()}
    ids = arrays.pop("ids", None)
    columns: dict[str, Any] = {
        name: torch.from_numpy(arrays[name]) if name in arrays else None for name in COLUMNS
    }
    with rebuilding(folder):
        names = manifest["label_names"]
        return Codes(
            layout=tuple(Block(b["name"], tuple(b["shape"]), b["owner"]) for b in manifest["layout"]),
            family=manifest["family"],
            **columns,
            prior=Mixture(prior["weights"], FAMILIES[manifest["prior"]](prior["loc"], prior["scale"]))
            if prior
            else None,
            label_names=None if names is None else tuple(names),
            ids=None if ids is None else ids.tolist(),
        )
