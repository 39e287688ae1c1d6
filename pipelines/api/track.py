"""The command `track`: log existing results to MLflow again, for stages that DVC did not need to run."""

import csv
from pathlib import Path

from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.params import Params
from postprior.pipelines.texts import shell_quoted
from postprior.pipelines.tracking.client import DATABASES, address, shown
from postprior.pipelines.tracking.outputs import FILES, RESULTS, curves, output_path
from postprior.pipelines.tracking.runs import Run
from postprior.pipelines.tracking.runs import track as log


def track(params: Params, root: Path) -> list[str]:
    """Log one run for every stage with results, as if the stage had just run; return lines for the user."""
    logged = 0
    for stage, results in RESULTS.items():
        of_density = any("{density}" in str(pattern) for pattern in results.files)
        for density in params.densities if of_density else (None,):
            if not any(output_path(root, pattern, density).exists() for pattern in results.files):
                continue
            with log(stage, params, root, density, refuse) as run:
                if stage == "train":
                    _log_epochs(run, root / FILES.training)
            logged += 1
    if not logged:
        raise UserError(f"{root / FILES.home}: found no results to log; run `dvc repro` first")
    uri = shown(address(root) or "")
    if not uri:
        return ["MLFLOW_TRACKING_URI is off: nothing was logged"]
    show = f"mlflow ui --backend-store-uri {shell_quoted(uri)}" if uri.startswith(DATABASES) else f"open {uri}"
    return [f"{uri}: {logged} runs", f"Go on with: {show}"]


def refuse(reason: str) -> None:
    """Raise a UserError instead of a warning at the first failure, because the command has no other result."""
    raise UserError(
        f"MLflow: could not log the results ({reason}); expected a server or database that answers in "
        "MLFLOW_TRACKING_URI"
    )


def _log_epochs(run: Run, path: Path) -> None:
    """Log the metrics of every epoch; steps are numbered across all phases."""
    with open(path, encoding="utf-8", newline="") as file:
        for step, row in enumerate(csv.DictReader(file), 1):
            run.metrics({name: float(value) for name, value in curves(row).items() if value}, step=step)
