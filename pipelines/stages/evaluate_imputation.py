"""Stages `evaluate-imputation-baselines` and `evaluate-imputation`: hide test values and score their imputations."""

from pathlib import Path
from typing import Any

from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.baseline_imputers import baseline_imputers
from postprior.pipelines.generation.imputation import ImputationBenchmark, density_scores
from postprior.pipelines.metrics.imputation.scores import SCORES, RowScores
from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import Artefact, load_artefact, save_artefact, write_json
from postprior.pipelines.tracking.runs import track

KIND = "recovery"  # the stored name in every format
BASELINES = "baselines"  # name of the results of the baseline imputers; no density has it


def evaluate_baseline_imputers(params: Params, root: Path) -> None:
    """Impute the hidden values with the baseline imputers; write results/imputation/baselines.json.

    The scores of every row are stored for the comparison with densities. If an imputer fails, the reason is stored.
    """
    project = Project(root)
    benchmark = ImputationBenchmark.from_splits(project.splits(), params)
    with (
        track("evaluate-imputation-baselines", params, root) as run,
        progress("evaluate-imputation baselines", 2) as part,
    ):
        run.dataset(project.artefacts.data / "train", benchmark.train.hash)
        neighbours, trials = baseline_imputers(benchmark, params.seed) if benchmark.tasks else ({}, {})
        part("number of neighbours")
        scores: dict[str, Any] = {task_name: {} for task_name in benchmark.tasks}
        arrays: dict[str, Floats] = {}
        failed: dict[str, str] = {}
        with progress("imputers", len(trials)) as step:
            for name, trial in trials.items():
                result = trial()
                for task_name, task in benchmark.tasks.items():
                    row_scores = result if isinstance(result, Missing) else result[task_name]
                    scores[task_name][name] = task.summarise(row_scores, benchmark.weights)
                    if isinstance(row_scores, Missing):
                        failed[f"{task_name}.{name}"] = row_scores.why
                    else:
                        arrays |= {f"{task_name}.{name}.{key}": values for key, values in row_scores.items()}
                step(f"{name}: {result.why}" if isinstance(result, Missing) else name)
        manifest = benchmark.provenance | ({"failed": failed} if failed else {})
        save_artefact(project.artefacts.baseline_imputers, KIND, manifest, arrays=arrays)
        write_json(project.results.scores("imputation", BASELINES), benchmark.results(scores | neighbours))


def evaluate_imputation(name: str, params: Params, root: Path) -> None:
    """Impute the hidden values through density `name`; write results/imputation/<name>.json."""
    from postprior.pipelines.generation.generator import Generator

    project = Project(root)
    benchmark = ImputationBenchmark.from_splits(project.splits(), params)
    with (
        track("evaluate-imputation", params, root, density=name) as run,
        progress(f"evaluate-imputation {name}", len(benchmark.tasks)) as step,
    ):
        run.dataset(project.artefacts.data / "train", benchmark.train.hash)
        baselines = load_artefact(project.artefacts.baseline_imputers, KIND)
        if any(baselines.manifest.get(key) != value for key, value in benchmark.provenance.items()):
            raise UserError(
                f"{project.artefacts.baseline_imputers}: found baseline imputers with other data or settings, "
                "expected those of this project; run postprior evaluate-imputation --baselines"
            )
        generator = Generator.load(project.artefacts.densities / name)
        classifiers = load_evaluators(project.artefacts.evaluators).classifiers
        scores = {}
        for task in benchmark.tasks:
            known = baseline_scores(baselines, task)
            scores[task] = density_scores(generator, classifiers, task, benchmark, known, params.seed)
            step(task)
        write_json(project.results.scores("imputation", name), benchmark.results(scores))


def baseline_scores(baselines: Artefact, task: str) -> dict[str, RowScores]:
    """Return the scores of the baseline imputers in a task, by name."""
    arrays, failed = baselines.arrays, baselines.manifest.get("failed", {})
    names = {key.split(".")[1] for key in arrays if key.startswith(f"{task}.")}
    scores: dict[str, RowScores] = {name: {key: arrays[f"{task}.{name}.{key}"] for key in SCORES} for name in names}
    prefix = f"{task}."
    return scores | {key.removeprefix(prefix): Missing(why) for key, why in failed.items() if key.startswith(prefix)}
