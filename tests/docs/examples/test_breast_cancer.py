"""The worked example of detection on few splits: its output supports the claims of its page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import REPOSITORY

SCRIPT = REPOSITORY / "docs/examples/breast_cancer.py"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_malignant_patients_are_detected_and_false_alarms_are_controlled(tmp_path: Path) -> None:
    page = SCRIPT.with_suffix(".md").read_bytes()
    command = [sys.executable, str(SCRIPT), "--splits", "3", "--out", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    ours = re.search(r"\*\*this detector\*\* \| \*\*([\d.]+)", run.stdout)
    assert ours is not None
    assert float(ours[1]) >= 0.955
    rates = re.findall(r"^\| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \|$", run.stdout, re.MULTILINE)
    assert [float(alpha) for alpha, *_ in rates] == [0.05, 0.1, 0.2]
    for _, promised, benign, malignant in rates:
        assert float(benign) == pytest.approx(float(promised), abs=0.01)
        assert float(malignant) > 0.5
    assert "| 40 real patients |" in run.stdout
    paired = re.findall(r"^\| `gmm` \| \S+ \[.*?\] \| \S+ \[\S+, (\S+)\]", run.stdout, re.MULTILINE)
    assert float(paired[0]) < 0  # modalities: significantly better than the best baseline imputer
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"detection.png", "augmentation.png"}
    assert SCRIPT.with_suffix(".md").read_bytes() == page
