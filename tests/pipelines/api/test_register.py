"""Registered generators: another process draws the same bytes from code and arrays only."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from postprior.pipelines.api.register import code, register
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.served import ServedGenerator, counts
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking.groups import PARENT

NAME = "posteriors made up"  # a space, as registries allow


@pytest.fixture(scope="module", autouse=True)
def _tracked(database: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", database)
        yield


@pytest.fixture(scope="module")
def registered(trained: tuple[Path, Params]) -> tuple[Path, Params, str]:
    """The trained project, and the line that `register` returns for its mixture."""
    root, params = trained
    return root, params, register("gmm", params, root, NAME, "champion")


@pytest.fixture(scope="module")
def client(registered: tuple[Path, Params, str], database: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(database)


@pytest.fixture(scope="module")
def folder(client: Any) -> Path:
    """The files of the registered model."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(client.get_model_version_download_uri(NAME, "1")))


def in_another_process(script: str, folder: Path) -> str:
    """The output of code in a new process that does not see the repository."""
    answer = subprocess.run(
        [sys.executable, "-B", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_another_process_draws_the_same_bytes(registered: tuple[Path, Params, str], tmp_path: Path) -> None:
    root, params, told = registered
    assert told == f"models:/{NAME}@champion is version 1: density gmm of {params.vae.model}"
    script = f"""
import inspect, mlflow, numpy, pandas
model = mlflow.pyfunc.load_model("models:/{NAME}@champion")
import postprior
served = inspect.getfile(type(model.unwrap_python_model()))
from postprior import pipelines, stage1_vae, stage2_latent
print(postprior.__file__, pipelines.__file__, stage1_vae.__file__, stage2_latent.__file__, served, sep="\\n")
asked = pandas.DataFrame({{"label": ["3", "8"], "count": [2, 5]}})
for name, drawn in {{
    "drawn": model.predict([], params={{"n": 300, "seed": 5}}),
    "asked": model.predict(asked, params={{"seed": 2, "temperature": 0.7}}),
    "usual": model.predict({{}}),
}}.items():
    numpy.savez(name, **drawn)
"""
    places = in_another_process(script, tmp_path).splitlines()[-5:]
    assert all("/artifacts/" in place for place in places), places
    generator = Generator.load(root / "artefacts/densities/gmm")
    expected = {
        "drawn": generator.sample(300, seed=5),
        "asked": generator.sample(seed=2, labels={"3": 2, "8": 5}, temperature=0.7),
        "usual": generator.sample(100, seed=0),
    }
    for name, dataset in expected.items():
        found = np.load(tmp_path / f"{name}.npz")
        assert set(found) == {*dataset.data, "labels"}
        for key, array in {**dataset.data, "labels": dataset.labels}.items():
            assert found[key].dtype == array.dtype
            assert found[key].tobytes() == array.tobytes()


def test_nothing_is_pickled_and_metadata_are_complete(folder: Path, client: Any) -> None:
    from mlflow.models import Model

    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".joblib", ".pyc"))]
    assert {
        "served.py",
        "code/postprior/pipelines/generation/generator.py",
        "artifacts/gmm/tensors.safetensors",
    } <= names
    model = Model.load(folder)
    assert Path(model.flavors["python_function"]["model_code_path"]).name == "served.py"
    assert "python_model" not in model.flavors["python_function"]
    assert [p.name for p in model.signature.params] == ["n", "seed", "temperature", "complete"]
    assert model.signature.inputs.input_names() == ["label", "count"]
    assert model.signature.outputs.input_names() == ["m0", "m1", "m2", "m3", "m4", "labels"]
    assert model.signature.outputs.inputs[0].shape == (-1, 3, 16, 16)
    assert model.metadata["labels"] == list("0123456789")
    example = json.loads((folder / "serving_input_example.json").read_text())
    assert example["dataframe_split"]["data"] == [["0", 2], ["1", 2]]
    needed = (folder / "requirements.txt").read_text().split()
    assert all("==" in line and "+" not in line for line in needed)
    assert {"torch", "mlflow", "numpy", "safetensors"} <= {line.partition("==")[0] for line in needed}
    version = client.get_model_version(NAME, "1")
    assert version.tags == {"density": "gmm", "stores_training_codes": "false"}


