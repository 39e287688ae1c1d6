"""Stage `generate`: a synthetic dataset from a density, of any size, in bounded memory; labelled where the data are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from postprior.pipelines.artefacts.evaluators import load_judges
from postprior.pipelines.data.dataset import Dataset, conformed, writing
from postprior.pipelines.data.manifest import Manifest, labelled_in
from postprior.pipelines.data.source_values import SourceValues
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import ROWS, Block, Generator, as_set, resolve
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import folder_hash
from postprior.pipelines.tracking.runs import track


def generate(
    name: str,
    params: Params,
    root: Path,
    samples: int | None = None,
    seed: int | None = None,
    values: str | None = None,
    labels: dict[str, int] | None = None,
    temperature: float | None = None,
    truncation: float | None = None,
    out: Path | None = None,
    given: Path | None = None,
) -> None:
    """Draw a dataset from density `name`; artefacts/synthetic/<name>, or `out`.

    `given` is a dataset folder whose rows, over and over in their order, are what the samples have; the rest is drawn.

    What is None is taken from `generate` in params.yaml. A density without labels has its rows labelled by the
    judges, where there are any, and the provenance says so.
    """
    generator = Generator.load(root / "artefacts/densities" / name)
    settings = params.generate
    options = {"labels": labels, "values": values, "temperature": temperature, "truncation": truncation}
    rows = (settings.samples if labels is None else sum(labels.values())) if samples is None else samples
    asked = as_set(settings, rows) | {key: value for key, value in options.items() if value is not None}
    seed = settings.seed if seed is None else seed
    provenance = generator.describe(seed, **asked)
    names, judges = generator.label_names, None
    source_values: SourceValues = {}
    if given is None:
        blocks = generator.blocks(rows, seed, **asked)
    else:
        from postprior.pipelines.generation.completion import tiled

        origin = Dataset.load(given)
        provenance["given"] = origin.hash
        origin = tiled(conformed(origin, generator.modalities, generator.conversion), rows)
        blocks = from_given(generator, origin, seed, asked)
        source_values = {name: found for name, found in origin.source_values.items() if name in origin.data}
        names = names if asked["labels"] else None
    if names is None and labelled_in(root / "artefacts/data/train"):
        judges = load_judges(root / "artefacts/judges")
        names = judges.label_names
        provenance["labels_from"] = None if names is None else "judges"
    folder = root / "artefacts/synthetic" / name if out is None else out
    manifest = Manifest(generator.modalities, rows, names, provenance, generator.conversion)
    inputs = () if given is None else [given]
    writer = writing(folder, manifest, names is not None, inputs=inputs, source_values=source_values)
    with track("generate", params, root, density=name) as run:
        with writer as write, progress(f"generate {name}", -(-rows // ROWS)) as step:
            for start, data, drawn in blocks:
                write(start, data, judges.label(data) if judges else drawn)
                step("")
        run.dataset(folder, folder_hash(folder))


def from_given(generator: Generator, data: Dataset, seed: int, asked: dict[str, Any]) -> Iterator[Block]:
    """Samples block by block, as `Generator.blocks` gives them, that have what the rows of `data` have."""
    if asked["temperature"] != 1 or asked["truncation"]:
        raise UserError(
            f"--given: found temperature {asked['temperature']} and truncation {asked['truncation']}, expected 1 and "
            "0: what is given decides how likely a draw is; leave them out"
        )
    labels = resolve(generator.density, len(data), seed, asked["labels"])
    for start, block in generator.completed(data, 1, seed, asked["values"], labels):
        values = {name: array[0] for name, array in block.items()}
        size = len(values[data.modalities[0].name])
        yield start, values, None if labels is None else labels[start : start + size]
