"""Stage `diagnose`: diagnostics of the latent space: its health, and what the codes predict about the labels."""

from pathlib import Path

from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.project import Project, check_origin
from postprior.pipelines.scoring.latent import latent_scores
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import MANIFEST, read_json, write_json
from postprior.pipelines.tracking.runs import track


def diagnose(params: Params, root: Path) -> None:
    """Score the test codes with models fitted to training codes; write results/metrics/latent.json."""
    project = Project(root)
    data = project.dataset("test")
    codes = {split: load_codes(project.artefacts.codes / split) for split in ("train", "test")}
    encoded = project.artefacts.codes / "test"
    check_origin(encoded, "codes of data", read_json(encoded / MANIFEST).get("data"), data.hash, "encode")
    with track("diagnose", params, root) as run:
        run.dataset(project.artefacts.data / "test", data.hash)
        write_json(project.results.scores("metrics", "latent"), latent_scores(codes, data, params.evaluate))
