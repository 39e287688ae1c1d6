"""Write a dataset folder in pieces, in bounded memory."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.checks import check
from postprior.pipelines.data.dataset import published
from postprior.pipelines.data.manifest import OPTIONAL, Manifest
from postprior.pipelines.data.shards import LARGEST, ShardsWriter, rows_per_shard
from postprior.pipelines.data.source_values import SourceValues
from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import ArrayWriter

Write = Callable[[int, Mapping[str, np.ndarray]], None]


def writing(
    folder: Path,
    manifest: Manifest,
    written: Collection[str] = (),
    known: Mapping[str, np.ndarray] | None = None,
    inputs: Iterable[Path] = (),
    source_values: SourceValues | None = None,
) -> AbstractContextManager[Write]:
    """Write a dataset folder in pieces, in bounded memory, and publish it when all rows are written.

    The block calls `write(start, arrays)` to write the rows start … start + n: arrays[m] (n, *shape) for every modality
    m, and those named in `written`. Modalities with a scale in the manifest are stored as integers of their source's
    type. Arrays of modalities of more than `shards.LARGEST` bytes are written as shards.

    Args:
        folder: the dataset folder.
        manifest: its manifest, which declares the number of rows.
        written: the other arrays that are written with the rows: `labels`, `mask`, or the observed cells
            `<modality>.observed`.
        known: arrays of the folder, by name, that are complete before the rows are written.
        inputs: the files or folders that the rows are made from.
        source_values: original values, also complete before the rows are written.
    """
    if manifest.samples < 1:
        expected = "expected at least 1; request a positive number"
        raise UserError(f"{folder}: {manifest.samples} samples requested, {expected}")
    labels = "labels" in written
    if labels and manifest.label_names is None:
        raise ValueError("label_names: None found, expected the names of the labels that are written")
    if not labels and "labels" not in (known or {}):
        manifest = replace(manifest, label_names=None)
    types = {name: np.dtype((manifest.conversion or {})["modalities"][name]["dtype"]) for name in manifest.scales}
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        m.name: (m.shape, types.get(m.name, np.float32)) for m in manifest.modalities
    }
    others = {"labels": ((), np.int64), "mask": ((len(manifest.modalities),), np.bool_)}
    others |= {f"{m.name}.observed": (m.shape, np.bool_) for m in manifest.modalities}
    shapes |= {name: others[name] for name in written}
    done, steps = np.zeros(manifest.samples, bool), dict.fromkeys(shapes, manifest.samples)
    steps |= {n: rows_per_shard(*shapes[n], LARGEST) for n in shapes if n.partition(".")[0] not in OPTIONAL}
    counts = {name: -(-manifest.samples // step) for name, step in steps.items()}
    manifest = replace(manifest, shards={name: count for name, count in counts.items() if count > 1})

    @contextmanager
    def writer() -> Iterator[Write]:
        with published(folder, manifest, known or {}, source_values or {}, inputs) as temporary:
            writers: dict[str, ArrayWriter | ShardsWriter] = {
                name: ShardsWriter(temporary, name, (manifest.samples, *shape), dtype, steps[name])
                if name in manifest.shards
                else ArrayWriter(temporary / f"{name}.npy", (manifest.samples, *shape), dtype)
                for name, (shape, dtype) in shapes.items()
            }

            def write(start: int, arrays: Mapping[str, np.ndarray]) -> None:
                check(folder, manifest.modalities, arrays, manifest.label_names if labels else None)
                for name, writer in writers.items():
                    scale = manifest.scales.get(name)
                    values = arrays[name]
                    writer.write(start, values if scale is None else scale.integers(values, types[name]))
                done[start : start + len(arrays[manifest.modalities[0].name])] = True

            yield write
            if not done.all():
                raise ValueError(f"{folder}: {np.sum(~done)} of {len(done)} rows were never written")

    return writer()
