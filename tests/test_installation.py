"""What a user of the wheel does: install it, check the environment, make the demo, run it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml
from support.copied import build, copy, python
from support.dvc import settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

DVC = """#!{}
from dvc.cli import main

raise SystemExit(main())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel, which was built from the source distribution.

    Its libraries are those of the environment of the tests, so that nothing is downloaded.
    """
    home = tmp_path_factory.mktemp("installed")
    sources = build("sdist", copy(home / "sources"), home / "sdist")
    shutil.unpack_archive(sources, home / "unpacked")
    (unpacked,) = (home / "unpacked").iterdir()
    wheel = build("wheel", unpacked, home / "wheel")
    python("-m", "venv", "--without-pip", str(home / "environment"), folder=home)
    programs = home / "environment/bin"
    site = home / f"environment/lib/python{sysconfig.get_python_version()}/site-packages"
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = ("-m", "pip", "--python", str(programs / "python"), "install", "--quiet", "--no-deps", "--no-index")
    python(*pip, "--ignore-installed", str(wheel), folder=home)
    (programs / "dvc").write_text(DVC.format(programs / "python"))
    (programs / "dvc").chmod(0o755)
    return programs


def test_three_commands_give_the_report_of_the_demo(installed: Path, tmp_path: Path) -> None:
    """At a size that runs in a minute."""
    (tmp_path / "gitconfig").write_text('[user]\nname = "Ada"\nemail = "ada@example.org"\n')
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PATH": f"{installed}{os.pathsep}{environment['PATH']}", "DVC_NO_ANALYTICS": "1"}
    environment |= {"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"), "MLFLOW_TRACKING_URI": "off"}

    def run(*command: str, folder: Path = tmp_path) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr  # a stage tells on stderr what it wrote

    place = run(str(installed / "python"), "-c", "import postprior; print(postprior.__file__)")
    assert place.startswith(str(installed.parent))
    assert run("postprior", "--version").startswith("postprior ")
    assert "command postprior" in run("postprior", "doctor")
    assert run("postprior", "init", "demo").endswith("Go on with: cd demo && dvc repro\n")
    project = tmp_path / "demo"
    assert not run("git", "status", "--short", folder=project)
    tree = settings()
    tree["densities"], tree["augment"]["seeds"] = ["gmm_free"], [0]
    (project / "params.yaml").write_text(yaml.safe_dump(tree))
    assert "The report: results/report.html" in run("dvc", "repro", folder=project)
    assert (project / "results/report.html").stat().st_size > 100_000
    again = run("dvc", "repro", folder=project)
    assert set(re.findall("Running stage '(.+?)'", again)) <= {"code"}
    assert "Nothing" in run("postprior", "doctor", folder=project).splitlines()[-1]
