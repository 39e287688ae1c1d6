"""Stage `evaluate`: the scores of a density, beside the rows that `reference` scored.

Its synthetic dataset is compared with real data, and modalities of real rows are generated from others through it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.evaluators import load_judges
from postprior.pipelines.artefacts.project import Project, check_origin
from postprior.pipelines.artefacts.standard import Standard
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.memorising import memorised
from postprior.pipelines.generation.parts import grid, scores_through
from postprior.pipelines.metrics.features.reader import Reader
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import MANIFEST, folder_hash, read_json, save_artefact, write_json
from postprior.pipelines.tracking.runs import track

KIND = "evaluation"
CONDITIONED = 200  # rows whose modalities are generated from one another
GRID = 4  # rows that are shown generated from parts
FITTED = ("log_likelihood", "bound", "rows")  # told by the fit, where there is any
USUAL = {"temperature": 1.0, "truncation": 0.0}  # settings of draws, told where they differ


def evaluate(name: str, params: Params, root: Path) -> None:
    """Score artefacts/synthetic/<name> and what <name> generates from parts; results/metrics/<name>.json.

    Half-samples of scores of whole tuples, and some rows generated from parts: artefacts/evaluation/<name>.
    """
    project = Project(root)
    synthetic, test = project.synthetic(name), project.dataset("test")
    generator = Generator.load(project.artefacts.densities / name)
    standard, reader = Standard.load(project.artefacts.reference), load_judges(project.artefacts.judges)
    check_origins(project, synthetic, generator, standard, test)
    if len(synthetic) < len(standard):
        raise UserError(
            f"{synthetic.folder}: {len(synthetic)} samples found, expected {len(standard)} at least, as many as the "
            f"reference has; set generate.samples to {len(standard)} or more and run postprior generate {name}"
        )
    with track("evaluate", params, root, density=name) as run:
        run.dataset(project.artefacts.synthetic / name, synthetic.hash)
        samples, half = scored_rows(synthetic, len(standard)), test.select(standard.rows)
        scores = standard.score(reader.read(samples), half, samples)
        fitted = read_json(project.artefacts.densities / name / MANIFEST)
        train, held_out = (load_codes(project.artefacts.codes / split) for split in ("train", "test"))
        written = {
            **standard.row(scores, half, samples),
            **conditional(generator, reader, test, standard, params),
            **facts(synthetic, fitted),
            "memorisation": memorised(name, generator.density, fitted, train, held_out, params.seed),
            "samples": len(standard),
        }
        write_json(project.results.scores("metrics", name), written)
        of_tuples = {key: values for key, values in scores.items() if "/" not in key}
        arrays = {f"scores.{key}": values for key, values in of_tuples.items() if not isinstance(values, Missing)}
        shown = test.select(standard.real[:GRID])
        arrays |= grid(generator.model, generator.density, shown, params.evaluate.seed)
        origins = {"density": generator.provenance["density"], "samples": len(standard)}
        origins["reference"] = folder_hash(project.artefacts.reference)
        save_artefact(project.artefacts.evaluation / name, KIND, origins, arrays=arrays)


def conditional(
    generator: Generator, reader: Reader, test: Dataset, standard: Standard, params: Params
) -> dict[str, Any]:
    """What the density adds when modalities are generated from others, on rows of `real`; nothing without labels."""
    if reader.judges is None:
        return {}
    rng = np.random.default_rng(params.evaluate.seed)
    rows, weights = test.select(standard.real[:CONDITIONED]), standard.real_weights[:, :CONDITIONED]
    return scores_through(generator.model, generator.density, reader.judges, rows, weights, rng)


def facts(synthetic: Dataset, density: dict[str, Any]) -> dict[str, Any]:
    """What is known of the samples and of their density, and settings of draws where they differ from usual."""
    drawn = synthetic.provenance
    told = {key: drawn[key] for key in ("labels_from", "stores_training_codes")}
    told |= {key: value for key in FITTED if (value := density.get(key))}
    told |= {key: drawn[key] for key, usual in USUAL.items() if drawn.get(key, usual) != usual}
    if {"train", "validation"} <= set(likelihood := density["log_likelihood"]):
        train, validation = likelihood["train"], likelihood["validation"]
        missing = next((of for of in (train, validation) if isinstance(of, dict)), None)
        told["overfitting"] = missing or train - validation
    if why := density["learned"].get("why"):
        told["why"] = why
    return told


def scored_rows(synthetic: Dataset, samples: int) -> Dataset:
    """As many rows as the reference has, the first (their order is random), with labels where the density drew them."""
    first = synthetic.select(np.arange(samples))
    return first if synthetic.provenance["labels_from"] == "density" else replace(first, labels=None)


def check_origins(
    project: Project, synthetic: Dataset, generator: Generator, standard: Standard, test: Dataset
) -> None:
    """Refuse to score what was not made from the same density, autoencoder, judges and test data."""
    place, made, reference = synthetic.folder, generator.provenance, standard.manifest
    judges = folder_hash(project.artefacts.judges)
    check_origin(place, "density", synthetic.provenance.get("density"), made["density"], "generate")
    check_origin(place, "autoencoder", made["autoencoder"], reference["autoencoder"], "reference")
    check_origin(place, "judges", judges, reference["judges"], "reference")
    check_origin(place, "test data", test.hash, reference["data"], "reference")
