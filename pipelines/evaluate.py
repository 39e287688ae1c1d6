"""Stage `evaluate`: the scores of a density's synthetic dataset, beside the rows that `reference` scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import Params
from pipelines.dataset import Dataset
from pipelines.errors import UserError
from pipelines.generator import KIND as DENSITY
from pipelines.judge import load_judges
from pipelines.metrics.scores import row, score
from pipelines.reference import Standard
from pipelines.storage import Artefact, folder_hash, load_artefact, write_json
from pipelines.tracking import track


def evaluate(name: str, params: Params, root: Path) -> None:
    """Score artefacts/synthetic/<name>; results/metrics/<name>.json."""
    folder = root / "artefacts"
    synthetic = Dataset.load(folder / "synthetic" / name)
    density = load_artefact(folder / "densities" / name, DENSITY)
    standard = Standard.load(folder / "reference")
    check_origins(synthetic, density, standard.manifest, folder_hash(folder / "judges"))
    if len(synthetic) < len(standard):
        raise UserError(
            f"{synthetic.folder}: {len(synthetic)} samples found, expected {len(standard)} at least, as many as the "
            f"reference has; set generate.samples to {len(standard)} or more and run postprior generate {name}"
        )
    labels_from = synthetic.provenance["labels_from"]
    with track("evaluate", params, root, density=name) as run:
        run.dataset(folder / "synthetic" / name, synthetic.hash)
        readings = load_judges(folder / "judges").read(scored_rows(synthetic, len(standard), labels_from))
        scores = score(readings, standard.weights, standard.reference)
        facts: dict[str, Any] = {
            "samples": len(standard),
            "labels_from": labels_from,
            "stores_training_codes": synthetic.provenance["stores_training_codes"],
        }
        if likelihood := density.manifest["log_likelihood"]:
            facts["log_likelihood"] = likelihood
        written = row(scores, standard.normal, standard.reconstruction) | facts
        write_json(root / f"results/metrics/{name}.json", written)


def scored_rows(synthetic: Dataset, samples: int, labels_from: str) -> Dataset:
    """As many rows as the reference has, the first (their order is random), with labels where the density drew them."""
    first = synthetic.select(np.arange(samples))
    return first if labels_from == "density" else replace(first, labels=None)


def check_origins(synthetic: Dataset, density: Artefact, reference: dict[str, Any], judges: str) -> None:
    """Refuse to score what was not made from the same density, autoencoder and judges."""
    found = {
        "density": (synthetic.provenance.get("density"), density.hash, "generate"),
        "autoencoder": (density.manifest["autoencoder"], reference["autoencoder"], "reference"),
        "judges": (judges, reference["judges"], "reference"),
    }
    for what, (one, other, stage) in found.items():
        if one != other:
            raise UserError(
                f"{synthetic.folder}: {what} {str(one)[:12]} found, expected {other[:12]}; run postprior {stage} again"
            )
