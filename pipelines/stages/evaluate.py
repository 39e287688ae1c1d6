"""Stage `evaluate`: score a density in the same way as the stage `score-baselines` scores the baselines."""

from pathlib import Path

from postprior.pipelines.artefacts.baselines import Baselines
from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project, check_origin
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.scoring import evaluation
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import MANIFEST, folder_hash, read_json
from postprior.pipelines.tracking.runs import track


def evaluate(name: str, params: Params, root: Path) -> None:
    """Score artefacts/synthetic/<name> and conditional generation with <name>; write results/metrics/<name>.json.

    artefacts/evaluation/<name> has the half-samples of the scores of all modalities together, and some rows with
    generated modalities.
    """
    project = Project(root)
    synthetic, test = project.synthetic(name), project.dataset("test")
    generator = Generator.load(project.artefacts.densities / name)
    baselines, evaluators = Baselines.load(project.artefacts.baselines), load_evaluators(project.artefacts.evaluators)
    check_origins(project, synthetic, generator, baselines, test)
    with track("evaluate", params, root, density=name) as run:
        run.dataset(project.artefacts.synthetic / name, synthetic.hash)
        codes = {split: load_codes(project.artefacts.codes / split) for split in ("train", "test")}
        fitted = read_json(project.artefacts.densities / name / MANIFEST)
        evaluation.evaluate(name, generator, synthetic, test, codes, baselines, evaluators, fitted, params).save(
            project, name
        )


def check_origins(
    project: Project, synthetic: Dataset, generator: Generator, baselines: Baselines, test: Dataset
) -> None:
    """Raise a UserError if density, autoencoder, evaluators or test data differ from those of the baselines."""
    folder, provenance, manifest = synthetic.folder, generator.provenance, baselines.manifest
    evaluators = folder_hash(project.artefacts.evaluators)
    check_origin(folder, "density", synthetic.provenance.get("density"), provenance["density"], "generate")
    check_origin(folder, "autoencoder", provenance["autoencoder"], manifest["autoencoder"], "score-baselines")
    check_origin(folder, "evaluators", evaluators, manifest["judges"], "score-baselines")
    check_origin(folder, "test data", test.hash, manifest["data"], "score-baselines")
