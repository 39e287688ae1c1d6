"""Stage `evaluate`: the scores of a density, beside the rows that `score-baselines` scored.

Its synthetic dataset is compared with real data, and modalities of real rows are generated from others through it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.artefacts.baselines import Baselines
from postprior.pipelines.artefacts.codes import load_codes
from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project, check_origin
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.conditional_scores import grid, scores_through
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.memorisation import memorised
from postprior.pipelines.metrics.features.evaluators import Evaluators
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
    baselines, evaluators = Baselines.load(project.artefacts.baselines), load_evaluators(project.artefacts.evaluators)
    check_origins(project, synthetic, generator, baselines, test)
    if len(synthetic) < len(baselines):
        raise UserError(
            f"{synthetic.folder}: {len(synthetic)} samples found, expected {len(baselines)} at least, as many as the "
            f"reference set has; set generate.samples to {len(baselines)} or more and run postprior generate {name}"
        )
    with track("evaluate", params, root, density=name) as run:
        run.dataset(project.artefacts.synthetic / name, synthetic.hash)
        samples, half = scored_rows(synthetic, len(baselines)), test.select(baselines.rows)
        scores = baselines.score(evaluators.outputs(samples), half, samples)
        fitted = read_json(project.artefacts.densities / name / MANIFEST)
        train, held_out = (load_codes(project.artefacts.codes / split) for split in ("train", "test"))
        written = {
            **baselines.row(scores, half, samples),
            **conditional(generator, evaluators, test, baselines, params),
            **facts(synthetic, fitted),
            "memorisation": memorised(name, generator.density, fitted, train, held_out, params.seed),
            "samples": len(baselines),
        }
        write_json(project.results.scores("metrics", name), written)
        of_tuples = {key: values for key, values in scores.items() if "/" not in key}
        arrays = {f"scores.{key}": values for key, values in of_tuples.items() if not isinstance(values, Missing)}
        shown = test.select(baselines.real[:GRID])
        arrays |= grid(generator.model, generator.density, shown, params.evaluate.seed)
        origins = {"density": generator.provenance["density"], "samples": len(baselines)}
        origins["reference"] = folder_hash(project.artefacts.baselines)
        save_artefact(project.artefacts.evaluation / name, KIND, origins, arrays=arrays)


def conditional(
    generator: Generator, evaluators: Evaluators, test: Dataset, baselines: Baselines, params: Params
) -> dict[str, Any]:
    """What the density adds when modalities are generated from others, on rows of `real`; nothing without labels."""
    if evaluators.classifiers is None:
        return {}
    rng = np.random.default_rng(params.evaluate.seed)
    rows, weights = test.select(baselines.real[:CONDITIONED]), baselines.real_weights[:, :CONDITIONED]
    return scores_through(generator.model, generator.density, evaluators.classifiers, rows, weights, rng)


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
    """The first rows, as many as in the reference set (their order is random); with labels if the density drew them."""
    first = synthetic.select(np.arange(samples))
    return first if synthetic.provenance["labels_from"] == "density" else replace(first, labels=None)


def check_origins(
    project: Project, synthetic: Dataset, generator: Generator, baselines: Baselines, test: Dataset
) -> None:
    """Refuse to score what was not made from the same density, autoencoder, judges and test data."""
    place, made, reference = synthetic.folder, generator.provenance, baselines.manifest
    evaluators = folder_hash(project.artefacts.evaluators)
    check_origin(place, "density", synthetic.provenance.get("density"), made["density"], "generate")
    check_origin(place, "autoencoder", made["autoencoder"], reference["autoencoder"], "score-baselines")
    check_origin(place, "evaluators", evaluators, reference["judges"], "score-baselines")
    check_origin(place, "test data", test.hash, reference["data"], "score-baselines")
