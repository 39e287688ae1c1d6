"""Run all stages that score one density of a project, and write its report."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.compare import compare
from postprior.pipelines.stages.diagnose import diagnose
from postprior.pipelines.stages.evaluate import evaluate
from postprior.pipelines.stages.evaluate_imputation import evaluate_baseline_imputers, evaluate_imputation
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.privacy import privacy
from postprior.pipelines.stages.score_baselines import score_baselines
from postprior.pipelines.stages.train_evaluators import train_evaluators
from postprior.pipelines.stages.utility import utility, utility_of_real


def score(name: str, params: Params, root: Path) -> None:
    """Score density `name` of a trained project and write results/report.html, without the augmentation test."""
    params = params.model_copy(
        update={"densities": (name,), "augment": params.augment.model_copy(update={"sizes": ()})}
    )
    stages: dict[str, Callable[[Params, Path], None]] = {
        "evaluators": train_evaluators,
        "diagnostics": diagnose,
        "baselines": score_baselines,
        "samples": partial(generate, name),
        "scores": partial(evaluate, name),
        "utility of real rows": utility_of_real,
        "utility": partial(utility, name),
        "privacy": partial(privacy, name),
        "baseline imputers": evaluate_baseline_imputers,
        "imputation": partial(evaluate_imputation, name),
        "report": compare,
    }
    with progress("report", len(stages)) as step:
        for title, stage in stages.items():
            stage(params, root)
            step(title)
