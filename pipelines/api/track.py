"""The command `track`: existing results logged to MLflow again, for stages that DVC had no need to run."""

import csv
from pathlib import Path

from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking import runs as tracking


def track(params: Params, root: Path) -> None:
    """Log one run for every stage that has left results, as when the stage itself ran."""
    logged = 0
    for stage, results in tracking.RESULTS.items():
        written = [*results.metrics, *results.files]
        of_density = any("{density}" in str(pattern) for pattern in written)
        for density in params.densities if of_density else (None,):
            if not any(tracking.output_path(root, pattern, density).exists() for pattern in written):
                continue
            with tracking.track(stage, params, root, density) as run:
                if stage == "train":
                    _log_epochs(run, root / tracking.FILES.training)
            logged += 1
    if not logged:
        raise UserError(f"{root / tracking.FILES.home}: there are no results to log yet; run `dvc repro` first")


def _log_epochs(run: tracking.Run, path: Path) -> None:
    """The metrics of every epoch, numbered through all phases."""
    with open(path, encoding="utf-8", newline="") as file:
        for step, row in enumerate(csv.DictReader(file), 1):
            values = {name: float(value) for name, value in row.items() if name not in ("epoch", "phase") and value}
            run.metrics(values, step=step)
