"""Stage `generate`: generate a synthetic dataset of any size in bounded memory; it has labels if the data have."""

from dataclasses import replace
from pathlib import Path

from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.data.manifest import Manifest, labelled_in
from postprior.pipelines.data.source_values import SourceValues
from postprior.pipelines.data.writing import writing
from postprior.pipelines.generation.completion import tiled
from postprior.pipelines.generation.generator import ROWS, Generator
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.space import check_space
from postprior.pipelines.storage import folder_hash
from postprior.pipelines.tracking.runs import track


def generate(
    name: str,
    params: Params,
    root: Path,
    request: SampleRequest | None = None,
    out: Path | None = None,
    given: Path | None = None,
) -> None:
    """Generate a dataset from density `name`; write artefacts/synthetic/<name>, or `out`.

    `given` is a dataset folder: the samples have the values of its rows, repeated in their order, and all others are
    drawn given these values. Other samples lack values as training rows do, unless `complete` ones are requested. If a
    density has no labels, the label classifiers label its rows where there are any, and the provenance says so. Without
    a request, params.yaml has the settings.
    """
    project = Project(root)
    generator = Generator.load(project.artefacts.densities / name)
    request = SampleRequest.from_settings(params.generate) if request is None else request
    request = request if given is None else replace(request, complete=True)
    folder, size = project.artefacts.synthetic / name if out is None else out, request.size * generator.row_bytes
    check_space(f"samples: {request.size} rows", memory=0 if given is None else size, disk=size, place=folder)
    rows, labels = request.rows_and_labels(generator.density)
    provenance, names, evaluators = generator.describe(request), generator.label_names, None
    source_values: SourceValues = {}
    if given is None:
        blocks = generator.blocks(request)
    else:
        origin = Dataset.load(given)
        provenance["given"] = origin.hash
        origin = tiled(conformed(origin, generator.modalities, generator.conversion), rows)
        blocks = generator.blocks_given(origin, request)
        source_values = {name: values for name, values in origin.source_values.items() if name in origin.data}
        names = None if labels is None else names
    if names is None and labelled_in(project.artefacts.data / "train"):
        evaluators = load_evaluators(project.artefacts.evaluators)
        names = evaluators.label_names
        provenance["labels_from"] = None if names is None else "judges"
    missingness = generator.missingness_of(request)
    manifest = Manifest(generator.modalities, rows, names, provenance, generator.conversion)
    written = ([] if names is None else ["labels"]) + ([] if missingness is None else missingness.arrays)
    inputs = () if given is None else [given]
    writer = writing(folder, manifest, written, inputs=inputs, source_values=source_values)
    with track("generate", params, root, density=name) as run:
        with writer as write, progress(f"generate {name}", -(-rows // ROWS)) as step:
            for start, block in blocks:
                labels = None if evaluators is None else evaluators.label(block)
                write(start, block.arrays if labels is None else block.arrays | {"labels": labels})
                step("")
        run.dataset(folder, folder_hash(folder))
