"""Stage `diagnose`: diagnostics of the latent space: its health, and what the codes predict about the labels."""

from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.artefacts.codes import CompleteCodes, load_codes
from postprior.pipelines.artefacts.project import Project, check_origin
from postprior.pipelines.metrics.latent.health import clusters, health
from postprior.pipelines.metrics.latent.representation import SCORES, whole_and_shared
from postprior.pipelines.metrics.statistics.intervals import FEWEST, half_samples, too_few
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import MANIFEST, read_json, write_json
from postprior.pipelines.tracking.runs import track
from postprior.stage1_vae.randomness import generator_for

COMPLETE = "rows with complete codes"


def diagnose(params: Params, root: Path) -> None:
    """Score the test codes with models fitted to training codes; write results/metrics/latent.json."""
    project, settings = Project(root), params.evaluate
    data = project.dataset("test")
    train, test = (CompleteCodes(load_codes(project.artefacts.codes / split)) for split in ("train", "test"))
    encoded = project.artefacts.codes / "test"
    check_origin(encoded, "codes of data", read_json(encoded / MANIFEST).get("data"), data.hash, "encode")
    with track("diagnose", params, root) as run, progress("diagnose", 3) as step:
        run.dataset(project.artefacts.data / "test", data.hash)
        rng = np.random.default_rng(settings.seed)
        written: dict[str, Any] = {"samples": len(test)}
        missing = too_few(len(test), FEWEST, f"test {COMPLETE}")
        if missing:
            written["health"] = missing.written
        else:
            written["health"] = health(test.codes, generator_for("cpu", settings.seed))
            step("latent dimensions")
            written["health"]["clusters"] = clusters(train.means, test.means, test.labels, settings.seed)
            step("clusters")
        missing = missing or too_few(len(train), FEWEST, f"training {COMPLETE}")
        if test.labels is not None and missing:
            written["representation"] = dict.fromkeys(SCORES, missing.written)
        elif test.labels is not None:
            weights = half_samples(data.sources[test.rows], settings.resamples, rng, test.labels)
            written["representation"] = whole_and_shared(train.codes, test.codes, weights, settings.seed)
            step("labels")
        write_json(project.results.scores("metrics", "latent"), written)
