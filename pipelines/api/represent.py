"""The command `represent`: encode rows, complete or not, and write their latent codes to a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import shared_posteriors
from postprior.pipelines.artefacts.exchange import write_codes
from postprior.pipelines.artefacts.project import ArtefactFolders
from postprior.pipelines.blocks import ALONE, Sharing
from postprior.pipelines.data.conversion import ArrayConversion
from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.data.formats import omics
from postprior.pipelines.data.formats.files import optional
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.formats.tables import write_table
from postprior.pipelines.data.manifest import conversion_in
from postprior.pipelines.publishing import check_file, publish_path
from postprior.pipelines.settings.names import pick
from postprior.pipelines.settings.options import check_value
from postprior.pipelines.settings.params import Seed
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.layouts import split_blocks

Values = np.ndarray[Any, np.dtype[Any]]


def represent(
    data: Path,
    autoencoder: Path,
    out: Path,
    seed: int = 0,
    components: int = 32,
    force: bool = False,
    sharing: Sharing = ALONE,
) -> list[str]:
    """Encode the rows of a dataset folder and write their codes to `out`; return lines that report what was written.

    An .npz file holds full posteriors, in the format of `artefacts.exchange`; .parquet and .h5ad files hold posterior
    means. A private block has no posterior in rows that lack its modality, and is NaN or null there.

    Args:
        data: Rows with some or all modalities of the autoencoder.
        seed: Seed of the draws that replace a posterior with too many components or without a closed form.
        components: Largest number of components of a posterior. With the value of `encode.components`, codes are those
            of the stage `encode`.
        sharing: How ranks share the rows; the first one writes and reports.

    Raises:
        UserError: The file name has an unknown ending, the file exists, or the modalities are not those of the model.
    """
    check_value("seed", seed, Seed)
    write = pick(WRITERS, out.suffix, f"{out}", "ending of a file of codes")
    check_file(out, force)
    model, _ = load_autoencoder(autoencoder)
    training = ArtefactFolders(autoencoder.resolve().parent).data / "train"
    rows = conformed(Dataset.load(data), model.modalities, conversion_in(training))
    codes = shared_posteriors(model, rows, components, generator_for("cpu", seed), sharing, "represent")
    if codes is None:
        return []
    with publish_path(out) as path:
        write(rows, codes, path)
    blocks = ", ".join(f"{block.name} ({block.size})" for block in codes.layout)
    lines = [f"{out}: codes of {len(codes)} rows; blocks and their dimensions: {blocks}"]
    if incomplete := int((~rows.observed.all(1)).sum()):
        lines.append(f"  {incomplete} rows lack modalities; their codes are inferred from the observed ones")
    return lines


def _parquet(rows: Dataset, codes: Codes, path: Path) -> None:
    """Write a table of id, label and one column per coordinate."""
    columns = {"id": pa.array(np.arange(len(rows)) if rows.ids is None else rows.ids)}
    if rows.labels is not None and rows.label_names is not None:
        columns["label"] = pa.array(rows.label_names).take(pa.array(rows.labels, mask=~rows.labelled))
    for name, mean in _means(codes).items():
        for index, values in enumerate(mean.T):
            columns[f"{name}_{index}"] = pa.array(values, from_pandas=True)  # NaN becomes null
    write_table(pa.table(columns), path)


def _h5ad(rows: Dataset, codes: Codes, path: Path) -> None:
    """Write an AnnData file: the shared code as X, ids and labels as obs, private codes as obsm.

    If no code is shared, X has all codes side by side.
    """
    h5py = optional("h5py", "omics", ".h5ad")
    means = _means(codes)
    shared_blocks = [block for block in codes.layout if block.owner is None] or codes.layout
    private = {block.name: means[block.name] for block in codes.layout if block.owner is not None}
    shared = np.concatenate([means[block.name] for block in shared_blocks], 1)
    features = [f"{block.name}_{i}" for block in shared_blocks for i in range(block.size)]
    facts = {"source": "omics", "file": "codes.h5ad", "features": features, "sparse": False}
    conversion = ArrayConversion("z", "numeric", "X", "float32", shared.shape[1:], facts=facts)
    z = Modality("z", "vector", shared.shape[1:], "normal")
    table = Dataset((z,), {"z": shared}, labels=rows.labels, label_names=rows.label_names, ids=rows.ids)
    omics.write(Samples(table, (conversion,), {}), [conversion], path)
    with h5py.File(path, "a") as file:
        group = file.create_group("obsm")
        group.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        for key, values in private.items():
            group[key] = values
            group[key].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


def _means(codes: Codes) -> dict[str, Values]:
    """Return posterior means (N, size) by block, NaN in rows without a posterior of the block."""
    return {name: block.flatten(1).numpy() for name, block in split_blocks(codes.layout, codes.mean).items()}


WRITERS: dict[str, Callable[[Dataset, Codes, Path], None]] = {
    ".npz": lambda rows, codes, path: write_codes(path, codes),
    ".parquet": _parquet,
    ".h5ad": _h5ad,
}
"""Functions that write a file of codes, by the ending of its name."""
