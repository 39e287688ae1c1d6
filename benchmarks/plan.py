"""Runs every stage of a project on one core, and compares its processor seconds with the estimates of `postprior plan`.

The constants in `pipelines/planning/costs.py` and `fits.py` are fitted to these seconds by hand. They are measured
without MLflow and without DVC, and do not depend on what else the machine does.

Usage: python benchmarks/plan.py PROJECT, a folder with params.yaml whose artefacts and results are replaced.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from pathlib import Path

from zoo import ROOT

os.environ |= {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": "off"}  # before torch is imported

from postprior.pipelines.planning import speeds
from postprior.pipelines.planning.costs import estimates
from postprior.pipelines.planning.workload import measure
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.yaml_text import read_yaml


def command(stage: str) -> list[str]:
    """Return the command of a stage, as dvc.yaml has it."""
    name, _, item = stage.partition("@")
    entry = read_yaml(ROOT / "dvc.yaml")["stages"][name]
    return [sys.executable, "-m", *shlex.split(re.sub(r"\$\{item\.\w+\}", item, entry["cmd"]))]


def seconds(arguments: list[str], folder: Path) -> float:
    """Run a command in a folder and return its processor seconds."""
    pid = os.posix_spawnp("env", ["env", "-C", str(folder), *arguments], os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{shlex.join(arguments)}: found status {status}, expected 0; see its message above")
    return usage.ru_utime + usage.ru_stime


def compare(name: str, estimate: float, measured: float) -> tuple[float, float]:
    """Print a line of the table: the estimate, the measured seconds, and their ratio."""
    print(f"{name:<35}{estimate:8.1f}{measured:8.1f}{estimate / measured:8.2f}", flush=True)
    return estimate, measured


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    speeds.perf_counter = time.process_time  # type: ignore[attr-defined]
    expected = estimates(measure(load_params(folder / "params.yaml"), folder))
    done = [
        compare(estimate.stage, estimate.seconds, seconds(command(estimate.stage), folder)) for estimate in expected
    ]
    compare("all stages", *map(sum, zip(*done, strict=True)))
