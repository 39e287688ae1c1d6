"""A small trained project, which the real stages make once per test run, an MLflow database, and a console script."""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.once import once, shared_base, state
from support.project import REPOSITORY, small, write_params
from support.warm import console_script

from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.params import Params

collect_ignore = ["fixtures", "support/multivae_models.py"]  # the second imports MultiVae
LONGEST = (
    *("test_dvc.py", "test_random_data.py", "test_training.py", "test_worker.py", "test_densities.py"),
    *("test_additions.py", "test_tracking.py", "test_missing_scores.py", "test_code_sets.py", "test_flow_matching.py"),
    *("test_cli.py", "test_kills.py", "test_disks.py", "test_observed_values.py", "test_formats.py", "test_ranks.py"),
)
"""Files that take longest. They come first, so that no process still works on one when the others have nothing left."""


gc.disable()  # until all tests are collected: nearly all objects stay until the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order of all other tests stays."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """Look for garbage again, but not among the tests and libraries, neither while tests run nor at the end."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _untracked() -> Iterator[None]:
    """Stages log nothing to MLflow, whose import takes longer than most tests; tests of tracking set an address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "off")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


def migrate(folder: Path) -> None:
    """Make a folder with an empty MLflow database, whose migrations take seconds."""
    from postprior.pipelines.tracking.client import connect, undisturbed

    folder.mkdir()
    with undisturbed():
        connect(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, which is made once per run; tests that log write to a copy."""
    return once(shared_base(tmp_path_factory), "mlflow", migrate) / "mlflow.db"


@pytest.fixture(scope="session")
def database(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of an MLflow database, one per process."""
    return f"sqlite:///{shutil.copy(migrated, tmp_path_factory.mktemp('mlflow'))}"


@pytest.fixture
def tracked(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Stages log to the database, at this address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    return database


def train_small(root: Path) -> None:
    """Make a project with data, evaluators, an autoencoder, codes and the densities `normal` and `gmm`."""
    from postprior.pipelines.stages.encode import encode
    from postprior.pipelines.stages.fit import fit
    from postprior.pipelines.stages.prepare import prepare
    from postprior.pipelines.stages.train import train
    from postprior.pipelines.stages.train_evaluators import train_evaluators

    params = write_params(root, small())
    for stage in (prepare, train_evaluators, train, encode):
        stage(params, root)
    for name in ("normal", "gmm"):
        fit(name, params, root)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Params]]:
    """A small trained project: root and settings. It is trained once per run; tests that write work on a copy."""
    made = once(shared_base(tmp_path_factory), "trained-project", train_small)
    root = tmp_path_factory.mktemp("trained") / "project"
    shutil.copytree(made, root)
    before = state(root)
    yield root, load_params(root / "params.yaml")
    assert state(root) == before, "a test wrote into the trained project, which other tests read"


@pytest.fixture
def short_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hamiltonian Monte Carlo, which the model jnf draws with, warms up for 4 transitions in place of 60.

    For tests of shapes, order and bytes, which hold wherever the chains are.
    """
    from postprior.stage1_vae.hmc import hamiltonian_draws

    assert hamiltonian_draws.__kwdefaults__["warmup"] > 4
    monkeypatch.setitem(hamiltonian_draws.__kwdefaults__, "warmup", 4)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for PATH with the script `postprior`, whose processes have the libraries already."""
    with console_script(tmp_path_factory.mktemp("warm")) as folder:
        yield folder


@pytest.fixture(scope="module")
def examples() -> Iterator[None]:
    """Make the scripts of docs/examples importable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "docs/examples")
        yield
