"""The smallest form of benchmarks/reproduction.py, of postprior alone where MultiVae is not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_model_is_trained_judged_and_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, str(BENCHMARKS / "reproduction.py"), "--smallest", "--out", str(tmp_path)]
    first, again = (subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stderr
    assert again.stdout == ""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import reproduction_page as page  # type: ignore[import-not-found]

    runs = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*-postprior.json"))]
    assert {run["model"] for run in runs} == set(page.CONDITIONAL)
    for run in runs:
        assert set(run["conditional"]) == set(page.SIZES)
        assert set(run["joint"]) == set(page.SAMPLERS)
        assert all(0 <= score["value"] <= 1 for score in run["joint"].values())
    text = page.text(runs)
    assert text.count("| published |") == 2 * len(runs)
    assert text.count("| postprior | 1 |") == 2 * len(runs)


def test_a_library_without_files_and_a_sampler_without_a_score_leave_their_cells_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", "off")
    import reproduction_page as page  # type: ignore[import-not-found]

    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    run = {"model": "jnf", "library": "multivae", "seed": 0, "joint": {"prior": score, "masked flow": None}}
    lines = list(page.lines([run], "joint", page.SAMPLERS, page.JOINT))
    assert lines == [
        ["`jnf`", "published", "", ".06", ".12", ".38", ""],
        ["", "multivae", "1", "0.500 (0.400–0.600)", "", "", ""],
    ]
