"""A small trained project, made once a session by the real stages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_group

from postprior.pipelines.commands.app import app
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.params import Params

REPOSITORY = Path(__file__).parents[1]
COMMANDS = list(get_group(app).commands)
collect_ignore = ["fixtures"]


def small(**changes: Any) -> dict[str, Any]:
    """The settings of the repository at a size that trains in seconds; dotted keys (`vae__model`) change one each."""
    tree: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    tree["data"]["digits"] |= {"train": 300, "validation": 60, "test": 120}
    tree["judge"] |= {"epochs": 2, "features": 16}  # fewer than rows in half of the test split
    tree["vae"] |= {"latent": 4, "width": 4}
    tree["train"] |= {"epochs": 2, "device": "cpu"}
    tree["generate"]["samples"] = 60
    tree["evaluate"]["resamples"] = 20
    tree["utility"] |= {"seeds": [0, 1], "steps": 6}
    tree["augment"] |= {"sizes": [40], "seeds": [0], "steps": 4, "density": "kde"}
    for key, value in changes.items():
        *path, last = key.split("__")
        branch = tree
        for name in path:
            branch = branch[name]
        branch[last] = value
    return tree


def write_params(root: Path, tree: dict[str, Any]) -> Params:
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    return load_params(root / "params.yaml")


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
    from postprior.pipelines.stages.judge import judge
    from postprior.pipelines.stages.prepare import prepare
    from postprior.pipelines.stages.train import train

    root = tmp_path_factory.mktemp("trained")
    params = write_params(root, small())
    for stage in (prepare, judge, train, encode):
        stage(params, root)
    for name in ("normal", "gmm"):
        fit(name, params, root)
    return root, params


@pytest.fixture(scope="module")
def examples() -> Iterator[None]:
    """Scripts of docs/examples can be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "docs/examples")
        yield
