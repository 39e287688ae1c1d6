"""Small projects with results that stages made without an interruption."""

import shutil
from pathlib import Path

import pytest
from support.dvc import settings
from support.forked import Project, run
from support.once import once, shared_base
from support.project import write_params

QUICK = ("prepare", "fit gmm")
STAGES = (
    *("code", "prepare", "train-evaluators", "train", "encode", "diagnose", "score-baselines", "utility --real"),
    *("evaluate-imputation --baselines", "augment 40"),
    *(f"{stage} gmm_free" for stage in ("fit", "generate", "evaluate", "utility", "evaluate-imputation", "privacy")),
    "compare",
)


def run_all(root: Path) -> None:
    tree = settings()
    tree["densities"], tree["augment"]["seeds"], tree["train"]["epochs"] = ["gmm_free"], [0], 12
    write_params(root, tree)
    for words in STAGES:
        run(root, words)


@pytest.fixture(params=["quick", pytest.param("all", marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def project(request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project, first with the trained one and a few stages, then, in slow tests, with every stage."""
    if request.param == "quick":
        made, stages = request.getfixturevalue("trained")[0], QUICK
    else:
        made, stages = once(shared_base(tmp_path_factory), "every-stage", run_all), STAGES
    return Project(Path(shutil.copytree(made, tmp_path / "project")), stages)


@pytest.fixture
def is_slow(request: pytest.FixtureRequest) -> bool:
    """Whether the test is one of the slow ones."""
    return request.node.get_closest_marker("slow") is not None
