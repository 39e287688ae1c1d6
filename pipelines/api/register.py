"""The command `register`: store a generator in MLflow's model registry as code and arrays; nothing is pickled."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.settings.checks import check_density
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking import client as mlflow_client
from postprior.pipelines.tracking.runs import Run, track

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

ALIASES = r"(?i:(?!latest$|v\d+$)[\w-]+)"  # aliases that MLflow allows
REQUIREMENTS = ("mlflow", "normflows", "numpy", "pydantic", "ruamel.yaml", "safetensors", "torch")
PARAMETERS = {"n": ("long", 100), "seed": ("long", 0), "temperature": ("double", 1.0), "complete": ("boolean", False)}
SHOWN = 2  # number of labels in the example, and of samples per label


def register(name: str, params: Params, root: Path, model: str | None = None, alias: str = "champion") -> str:
    """Log and register the generator of density `name` and give the new version an alias; return a line about it.

    `model` is its name in the registry, postprior-<name> if None. The alias moves from the version that has it to the
    new version.
    """
    if not re.fullmatch(ALIASES, alias):
        raise UserError(
            f"--alias: found '{alias}', expected letters, digits, - and _, but not latest and not a version such as v1"
        )
    check_density(params, name)
    folders = Project(root).artefacts
    generator = Generator.load(folders.densities / name)
    uri = mlflow_client.address(root)
    if uri is None:
        raise UserError(
            "MLFLOW_TRACKING_URI: found off, expected a tracking server or database for the model; unset it"
        )
    title, lines = model or f"postprior-{name}", list[str]()
    artifacts = {"density": folders.densities / name, "autoencoder": folders.autoencoder}
    tags = {"density": name, "stores_training_codes": str(generator.density.stores_training_codes).lower()}

    def log(client: MlflowClient) -> None:
        create(client, title)  # first, because it fails if there is no registry
        with mlflow_client.undisturbed(MLFLOW_TRACKING_URI=uri):
            source = log_model(run, generator, artifacts)
        logged = client.create_model_version(title, source, run.id, tags, model_id=source.rpartition("/")[-1])
        client.set_registered_model_alias(title, alias, logged.version)
        lines.append(f"models:/{title}@{alias} is version {logged.version}: density {name} of {params.vae.model}")

    with track("register", params, root, density=name, on_failure=refuse) as run:
        run.call(log)
    return lines[0]


def refuse(reason: str) -> None:
    """Raise a UserError instead of a warning if logging fails, because the command has no other result."""
    raise UserError(
        f"MLflow: could not register the model ({reason}); expected a tracking server or database with a model "
        "registry in MLFLOW_TRACKING_URI, and a name and an alias that MLflow allows"
    )


def create(client: MlflowClient, title: str) -> None:
    """Create the model in the registry, unless it exists."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(title)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def log_model(run: Run, generator: Generator, artifacts: dict[str, Path]) -> str:
    """Log the model under the run and return its URI."""
    import mlflow

    with mlflow.start_run(run_id=run.id), uncompiled():
        logged = mlflow.pyfunc.log_model(
            name="generator",
            python_model=str(_location("postprior.pipelines.generation.served")),
            artifacts={name: str(folder.resolve()) for name, folder in artifacts.items()},
            code_paths=[str(path) for path in code(generator)],
            pip_requirements=requirements(),
            signature=signature(generator),
            input_example=example(generator),
            metadata={"labels": list(generator.label_names or ()), **generator.provenance},
        )
    return str(logged.model_uri)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Write no compiled modules: MLflow imports the code where it is about to store it."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def signature(generator: Generator) -> ModelSignature:
    """Return the signature: a table of labels and counts, which may be empty, and parameters; arrays per modality."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    drawn = generator.sample(1)
    return ModelSignature(
        Schema([ColSpec("string", "label", required=False), ColSpec("long", "count", required=False)]),
        Schema([TensorSpec(np.dtype(a.dtype), (-1, *a.shape[1:]), name) for name, a in drawn.arrays.items()]),
        ParamSchema([ParamSpec(name, kind, value) for name, (kind, value) in PARAMETERS.items()]),
    )


def example(generator: Generator) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return an example input: a table and parameters."""
    import pandas as pd

    parameters = {name: value for name, (_, value) in PARAMETERS.items()} | {"n": SHOWN}
    classes = generator.density.classes
    if not classes.labelled:
        return pd.DataFrame(), parameters
    numbers = classes.labels[:SHOWN].tolist()
    labels = [classes.names[number] if classes.names else str(number) for number in numbers]
    return pd.DataFrame({"label": labels, "count": [SHOWN] * len(labels)}), parameters


def requirements() -> list[str]:
    """Return requirements of the model's code at the installed versions, without local parts such as +cpu."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS]


def code(generator: Generator) -> list[Path]:
    """Return the packages that the model needs: postprior, and the packages of user-defined networks."""
    names = {"postprior", *(path.partition(":")[0].partition(".")[0] for path in generator.model.own_code)}
    return [_location(name) for name in sorted(names)]


def _location(package: str) -> Path:
    """Return the folder of a package, or the file of a module."""
    spec = find_spec(package)
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ()), str(spec.origin)))
