"""A small trained project, made once a session by the real stages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.project import REPOSITORY, small, write_params

from postprior.pipelines.settings.params import Params

collect_ignore = ["fixtures"]


@pytest.fixture(scope="session", autouse=True)
def _tracking(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One MLflow database for the session, whose migrations run once; tests of the tracking set their own."""
    with pytest.MonkeyPatch.context() as patch:
        database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """A project with data, judges, an autoencoder, codes and the densities `normal` and `gmm`: root and settings."""
    from postprior.pipelines.stages.encode import encode
    from postprior.pipelines.stages.fit import fit
    from postprior.pipelines.stages.prepare import prepare
    from postprior.pipelines.stages.train import train
    from postprior.pipelines.stages.train_evaluators import train_evaluators

    root = tmp_path_factory.mktemp("trained")
    params = write_params(root, small())
    for stage in (prepare, train_evaluators, train, encode):
        stage(params, root)
    for name in ("normal", "gmm"):
        fit(name, params, root)
    return root, params


@pytest.fixture(scope="module")
def examples() -> Iterator[None]:
    """Scripts of docs/examples can be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "docs/examples")
        yield
