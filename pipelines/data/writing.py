"""Write a dataset folder in pieces, in bounded memory."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.checks import check
from postprior.pipelines.data.dataset import published
from postprior.pipelines.data.manifest import Manifest
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
    m, and those named in `written`.

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
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {m.name: (m.shape, np.float32) for m in manifest.modalities}
    others = {"labels": ((), np.int64), "mask": ((len(manifest.modalities),), np.bool_)}
    others |= {f"{m.name}.observed": (m.shape, np.bool_) for m in manifest.modalities}
    shapes |= {name: others[name] for name in written}
    done = np.zeros(manifest.samples, bool)

    @contextmanager
    def writer() -> Iterator[Write]:
        with published(folder, manifest, known or {}, source_values or {}, inputs) as temporary:
            writers = {
                name: ArrayWriter(temporary / f"{name}.npy", (manifest.samples, *shape), dtype)
                for name, (shape, dtype) in shapes.items()
            }

            def write(start: int, arrays: Mapping[str, np.ndarray]) -> None:
                check(folder, manifest.modalities, arrays, manifest.label_names if labels else None)
                for name, writer in writers.items():
                    writer.write(start, arrays[name])
                done[start : start + len(arrays[manifest.modalities[0].name])] = True

            yield write
            if not done.all():
                raise ValueError(f"{folder}: {np.sum(~done)} of {len(done)} rows were never written")

    return writer()
