"""What a stage imports before its first work, which all processes of the pipeline wait for."""

import subprocess
import sys

from support.project import REPOSITORY

STAGES = {path.stem for path in (REPOSITORY / "pipelines/stages").glob("[!_]*.py")}
WITHOUT_TORCH = {"code", "prepare", "compare"}
WITH_SKLEARN = {"diagnose"}  # all of its work needs it
HEAVY = {
    "torch",
    "torch._dynamo",
    "sklearn",
    "scipy",
    "pandas",
    "pyarrow",
    "normflows",
    "matplotlib",
    "PIL",
    "mlflow",
    "dvc",
}


def imported(names: set[str], then: str = "") -> set[str]:
    """The heavy modules that a process has after importing some stages and running more code."""
    stages = "".join(f"import postprior.pipelines.stages.{name}\n" for name in sorted(names))
    script = f"import sys\n{stages}{then}\nprint(*sys.modules, sep=chr(10))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return HEAVY & set(answer.stdout.splitlines())


def test_stages_without_tensors_import_nothing_heavy() -> None:
    assert not imported(WITHOUT_TORCH)


def test_stages_import_torch_and_no_other_heavy_module() -> None:
    """Nor does an optimiser import the compiler of torch."""
    step = """
import torch
from postprior.stage1_vae.adamw import AdamW
weight = torch.ones(2, requires_grad=True)
weight.sum().backward()
AdamW([weight], 0.1).step()
"""
    assert imported(STAGES - WITHOUT_TORCH - WITH_SKLEARN, step) == {"torch"}
