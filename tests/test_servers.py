"""Results of jobs elsewhere: MLflow's server with PostgreSQL, with and without its proxy of files, and a DVC remote."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.dvc import BINARIES, settings
from support.project import REPOSITORY
from support.report_project import make_project

from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.tracking.groups import SAMPLERS, STAGES
from postprior.pipelines.tracking.runs import track

QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
LIMIT = 300
"""Seconds in which a server must answer."""
PLACES = [Path("/usr/lib/postgresql").glob("*/bin"), map(Path, os.environ["PATH"].split(os.pathsep))]
POSTGRES = next((place for places in PLACES for place in places if (place / "initdb").exists()), None)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(*command: Any, answers: Callable[[], bool], **options: Any) -> Iterator[None]:
    """Run a server, from its first answer to the end of the block."""
    process = subprocess.Popen([*map(str, command)], **options)
    try:
        for _ in range(5 * LIMIT):
            assert process.poll() is None, f"{command[0]} ended"
            if answers():
                break
            time.sleep(0.2)
        else:
            raise AssertionError(f"{command[0]} does not answer")
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of a database of a PostgreSQL server, which refuses to run as root."""
    pytest.importorskip("psycopg", reason="MLflow reaches PostgreSQL through psycopg")
    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed")
    as_user: dict[str, Any] = {"user": "postgres", "cwd": "/"} if os.geteuid() == 0 else {"cwd": "/"}
    home, port = Path(tempfile.mkdtemp()), free_port()
    if as_user.get("user"):
        shutil.chown(home, "postgres")
    try:
        make = [POSTGRES / "initdb", "-D", home / "data", "-A", "trust", "-U", "ada", "-E", "UTF8", "--no-sync"]
        subprocess.run([*map(str, make)], check=True, **as_user, **QUIET)
        options = ("-p", port, "-k", home, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")
        ready = [str(POSTGRES / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        with running(
            *(POSTGRES / "postgres", "-D", home / "data", *options),
            answers=lambda: not subprocess.run(ready, check=False).returncode,
            **as_user,
            **QUIET,
        ):
            yield f"postgresql://ada@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(home, ignore_errors=True)


def is_healthy(server: str) -> bool:
    try:
        with urllib.request.urlopen(f"{server}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.parametrize("proxy", [True, False], ids=["through the server", "on a shared disk"])
def test_runs_and_files_reach_a_server_with_postgresql(
    proxy: bool, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files go through the server, which alone knows where they lie; or to a folder that clients see as well."""
    from mlflow import MlflowClient

    store, server = tmp_path / "files", f"http://127.0.0.1:{free_port()}"
    kept = ["--artifacts-destination", store] if proxy else ["--no-serve-artifacts", "--default-artifact-root", store]
    root = make_project(tmp_path / "project")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    options = ("--host", "127.0.0.1", "--port", server.rpartition(":")[2], "--workers", "1", *kept)
    with running(
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, *options),
        answers=lambda: is_healthy(server),
        **QUIET,
    ):
        client, names = MlflowClient(server), (STAGES, SAMPLERS)
        if not proxy:  # an experiment keeps its folder of files
            for name in names:
                client.rename_experiment(client.get_experiment_by_name(name).experiment_id, f"{name} of before")
        params = load_params(root / "params.yaml")
        with track("evaluate", params, root, density="gmm"):
            pass
        experiments = [client.get_experiment_by_name(name) for name in names]
        assert all(
            found.artifact_location.startswith("mlflow-artifacts:" if proxy else str(store)) for found in experiments
        )
        (run,) = client.search_runs([experiments[0].experiment_id], "tags.stage = 'evaluate'")
        assert run.info.status == "FINISHED"
        rows = client.search_runs([experiments[1].experiment_id], "tags.row = 'gmm'")
        assert rows[0].data.metrics
        for name in ("imputation/gmm.json", "privacy/gmm.json"):
            found = client.download_artifacts(rows[0].info.run_id, name, str(tmp_path))
            assert Path(found).read_bytes() == (root / "results" / name).read_bytes()
    assert [path for path in store.rglob("*") if path.is_file()]


@pytest.mark.skipif(
    not (BINARIES / "postprior").exists() or shutil.which("git") is None,
    reason="The console script postprior is not installed, or git is not",
)
def test_data_come_back_from_a_dvc_remote(tmp_path: Path) -> None:
    """What one machine has pushed is pulled into another clone, byte for byte, and no stage runs there."""
    root, clone = tmp_path / "project", tmp_path / "clone"
    environment = os.environ | {"PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    environment |= {"PYTHONPATH": str(REPOSITORY), "MLFLOW_TRACKING_URI": "off"}
    environment |= {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def run(folder: Path, words: str) -> str:
        command = words.split()
        answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    root.mkdir()
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root)
    (root / "params.yaml").write_text(yaml.safe_dump(settings()))
    for words in ("git init -q", "dvc init -q", f"dvc remote add -d store {tmp_path / 'store'}", "dvc repro prepare"):
        run(root, words)
    for words in ("git add -A", "git commit -qm results", "dvc push -q prepare"):
        run(root, words)
    run(tmp_path, f"git clone -q {root} {clone}")
    assert not (clone / "artefacts/data").exists()
    run(clone, "dvc pull -q prepare")
    contents = [
        {path.relative_to(home): path.read_bytes() for path in (home / "artefacts/data").rglob("*") if path.is_file()}
        for home in (root, clone)
    ]
    assert contents[0] == contents[1] != {}
    assert "Stage 'prepare' didn't change" in run(clone, "dvc repro prepare")
