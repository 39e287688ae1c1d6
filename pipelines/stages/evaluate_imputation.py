"""Stages `evaluate-imputation-baselines` and `evaluate-imputation`: hide test values and score their imputations."""

from pathlib import Path

from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.imputation import ImputationBenchmark
from postprior.pipelines.scoring.imputation import baseline_imputer_scores, imputation_scores
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import write_json
from postprior.pipelines.tracking.runs import track


def evaluate_baseline_imputers(params: Params, root: Path) -> None:
    """Impute the hidden values with the baseline imputers; write results/imputation/baselines.json."""
    project = Project(root)
    benchmark = ImputationBenchmark.from_splits(project.splits(), params)
    with track("evaluate-imputation-baselines", params, root) as run:
        run.dataset(project.artefacts.data / "train", benchmark.train.hash)
        baseline_imputer_scores(benchmark, params.seed).save(project)


def evaluate_imputation(name: str, params: Params, root: Path) -> None:
    """Impute the hidden values through density `name`; write results/imputation/<name>.json."""
    project = Project(root)
    benchmark = ImputationBenchmark.from_splits(project.splits(), params)
    generator = Generator.load(project.artefacts.densities / name)
    evaluators = load_evaluators(project.artefacts.evaluators)
    with track("evaluate-imputation", params, root, density=name) as run:
        run.dataset(project.artefacts.data / "train", benchmark.train.hash)
        scores = imputation_scores(name, generator, evaluators, benchmark, project, params.seed)
        write_json(project.results.scores("imputation", name), scores)
