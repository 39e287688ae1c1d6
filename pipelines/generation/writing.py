"""Write a synthetic dataset of any size in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from postprior.pipelines.blocks import ALONE, Arrays, Sharing
from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.data.decoded import integer_scales, least_bytes
from postprior.pipelines.data.manifest import Manifest
from postprior.pipelines.data.source_values import SourceValues
from postprior.pipelines.data.writing import writing
from postprior.pipelines.generation import completion
from postprior.pipelines.generation.generator import ROWS, Generator
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.progress import progress
from postprior.pipelines.space import check_space


def write_samples(
    generator: Generator,
    request: SampleRequest,
    folder: Path,
    evaluators: Callable[[], Evaluators] | None,
    given: Path | None = None,
    title: str = "samples",
    sharing: Sharing = ALONE,
) -> None:
    """Draw a synthetic dataset, and write it block by block.

    Args:
        evaluators: Loads the label classifiers, which label the rows of a density without labels; the provenance says
            so. None if the data have no labels.
        given: A dataset folder: the samples have the values of its rows, repeated in their order, and all others are
            drawn given these values. Other samples lack values as training rows do, unless `complete` ones are
            requested.
        title: The title of the progress.
        sharing: How ranks share the blocks; the first one writes.
    """
    request = request if given is None else replace(request, complete=True)
    size = request.size * generator.row_bytes
    disk = request.size * least_bytes(generator.modalities, generator.conversion)
    check_space(f"samples: {request.size} rows", memory=0 if given is None else size, disk=disk, place=folder)
    rows, labels = request.rows_and_labels(generator.density)
    provenance, names, judges = generator.describe(request), generator.label_names, None
    source_values: SourceValues = {}
    origin: Dataset | None = None
    if given is None:
        drawn, count = partial(generator.blocks, request), -(-rows // ROWS)
    else:
        origin = Dataset.load(given)
        provenance["given"] = origin.hash
        origin = completion.tiled(conformed(origin, generator.modalities, generator.conversion), rows)
        drawn, count = partial(generator.blocks_given, origin, request), len(completion.row_blocks(origin))
        source_values = {name: values for name, values in origin.source_values.items() if name in origin.data}
        names = None if labels is None else names
    if names is None and evaluators is not None:
        judges = evaluators()
        names = judges.label_names
        provenance["labels_from"] = None if names is None else "judges"
    missingness = generator.missingness_of(request)
    scales = integer_scales(generator.modalities, generator.conversion, origin)
    manifest = Manifest(generator.modalities, rows, names, provenance, generator.conversion, scales)
    written = ([] if names is None else ["labels"]) + ([] if missingness is None else missingness.arrays)
    inputs = () if given is None else [given]

    def compute(numbers: Iterable[int]) -> Iterator[tuple[int, Arrays]]:
        for start, block in drawn(numbers):
            arrays = {name: np.asarray(array) for name, array in block.arrays.items()}
            predicted = None if judges is None else judges.label(block)
            yield start, arrays if predicted is None else arrays | {"labels": predicted}

    with sharing.blocks(title, [provenance, names], count, compute) as blocks:
        if blocks is None:
            return
        with (
            writing(folder, manifest, written, inputs=inputs, source_values=source_values) as write,
            progress(title, count) as step,
        ):
            for start, arrays in blocks:
                write(start, arrays)
                step("")
