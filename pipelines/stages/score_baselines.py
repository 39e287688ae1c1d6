"""Stage `score-baselines`: score the baselines with the same function as the densities."""

from pathlib import Path

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.generation.row_factors import RowFactors
from postprior.pipelines.scoring import baselines
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import folder_hash
from postprior.pipelines.tracking.runs import track


def score_baselines(params: Params, root: Path) -> None:
    """Score the baselines and the autoencoder; write artefacts/baselines and results/metrics."""
    project = Project(root)
    model, trained = load_autoencoder(project.artefacts.autoencoder)
    evaluators, codes = load_evaluators(project.artefacts.evaluators), load_codes(project.artefacts.codes / "test")
    train, test = project.train_and_test()
    with track("score-baselines", params, root) as run:
        run.dataset(project.artefacts.data / "test", test.hash)
        judges = folder_hash(project.artefacts.evaluators)
        hashes = {"autoencoder": trained.hash, "judges": judges, "data": test.hash}
        refiner, factors = project.artefacts.refiner, RowFactors.from_description(trained.manifest)
        scored = baselines.score_baselines(model, evaluators, codes, train, test, hashes, params, refiner, factors)
        scored.save(project)
