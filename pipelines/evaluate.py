"""Stage `evaluate`: the scores of a density, beside the rows that `reference` scored.

Its synthetic dataset is compared with real data, and modalities of real rows are generated from others through it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.config import Params
from pipelines.dataset import Dataset
from pipelines.errors import UserError
from pipelines.generator import KIND as DENSITY
from pipelines.generator import Generator
from pipelines.judge import load_judges
from pipelines.metrics.scores import row, score
from pipelines.reference import Standard
from pipelines.storage import Artefact, folder_hash, load_artefact, write_json
from pipelines.tracking import track

if TYPE_CHECKING:
    from pipelines.metrics.judges import Judges

CONDITIONED = 200  # rows whose modalities are generated from one another
FITTED = ("log_likelihood", "bound", "memorisation", "rows")  # told by the fit, where there is any
USUAL = {"temperature": 1.0, "truncation": 0.0}  # settings of draws, told where they differ


def evaluate(name: str, params: Params, root: Path) -> None:
    """Score artefacts/synthetic/<name> and what <name> generates from parts; results/metrics/<name>.json."""
    folder = root / "artefacts"
    synthetic, test = Dataset.load(folder / "synthetic" / name), Dataset.load(folder / "data/test")
    generator = Generator.load(folder / "densities" / name)
    density = load_artefact(folder / "densities" / name, DENSITY)
    standard = Standard.load(folder / "reference")
    judges = load_judges(folder / "judges")
    check_origins(synthetic, density, standard.manifest, folder_hash(folder / "judges"), test)
    if len(synthetic) < len(standard):
        raise UserError(
            f"{synthetic.folder}: {len(synthetic)} samples found, expected {len(standard)} at least, as many as the "
            f"reference has; set generate.samples to {len(standard)} or more and run postprior generate {name}"
        )
    with track("evaluate", params, root, density=name) as run:
        run.dataset(folder / "synthetic" / name, synthetic.hash)
        labels_from = synthetic.provenance["labels_from"]
        readings = judges.read(scored_rows(synthetic, len(standard), labels_from))
        scores = score(readings, standard.weights, standard.reference)
        written = {
            **row(scores, standard.normal, standard.reconstruction),
            **conditional(generator, judges, test, standard, params),
            **facts(synthetic, density.manifest),
            "samples": len(standard),
        }
        write_json(root / f"results/metrics/{name}.json", written)


def conditional(
    generator: Generator, judges: Judges, test: Dataset, standard: Standard, params: Params
) -> dict[str, Any]:
    """What the density adds when modalities are generated from others, on rows that `reference` took too."""
    from pipelines.metrics.conditional import scores_through

    rng = np.random.default_rng(params.evaluate.seed)
    rows, weights = test.select(standard.real[:CONDITIONED]), standard.real_weights[:, :CONDITIONED]
    return scores_through(generator.model, generator.density, judges, rows, weights, rng)


def facts(synthetic: Dataset, density: dict[str, Any]) -> dict[str, Any]:
    """What is known of the samples and of their density, and settings of draws where they differ from usual."""
    drawn = synthetic.provenance
    told = {key: drawn[key] for key in ("labels_from", "stores_training_codes")}
    told |= {key: value for key in FITTED if (value := density.get(key))}
    told |= {key: drawn[key] for key, usual in USUAL.items() if drawn.get(key, usual) != usual}
    if {"train", "validation"} <= set(likelihood := density["log_likelihood"]):
        told["overfitting"] = likelihood["train"] - likelihood["validation"]
    if why := density["learned"].get("why"):
        told["why"] = why
    return told


def scored_rows(synthetic: Dataset, samples: int, labels_from: str) -> Dataset:
    """As many rows as the reference has, the first (their order is random), with labels where the density drew them."""
    first = synthetic.select(np.arange(samples))
    return first if labels_from == "density" else replace(first, labels=None)


def check_origins(
    synthetic: Dataset, density: Artefact, reference: dict[str, Any], judges: str, test: Dataset
) -> None:
    """Refuse to score what was not made from the same density, autoencoder, judges and test data."""
    found = {
        "density": (synthetic.provenance.get("density"), density.hash, "generate"),
        "autoencoder": (density.manifest["autoencoder"], reference["autoencoder"], "reference"),
        "judges": (judges, reference["judges"], "reference"),
        "test data": (test.hash, reference["data"], "reference"),
    }
    for what, (one, other, stage) in found.items():
        if one != other:
            raise UserError(
                f"{synthetic.folder}: {what} {str(one)[:12]} found, expected {other[:12]}; run postprior {stage} again"
            )
