"""Stage `train-evaluators`: train the evaluators, which all scores use, on real data."""

from pathlib import Path

from postprior.pipelines.artefacts.evaluators import save_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.metrics.features.fitting import evaluator_scores, fit_evaluators
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import write_json
from postprior.pipelines.tracking.runs import track


def train_evaluators(params: Params, root: Path) -> None:
    """Fit the evaluators; write artefacts/evaluators and results/metrics/evaluators.json."""
    project = Project(root)
    train, test = project.train_and_test()
    with track("train-evaluators", params, root) as run:
        run.dataset(project.artefacts.data / "train", train.hash)
        evaluators = fit_evaluators(train, params, root, run.metrics)
        save_evaluators(project.artefacts.evaluators, evaluators, train.hash)
        scores = evaluator_scores(evaluators, test, params.seed)
        write_json(project.results.scores("metrics", "evaluators"), scores)
