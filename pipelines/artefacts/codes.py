"""Encode the rows of a dataset as codes (posteriors), and save and load codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.blocks import ALONE, Arrays, Sharing
from postprior.pipelines.data.arrays import zeros
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import as_user_error
from postprior.pipelines.progress import progress, substeps
from postprior.pipelines.storage import check_tensors, file_hash, load_artefact, rebuilding, save_artefact
from postprior.stage1_vae.distributions import FAMILIES, Block, Mixture
from postprior.stage1_vae.randomness import generator_for, seed_from
from postprior.stage2_latent.codes import COLUMNS, Codes

if TYPE_CHECKING:  # reading codes does not need the model
    from postprior.stage1_vae.autoencoder import Autoencoder

KIND = "codes"
ROWS = 512  # rows per encoded block; it is fixed, so that bytes depend only on the data
ABSENT = {"weights": 0.0, "loc": 0.0, "scale": 1.0}
"""Parameters of the components that a row does not have."""


def posteriors(model: Autoencoder, data: Dataset, components: int, generator: torch.Generator) -> Codes:
    """Encode all rows from their observed modalities; posteriors have at most `components` components."""
    codes = shared_posteriors(model, data, components, generator, ALONE, "encode")
    assert codes is not None  # there is one rank
    return codes


def shared_posteriors(
    model: Autoencoder,
    data: Dataset,
    components: int,
    generator: torch.Generator,
    sharing: Sharing,
    title: str,
) -> Codes | None:
    """Return what `posteriors` does, computed by the ranks of a job; None on all but the first."""
    seed, count = seed_from(generator), -(-len(data) // ROWS)

    def compute(numbers: range) -> Iterator[tuple[int, Arrays]]:
        for number in numbers:
            start = number * ROWS
            with torch.no_grad():
                noise = generator_for("cpu", seed, number)
                q = model.encode(data.batch(slice(start, start + ROWS)), noise, components)
            tensors = {"weights": q.weights, "loc": q.components.loc, "scale": q.components.scale}
            family = np.frombuffer(q.components.name.encode(), np.uint8)
            yield start, {name: tensor.numpy() for name, tensor in tensors.items()} | {"family": family}

    with sharing.blocks(title, [components, seed], count, compute) as blocks:
        return None if blocks is None else codes_of(model, data, substeps(blocks, count))


def codes_of(model: Autoencoder, data: Dataset, blocks: Iterable[tuple[int, Arrays]]) -> Codes:
    """Return the codes of rows, given the weights, locations, scales and families of the mixtures of all blocks.

    Large tables are kept in temporary files.
    """
    columns, family = joined(blocks, len(data))
    with torch.no_grad():
        prior = model.prior()
    with as_user_error(ValueError, "the autoencoder cannot encode these rows", "train it again, or check the rows"):
        return Codes(
            layout=model.layout,
            family=family,
            **{name: torch.from_numpy(column) for name, column in columns.items()},
            observed=observed_blocks(model, torch.from_numpy(np.array(data.observed))),
            prior=prior if isinstance(prior, Mixture) else Mixture.single(prior),
            labels=None if data.labels is None else torch.from_numpy(np.array(data.labels, np.int64)),
            label_names=data.label_names,
            ids=None if data.ids is None else [str(name) for name in data.ids],
            whole=torch.from_numpy(data.observed.all(1)),
        )


def joined(blocks: Iterable[tuple[int, Arrays]], rows: int) -> tuple[dict[str, np.ndarray], str]:
    """Return weights (N, C), locations and scales (N, C, D) of the mixtures of all blocks, in order, and their family.

    Mixtures with fewer components than others gain components of weight 0.
    """
    columns: dict[str, np.ndarray] = {}
    family = ""
    for start, arrays in blocks:
        family = arrays["family"].tobytes().decode()
        for name, absent in ABSENT.items():
            values, before = arrays[name], columns.get(name)
            count = values.shape[1]
            if before is None or before.shape[1] < count:
                columns[name] = zeros((rows, *values.shape[1:]), values.dtype)
                if before is not None:
                    columns[name][:start, : before.shape[1]] = before[:start]
                    columns[name][:start, before.shape[1] :] = absent
            column = columns[name][start : start + len(values)]
            column[:, :count], column[:, count:] = values, absent
    return columns, family


def encoded(
    model: Autoencoder,
    splits: Mapping[str, Dataset],
    components: int,
    seed: int,
    sharing: Sharing = ALONE,
) -> Iterator[tuple[str, Codes]]:
    """Encode the rows of every split, and yield each split with its codes; see `shared_posteriors`.

    The first rank alone yields anything.
    """
    with progress("encode", len(splits)) as step:
        for index, (split, data) in enumerate(splits.items()):
            noise = generator_for("cpu", seed, index)
            codes = shared_posteriors(model, data, components, noise, sharing, f"encode {split}")
            if codes is not None:
                yield split, codes
            step(split)


def observed_blocks(model: Autoencoder, observed: Tensor) -> Tensor:
    """Return which blocks of the code the observed modalities (N, M) of rows inform, (N, blocks) bool.

    These are all blocks except private blocks of missing modalities.
    """
    columns = dict(zip([m.name for m in model.modalities], observed.T, strict=True))
    everywhere = torch.ones_like(observed[:, 0])
    return torch.stack([everywhere if b.owner is None else columns[b.owner] for b in model.layout], 1)


def save_codes(folder: Path, codes: Codes, origin: dict[str, Any]) -> None:
    """Publish codes as an artefact; `origin` holds the hashes of the data and of the autoencoder."""
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
    if codes.prior is not None:
        manifest["prior"] = codes.prior.components.name
    save_artefact(folder, KIND, manifest, _prior_tensors(codes), arrays)


def _prior_tensors(codes: Codes) -> dict[str, Tensor]:
    """Return the tensors of the prior that an artefact holds; none without a prior."""
    if codes.prior is None:
        return {}
    components = codes.prior.components
    return {"weights": codes.prior.weights, "loc": components.loc, "scale": components.scale}


def load_codes(folder: Path) -> Codes:
    """Load the codes in a folder, memory-mapped, with the prior of their autoencoder."""
    artefact = load_artefact(folder, KIND)
    manifest, prior, arrays = artefact.manifest, artefact.tensors, artefact.arrays
    ids = arrays.pop("ids", None)
    with rebuilding(folder):
        columns: dict[str, Any] = {name: torch.from_numpy(arrays[name]) if name in arrays else None for name in COLUMNS}
        names, family = manifest["label_names"], FAMILIES[manifest["prior"]] if prior else None
        codes = Codes(
            layout=tuple(Block.from_description(block) for block in manifest["layout"]),
            family=manifest["family"],
            **columns,
            prior=Mixture(prior["weights"], family(prior["loc"], prior["scale"])) if family else None,
            label_names=None if names is None else tuple(names),
            ids=None if ids is None else ids.tolist(),
        )
        check_tensors(prior, _prior_tensors(codes))
        if codes.prior is not None and codes.prior.components.loc.shape[-1] != codes.loc.shape[-1]:
            raise ValueError("the prior has another dimension than the codes")
    return codes


def complete_rows(codes: Codes) -> Tensor:
    """Return rows encoded from every modality, or, if modalities are unknown, rows with every block: (n,) int64."""
    complete = codes.complete if codes.whole is None else codes.complete & codes.whole
    return complete.nonzero().squeeze(-1)


@dataclass(frozen=True)
class CompleteCodes:
    """Rows of a table of codes that lack no block; there may be no such rows."""

    table: Codes

    @property
    def rows(self) -> np.ndarray:
        """Numbers of the rows (n,)."""
        return np.flatnonzero(self.table.complete.numpy())

    @property
    def codes(self) -> Codes:
        """Codes of the rows (n, D); n must be at least 1."""
        return self.table.select(self.table.complete)

    @property
    def means(self) -> np.ndarray:
        """Posterior means (n, D)."""
        return self.table.mean[self.table.complete].numpy()

    @property
    def labels(self) -> np.ndarray | None:
        """Labels of the rows (n,); None without labels."""
        return None if self.table.labels is None else self.table.labels[self.table.complete].numpy()

    def __len__(self) -> int:
        return len(self.rows)


def origins_of(path: Path) -> dict[str, str]:
    """Return the hash of the codes in a code folder or an .npz file, and of their autoencoder if it is known."""
    if not path.is_dir():
        return {"codes": file_hash(path)}
    artefact = load_artefact(path, "codes")
    with rebuilding(path):
        return {"autoencoder": artefact.manifest["autoencoder"], "codes": artefact.hash}
