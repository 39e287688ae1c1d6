"""Stages `recover-baselines` and `recover`: what test rows have is hidden, and imputed by others and by a density."""

from pathlib import Path
from typing import Any

from postprior.pipelines.artefacts.evaluators import load_judges
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.recovery import Questions, other_imputers, through
from postprior.pipelines.metrics.imputation.scores import SCORES, Found
from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import Artefact, load_artefact, save_artefact, write_json
from postprior.pipelines.tracking.runs import track

KIND = "recovery"
BASELINES = "baselines"  # the name of the results of other imputers; no density has it


def recover_by_baselines(params: Params, root: Path) -> None:
    """Impute what was hidden by scikit-learn's imputers; results/recovery/baselines.json.

    Scores of every row are kept for the densities. An imputer that fails says why.
    """
    project = Project(root)
    asked = Questions.of(project.splits(), params)
    with track("recover-baselines", params, root) as run:
        run.dataset(project.artefacts.data / "train", asked.train.hash)
        neighbours, trials = other_imputers(asked, params.seed)
        scores: dict[str, Any] = {of: {} for of in asked.tasks}
        arrays: dict[str, Floats] = {}
        failed: dict[str, str] = {}
        with progress("recover baselines", len(trials)) as step:
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
        save_artefact(project.artefacts.other_imputers, KIND, known, arrays=arrays)
        write_json(project.results.scores("recovery", BASELINES), asked.written(scores | neighbours))


def recover(name: str, params: Params, root: Path) -> None:
    """Impute what was hidden through density `name`; results/recovery/<name>.json."""
    from postprior.pipelines.generation.generator import Generator

    project = Project(root)
    asked = Questions.of(project.splits(), params)
    with track("recover", params, root, density=name) as run:
        run.dataset(project.artefacts.data / "train", asked.train.hash)
        known = load_artefact(project.artefacts.other_imputers, KIND)
        if any(known.manifest.get(key) != value for key, value in asked.about.items()):
            raise UserError(
                f"{project.artefacts.other_imputers}: other imputers of other data or settings found, expected those "
                "of this project's; run postprior recover --baselines"
            )
        generator = Generator.load(project.artefacts.densities / name)
        judges = load_judges(project.artefacts.judges).judges
        scores = {of: through(generator, judges, of, asked, others(known, of), params.seed) for of in asked.tasks}
        write_json(project.results.scores("recovery", name), asked.written(scores))


def others(known: Artefact, of: str) -> dict[str, Found]:
    """What the other imputers reached in a task, by name."""
    names = {key.split(".")[1] for key in known.arrays if key.startswith(f"{of}.")}
    found: dict[str, Found] = {name: {key: known.arrays[f"{of}.{name}.{key}"] for key in SCORES} for name in names}
    failed = {tuple(key.split(".")): why for key, why in known.manifest.get("failed", {}).items()}
    return found | {name: Missing(why) for (task, name), why in failed.items() if task == of}
