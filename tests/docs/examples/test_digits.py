"""The digits tutorial on a small project."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import REPOSITORY

from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.diagnose import diagnose
from postprior.pipelines.stages.evaluate import evaluate
from postprior.pipelines.stages.evaluate_imputation import evaluate_baseline_imputers, evaluate_imputation
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.score_baselines import score_baselines

SCRIPT = REPOSITORY / "docs/examples/digits.py"


@pytest.mark.slow
def test_the_tutorial_prints_its_numbers_and_draws_its_figures(trained: tuple[Path, Params], tmp_path: Path) -> None:
    root, params = trained
    folder = tmp_path / "project"
    shutil.copytree(root, folder)
    diagnose(params, folder)
    score_baselines(params, folder)
    generate("gmm", params, folder)
    evaluate("gmm", params, folder)
    evaluate_baseline_imputers(params, folder)
    evaluate_imputation("gmm", params, folder)
    page = SCRIPT.with_suffix(".md").read_bytes()
    command = [sys.executable, str(SCRIPT), "--project", str(folder), "--out", str(tmp_path)]
    run = subprocess.run([*command, "--densities", "gmm"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "| N(0, I) |" in run.stdout
    assert "| through gmm |" in run.stdout
    assert "| `gmm` |" in run.stdout
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "translations.png",
        "samples.png",
        "coherence.png",
    }
    assert SCRIPT.with_suffix(".md").read_bytes() == page
