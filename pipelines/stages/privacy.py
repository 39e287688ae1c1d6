"""Stage `privacy`: test whether samples of a density reveal rows that it and its autoencoder were trained on."""

from pathlib import Path

from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.project import Project, check_origin
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.scoring import privacy as scoring
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking.runs import track


def privacy(name: str, params: Params, root: Path) -> None:
    """Test artefacts/synthetic/<name> and more draws; write results/privacy/<name>.json and artefacts/privacy."""
    project = Project(root)
    generator, synthetic = Generator.load(project.artefacts.densities / name), project.synthetic(name)
    check_density(synthetic, generator)
    with track("privacy", params, root, density=name) as run:
        run.dataset(project.artefacts.synthetic / name, synthetic.hash)
        codes = {split: load_codes(project.artefacts.codes / split) for split in SPLITS}
        scoring.privacy(name, generator, synthetic, project.splits(), codes, params).save(project, name)


def check_density(synthetic: Dataset, generator: Generator) -> None:
    """Raise a UserError if samples are of another density, or if their codes cannot be drawn again."""
    found, expected = synthetic.provenance.get("density"), generator.provenance["density"]
    check_origin(synthetic.folder, "density", found, expected, "generate")
    if isinstance(synthetic.provenance["labels"], str):
        raise UserError(
            f"{synthetic.folder}: found samples of {synthetic.provenance['labels']}, expected counts of labels, or "
            "labels drawn by the density, so that the same codes can be drawn again; run postprior generate again"
        )
