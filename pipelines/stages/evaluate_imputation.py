"""Stages `evaluate-imputation-baselines` and `evaluate-imputation`: hide test values and score how they are imputed."""

from pathlib import Path
from typing import Any

from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.imputation import Questions, baseline_imputers, through
from postprior.pipelines.metrics.imputation.scores import SCORES, RowScores
from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import Artefact, load_artefact, save_artefact, write_json
from postprior.pipelines.tracking.runs import track

KIND = "recovery"  # as the files of every format call it
BASELINES = "baselines"  # the name of the results of other imputers; no density has it


def evaluate_baseline_imputers(params: Params, root: Path) -> None:
    """Impute what was hidden by scikit-learn's imputers; results/imputation/baselines.json.

    Scores of every row are kept for the densities. An imputer that fails says why.
    """
    project = Project(root)
    asked = Questions.of(project.splits(), params)
    with track("evaluate-imputation-baselines", params, root) as run:
        run.dataset(project.artefacts.data / "train", asked.train.hash)
        neighbours, trials = baseline_imputers(asked, params.seed)
        scores: dict[str, Any] = {of: {} for of in asked.tasks}
        arrays: dict[str, Floats] = {}
        failed: dict[str, str] = {}
        with progress("evaluate-imputation baselines", len(trials)) as step:
            for name, trial in trials.items():
                found = trial()
                for of, task in asked.tasks.items():
                    own = found if isinstance(found, Missing) else found[of]
                    scores[of][name] = task.told(own, asked.weights)
                    if isinstance(own, Missing):
                        failed[f"{of}.{name}"] = own.why
                    else:
                        arrays |= {f"{of}.{name}.{key}": values for key, values in own.items()}
                step(f"{name}: {found.why}" if isinstance(found, Missing) else name)
        known = asked.about | ({"failed": failed} if failed else {})
        save_artefact(project.artefacts.baseline_imputers, KIND, known, arrays=arrays)
        write_json(project.results.scores("imputation", BASELINES), asked.written(scores | neighbours))


def evaluate_imputation(name: str, params: Params, root: Path) -> None:
    """Impute what was hidden through density `name`; results/imputation/<name>.json."""
    from postprior.pipelines.generation.generator import Generator

    project = Project(root)
    asked = Questions.of(project.splits(), params)
    with track("evaluate-imputation", params, root, density=name) as run:
        run.dataset(project.artefacts.data / "train", asked.train.hash)
        known = load_artefact(project.artefacts.baseline_imputers, KIND)
        if any(known.manifest.get(key) != value for key, value in asked.about.items()):
            raise UserError(
                f"{project.artefacts.baseline_imputers}: baseline imputers of other data or settings found, "
                "expected those of this project; run postprior evaluate-imputation --baselines"
            )
        generator = Generator.load(project.artefacts.densities / name)
        classifiers = load_evaluators(project.artefacts.evaluators).classifiers
        scores = {of: through(generator, classifiers, of, asked, others(known, of), params.seed) for of in asked.tasks}
        write_json(project.results.scores("imputation", name), asked.written(scores))


def others(known: Artefact, of: str) -> dict[str, RowScores]:
    """What the other imputers reached in a task, by name."""
    names = {key.split(".")[1] for key in known.arrays if key.startswith(f"{of}.")}
    found: dict[str, RowScores] = {name: {key: known.arrays[f"{of}.{name}.{key}"] for key in SCORES} for name in names}
    failed = {tuple(key.split(".")): why for key, why in known.manifest.get("failed", {}).items()}
    return found | {name: Missing(why) for (task, name), why in failed.items() if task == of}
