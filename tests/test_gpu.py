"""The smallest form of benchmarks/gpu.py, on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import REPOSITORY

from postprior import DENSITIES, MODELS

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_part_runs_and_a_cpu_agrees_with_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--small", "--out", str(out)]
    command += ["--seconds", "900"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    results = json.loads(out.read_text())
    assert {key.split()[0] for key in results["values_of_models"]} == set(MODELS)
    assert {key.split()[0] for key in results["steps"]} == set(MODELS)
    assert {key.split()[0] for key in results["values_of_densities"]} == set(DENSITIES)
    of_models = [entry for key, entry in results["values_of_models"].items() if key.endswith("float64")]
    assert all(entry["losses"] == 0 == entry["gradient"] for entry in of_models)
    single = [entry for key, entry in results["values_of_models"].items() if key.endswith("float32")]
    assert all(0 < entry["losses"] < 1e-3 for entry in single)  # another type is told from the same one
    assert results["generation"]["digits"] == 100
    assert len(results["coherence"]["seconds_and_coherence"]) == 1
    assert "left_out" in results["compilation"] or results["compilation"]["mvtcae joint"]["compiled"] > 0
    monkeypatch.syspath_prepend(BENCHMARKS)
    from gpu_page import text  # type: ignore[import-not-found]

    page = text(results)
    assert "Values of models: " in page
    assert "differ" not in page
    assert "Against MultiVae: no figure" in page or "MultiVae |" in page
    broken = results | {"values_of_models": {"mvae joint": {"equal": False}}, "fits": {"failed": "RuntimeError: x"}}
    assert "0 of 1 comparisons agree with the CPU; these differ: mvae joint." in text(broken)
    assert "Fits: RuntimeError: x." in text(broken)
