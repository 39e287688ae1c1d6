"""Stages `utility-real` and `utility`: train label classifiers on real rows and on synthetic rows."""

from functools import partial
from pathlib import Path

from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.scoring import utility as scoring
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking.runs import track


def utility_of_real(params: Params, root: Path) -> None:
    """Train classifiers on real rows, one set per seed, store and test them; write results/utility/real.json."""
    project = Project(root)
    train, test = project.train_and_test()
    with track("utility-real", params, root) as run:
        run.dataset(project.artefacts.data / "train", train.hash)
        scoring.utility_of_real(train, test, params).save(project, scoring.REAL)


def utility(name: str, params: Params, root: Path) -> None:
    """Train on samples of a density and test on real rows, and vice versa; write results/utility/<name>.json."""
    project = Project(root)
    train, test = project.train_and_test()
    generator = partial(Generator.load, project.artefacts.densities / name)
    evaluators = partial(load_evaluators, project.artefacts.evaluators)
    with track("utility", params, root, density=name) as run:
        run.dataset(project.artefacts.data / "train", train.hash)
        real = project.artefacts.real_utility
        scoring.utility(name, generator, evaluators, real, train, test, params).save(project, name)