@pytest.mark.slow
def test_its_code_needs_no_more_than_its_requirements(folder: Path) -> None:
    """Of the dependencies of the project, exactly those that are loaded for drawing are required."""
    script = """
import sys
sys.path[:0] = ["code"]
from postprior.pipelines.generation.generator import Generator
Generator.load("artifacts/gmm", "artifacts/autoencoder").sample(1)
from importlib.metadata import packages_distributions
found = packages_distributions()
names = {name.partition(".")[0] for name in sys.modules} | {"ruamel"}
print(*{other for name in names for other in found.get(name, [])})
"""
    loaded = set(in_another_process(script, folder).split())
    needed = {line.partition("==")[0] for line in (folder / "requirements.txt").read_text().split()}
    project = {
        "dvc",
        "jinja2",
        "matplotlib",
        "pillow",
        "pyarrow",
        "rich",
        "scikit-learn",
        "scipy",
        "typer",
    }
    assert not loaded & project - needed
    assert needed - {"mlflow"} <= loaded  # and nothing is required that nothing loads


def test_the_run_lies_beneath_its_experiment_and_a_new_version_takes_the_alias(
    registered: tuple[Path, Params, str], client: Any
) -> None:
    root, params, _ = registered
    assert "version 2" in register("normal", params, root, NAME, "champion")
    version = client.get_model_version_by_alias(NAME, "champion")
    assert (version.version, version.tags["density"]) in ((2, "normal"), ("2", "normal"))
    run = client.get_run(version.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "register normal")
    assert run.data.tags[PARENT]
    client.set_registered_model_alias(NAME, "champion", "1")


def test_a_density_without_labels_takes_none(registered: tuple[Path, Params, str]) -> None:
    model = ServedGenerator()
    model.generator = Generator.load(registered[0] / "artefacts/densities/normal")
    assert "labels" not in model.predict(None, pd.DataFrame(), {"n": 3, "seed": 0, "temperature": 1.0})
    with pytest.raises(UserError, match="labels: density normal was fitted without labels"):
        model.predict(None, pd.DataFrame({"label": ["3"], "count": [1]}))


def test_user_defined_networks_are_registered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alone.py").touch()
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/__init__.py").touch()
    (tmp_path / "packed/deep.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    own_code = ["alone:Encoder", "packed.deep:Decoder"]
    generator = Generator(SimpleNamespace(own_code=own_code), None, {})  # type: ignore[arg-type]
    names = [path.name for path in code(generator)]
    assert names == ["alone.py", "packed", "postprior"]


def test_tables_of_labels() -> None:
    assert counts(pd.DataFrame({"label": [3, 8, 3], "count": [1.0, 2, 4]})) == {"3": 5, "8": 2}
    assert counts(pd.DataFrame()) is counts(pd.DataFrame({"label": [], "count": []})) is None
    with pytest.raises(UserError, match="labels: found no column count, expected the columns label and count"):
        counts(pd.DataFrame({"label": ["3"]}))


def test_mistakes_are_one_sentence(trained: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    root, params = trained
    with pytest.raises(UserError, match=r"found 'gmmm', which is not a known density \(did you mean gmm\?\)"):
        register("gmmm", params, root)
    with pytest.raises(UserError, match=r"densities/kde/manifest.json: no such file; run the stage"):
        register("kde", params, root)
    for alias in ("v 1", "v1", "latest", ""):
        with pytest.raises(UserError, match=f"--alias: found '{alias}', expected letters"):
            register("gmm", params, root, alias=alias)
    with pytest.raises(UserError, match=r"could not register the model .*Names cannot contain"):
        register("gmm", params, root, "a/b")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "off")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI: found off, expected a tracking server or database"):
        register("gmm", params, root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"could not register the model .*Connection refused"):
        register("gmm", params, root)


@pytest.fixture
def server(registered: tuple[Path, Params, str], tmp_path: Path) -> Iterator[str]:
    """The address of `mlflow models serve` with the registered model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": path},
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/ping", timeout=5)
                break
            except OSError:
                time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.mark.slow
def test_a_server_answers(server: str, registered: tuple[Path, Params, str]) -> None:
    asked = {"dataframe_records": [{"label": "3", "count": 2}], "params": {"seed": 4}}
    request = urllib.request.Request(
        f"{server}/invocations", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        found = json.load(answer)["predictions"]
    expected = Generator.load(registered[0] / "artefacts/densities/gmm").sample(seed=4, labels={"3": 2})
    assert found["labels"] == expected.labels.tolist() == [3, 3]
    for name, array in expected.data.items():
        np.testing.assert_array_equal(np.array(found[name], np.float32), array)
