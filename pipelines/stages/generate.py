"""Stage `generate`: generate a synthetic dataset of any size in bounded memory; it has labels if the data have."""

from functools import partial
from pathlib import Path

from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.artefacts.sharing import sharing_of
from postprior.pipelines.data.manifest import labelled_in
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.generation.writing import write_samples
from postprior.pipelines.settings.params import Params
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

    `given` is a dataset folder whose values the samples have (`write_samples`). Without a request, params.yaml has the
    settings.
    """
    project = Project(root)
    generator = Generator.load(project.artefacts.densities / name)
    request = SampleRequest.from_settings(params.generate) if request is None else request
    folder = project.artefacts.synthetic / name if out is None else out
    labelled = labelled_in(project.artefacts.data / "train")
    evaluators = partial(load_evaluators, project.artefacts.evaluators) if labelled else None
    sharing = sharing_of(project, params, "stages.generate", [project.artefacts.evaluators])
    with track("generate", params, root, density=name) as run:
        write_samples(generator, request, folder, evaluators, given, f"generate {name}", sharing)
        if sharing.ranks.is_first:
            run.dataset(folder, folder_hash(folder))
