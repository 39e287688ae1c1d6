"""Score imputations: hide test values, and compare what imputers and a density draw with the hidden values."""

from dataclasses import dataclass
from typing import Any

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.baseline_imputers import baseline_imputers
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.imputation import ImputationBenchmark, density_scores
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.metrics.imputation.scores import SCORES, RowScores
from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.progress import progress
from postprior.pipelines.storage import Artefact, load_artefact, save_artefact, write_json
from postprior.pipelines.threads import suited_to

KIND = "recovery"  # the stored name in every format
BASELINES = "baselines"  # name of the results of the baseline imputers; no density has it


@dataclass(frozen=True)
class ImputerScores:
    """The scores of the baseline imputers, and those of every row for the comparison with densities."""

    results: dict[str, Any]
    manifest: dict[str, Any]  # the data and settings of the benchmark, and why imputers failed
    arrays: dict[str, Floats]

    def save(self, project: Project) -> None:
        """Write artefacts/imputation/baselines and results/imputation/baselines.json."""
        save_artefact(project.artefacts.baseline_imputers, KIND, self.manifest, arrays=self.arrays)
        write_json(project.results.scores("imputation", BASELINES), self.results)


def baseline_imputer_scores(benchmark: ImputationBenchmark, seed: int) -> ImputerScores:
    """Impute the hidden values with the baseline imputers; if an imputer fails, the reason is kept."""
    with suited_to(benchmark.train.modalities), progress("evaluate-imputation baselines", 2) as part:
        neighbours, trials = baseline_imputers(benchmark, seed) if benchmark.tasks else ({}, {})
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
    return ImputerScores(benchmark.results(scores | neighbours), manifest, arrays)


def imputation_scores(
    name: str,
    generator: Generator,
    evaluators: Evaluators,
    benchmark: ImputationBenchmark,
    project: Project,
    seed: int,
) -> dict[str, Any]:
    """Impute the hidden values through a density; return the content of results/imputation/<name>.json.

    Raises:
        UserError: The project has no baseline imputers with this data and these settings.
    """
    baselines = load_artefact(project.artefacts.baseline_imputers, KIND)
    if any(baselines.manifest.get(key) != value for key, value in benchmark.provenance.items()):
        raise UserError(
            f"{project.artefacts.baseline_imputers}: found baseline imputers with other data or settings, "
            "expected those of this project; run postprior evaluate-imputation --baselines"
        )
    scores, tasks = {}, benchmark.tasks
    with suited_to(benchmark.train.modalities), progress(f"evaluate-imputation {name}", len(tasks) + 1) as step:
        rows = next((task.original for task in tasks.values()), None)  # all tasks have the same
        forests = None if rows is None else generator.cell_forests(benchmark.train, rows, seed)
        step("forests")
        for task in tasks:
            known = baseline_scores(baselines, task)
            scores[task] = density_scores(generator, evaluators.classifiers, task, benchmark, known, seed, forests)
            step(task)
    return benchmark.results(scores)


def baseline_scores(baselines: Artefact, task: str) -> dict[str, RowScores]:
    """Return the scores of the baseline imputers in a task, by name."""
    arrays, failed = baselines.arrays, baselines.manifest.get("failed", {})
    names = {key.split(".")[1] for key in arrays if key.startswith(f"{task}.")}
    scores: dict[str, RowScores] = {name: {key: arrays[f"{task}.{name}.{key}"] for key in SCORES} for name in names}
    prefix = f"{task}."
    return scores | {key.removeprefix(prefix): Missing(why) for key, why in failed.items() if key.startswith(prefix)}
