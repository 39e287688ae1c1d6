"""Score the baselines with the same function as the densities.

The test split is halved by source. One half is the reference set, to which distances are measured. The rows of the
other half are the baseline `real`, their decoded codes are `reconstruction`, and the same number of draws from the
model's own prior are `normal`. Tables and vectors have two more baselines, which sample without a model.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from postprior.pipelines.artefacts.baselines import WEIGHTS, Baselines, lacking_as
from postprior.pipelines.artefacts.density import log_likelihoods
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.artefacts.refiner import load_refiner
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import emptied
from postprior.pipelines.generation.conditional_scores import conditional_scores
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.row_factors import RowFactors
from postprior.pipelines.generation.samplers import SAMPLERS, unsuitable
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.metrics.fidelity.reconstruction import log_evidence, reconstruction_scores
from postprior.pipelines.metrics.latent.health import dead_dimensions
from postprior.pipelines.metrics.scores import cautions
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    SCORED,
    Floats,
    Ints,
    half_samples,
    halves,
    too_few,
    well_observed,
)
from postprior.pipelines.metrics.tables.columns import Limits
from postprior.pipelines.progress import progress, substeps
from postprior.pipelines.scoring.patterns import patterned_as
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import write_json
from postprior.pipelines.texts import tell
from postprior.pipelines.threads import suited_to
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.randomness import generator_for, generator_from
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Codes

INCOMPLETE = (
    "{} of the {} real rows lack a modality. The samples that are compared with them lack the same modalities, as "
    "far as there are such samples. Coherence is that of the modalities that a row has."
)
UNLABELLED = "{} of the {} test rows have no label. Label classifiers and scores of labels use the other rows."
TARGETS = "Neither the autoencoder nor a density uses the targets of the data ({}), and samples have none."
SUBJECTS = (
    "{} of the {} test rows share their subject with another row. Samples are drawn independently of each other, so no "
    "samples belong to one subject."
)
MOST = 5000  # maximal number of rows of a half: the time of scoring grows with its square
SPARE = 4  # samples of the baseline samplers for each row, among which those with the pattern of a row are found
CONDITIONED = 500  # number of rows whose modalities are generated from one another


@dataclass(frozen=True)
class ScoredBaselines:
    """The baselines of a project, and what is stored about them."""

    baselines: Baselines
    outputs: dict[str, EvaluatorOutputs]  # of the reference set and of the baseline rows
    sets: dict[str, Dataset]  # the datasets of the baseline rows
    results: dict[str, dict[str, Any]]  # contents of the files in results/metrics, by name

    def save(self, project: Project) -> None:
        """Write artefacts/baselines and results/metrics."""
        for name, written in self.results.items():
            write_json(project.results.scores("metrics", name), written)
        self.baselines.save(project.artefacts.baselines, self.outputs, self.sets)


def score_baselines(
    model: Autoencoder,
    evaluators: Evaluators,
    codes: Codes,
    train: Dataset,
    test: Dataset,
    hashes: dict[str, str | None],
    params: Params,
    refiner: Path,
    factors: RowFactors,
) -> ScoredBaselines:
    """Score the baselines and the autoencoder.

    Args:
        codes: The codes of the test rows.
        hashes: Those of `autoencoder`, `judges` (the evaluators) and `data` (the test rows).
        refiner: The folder of the refiner, which is read if values are refined.
        factors: Those of the rows of the autoencoder.
    """
    settings = params.evaluate
    rng = np.random.default_rng(settings.seed)
    with suited_to(train.modalities), progress("score-baselines", 7) as step:
        first, second = split_test_rows(test, rng)
        half, values = test.select(first), params.generate.values
        load, prior = partial(load_refiner, refiner, str(hashes["autoencoder"])), DENSITIES["normal"]().fit(codes)
        prior_generator = Generator(model, prior, {}, test.conversion, refiner=load, row_factors=factors)
        sets = rows_to_score(prior_generator, codes, half, test.select(second), second, settings.seed, values)
        scored = {"reference": half, **sets}
        outputs = {name: evaluators.outputs(scored[name]) for name in substeps(scored, len(scored))}
        step("features")
        weights = draw_weights(outputs, settings.resamples, rng)
        manifest = settings.model_dump() | {
            **hashes,
            "modalities": [m.name for m in test.modalities],
            "classes": evaluators.classes,
            "averaged": averaged(outputs, test),
            "cautions": cautions_of(outputs, test),
        }
        baselines = Baselines.fit(outputs["reference"], weights, (first, second), manifest, Limits.of(train))
        step("reference set")
        for name, dataset in sets.items():
            baselines.scores[name] = baselines.score(outputs[name], half, dataset, weights[WEIGHTS[name]])
            step(name)
        likelihood = log_likelihoods(prior_generator.density, {"test": codes}, settings.seed)
        results: dict[str, dict[str, Any]] = {}
        for name, dataset in sets.items():
            row = baselines.row(baselines.scores[name], half, dataset)
            row |= facts_of(name, likelihood, labelled=evaluators.classifiers is not None)
            results[name] = row | {"samples": len(second)}
        results["samplers"] = sampler_scores(baselines, evaluators, train, half, settings.seed)
        step("samplers of data")
        results["autoencoder"] = autoencoder_scores(
            prior_generator, evaluators, codes, sets, outputs["reconstruction"], weights["real"], rng
        )
        step("autoencoder")
    return ScoredBaselines(baselines, outputs, sets, results)


def sampler_scores(
    baselines: Baselines, evaluators: Evaluators, train: Dataset, reference: Dataset, seed: int
) -> dict[str, Any]:
    """Return the content of samplers.json: the row of each baseline sampler, or why there is none."""
    if why := unsuitable(train):
        return {"why": why}
    rows, drawn_rows = {}, max(len(baselines), 1) * (1 if reference.mask is None else SPARE)
    for name in substeps(SAMPLERS, len(SAMPLERS)):
        drawn = patterned_as(SAMPLERS[name](train, drawn_rows, seed), reference.observed)
        scores = baselines.score(evaluators.outputs(drawn), reference, drawn)
        rows[name] = baselines.row(scores, reference, drawn) | {"samples": len(baselines)}
    return rows


def split_test_rows(test: Dataset, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return the rows of the reference set and of the scored half, complete rows first; no source is in both.

    Halves have equal shares of every label and, within labels, of every pattern of observed modalities.
    """
    if incomplete := int((~test.observed.all(1)).sum()):
        lacking = f"{incomplete} of {len(test)} test rows lack a modality"
        tell(f"score-baselines: {lacking}; samples that are compared with them lack modalities too", err=True)
    labels = np.zeros(len(test), int) if test.labels is None else np.asarray(test.labels)
    strata = np.unique(np.column_stack([labels, test.observed]), axis=0, return_inverse=True)[1]
    first, second = (half[:MOST] for half in halves(test.sources, strata, rng))
    if few := too_few(len(first), FEWEST, SCORED):
        tell(f"score-baselines: there are no scores of rows: {few.why}", err=True)
    complete: NDArray[np.bool_] = test.observed.min(1)
    first, second = (half[np.argsort(~complete[half], kind="stable")] for half in (first, second))
    return first, second


def rows_to_score(
    prior_generator: Generator, codes: Codes, reference: Dataset, real: Dataset, rows: Ints, seed: int, values: str
) -> dict[str, Dataset]:
    """Return the datasets of the baselines; `reconstruction` decodes one posterior draw per row.

    Its `values`, and those of draws from the prior, are those of the synthetic datasets (`SampleRequest`).
    Reconstructions lack what their rows lack, and draws what the rows of the reference set lack.
    """
    with torch.no_grad():
        generator = generator_for("cpu", seed, 2)
        chosen = torch.from_numpy(rows)
        z = codes.draw(generator, chosen).nan_to_num()  # private codes of modalities that rows lack
        data = prior_generator.decode_all(z, values, generator, None if codes.labels is None else codes.labels[chosen])
    drawn = prior_generator.sample(max(len(rows), 1), seed, values=values)
    return {
        "real": real,
        "reconstruction": emptied(replace(real, data=data)),
        "normal": lacking_as(drawn.select(np.arange(len(rows))), reference),
    }


def draw_weights(outputs: dict[str, EvaluatorOutputs], resamples: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Draw half-samples: of both halves by source within labels, and of synthetic rows, each of which is a source."""
    first, second = (outputs[name] for name in ("reference", "real"))
    return {
        "reference": half_samples(first.sources, resamples, rng, first.labels),
        "real": half_samples(second.sources, resamples, rng, second.labels),
        "synthetic": half_samples(np.arange(len(outputs["normal"])), resamples, rng),
    }


def rows_by_modality(outputs: dict[str, EvaluatorOutputs]) -> Ints:
    """Return the number of rows (M,) with each modality, in the half that has fewer."""
    return np.minimum(*(outputs[name].observed.sum(0) for name in ("reference", "real")))


def averaged(outputs: dict[str, EvaluatorOutputs], test: Dataset) -> list[str]:
    """Return the modalities over which means are taken: the same for all rows of the leaderboard."""
    return [
        m.name for m, enough in zip(test.modalities, well_observed(rows_by_modality(outputs)), strict=True) if enough
    ]


def cautions_of(outputs: dict[str, EvaluatorOutputs], test: Dataset) -> list[str]:
    """Return cautions about incomplete, unlabelled and related rows, about targets, and about spaces with few rows."""
    widths = [features.shape[1] for features in outputs["reference"].features]
    sizes = zip(widths, rows_by_modality(outputs).tolist(), strict=True)
    spaces = dict(zip((m.title for m in test.modalities), sizes, strict=True))
    incomplete = int((~outputs["reference"].observed.all(1)).sum())
    lacking = [INCOMPLETE.format(incomplete, len(outputs["reference"]))] if incomplete else []
    if test.labels is not None and (unlabelled := int((~test.labelled).sum())):
        lacking.append(UNLABELLED.format(unlabelled, len(test)))
    lacking += subjects_of(test)
    if test.targets is not None:
        names = [target["name"] for target in (test.conversion or {}).get("targets", ())]
        lacking.append(TARGETS.format(", ".join(names) or f"{test.targets.shape[1]} columns"))
    if len(widths) > 1:
        spaces["all modalities together"] = sum(widths), len(outputs["real"])
    return lacking + cautions(spaces)


def subjects_of(test: Dataset) -> list[str]:
    """Return a caution about subjects that have several rows; none about the sources of composed images."""
    imported = (test.conversion or {}).get("groups")
    rows = np.unique(test.sources, return_counts=True)[1]
    repeated = int(rows[rows > 1].sum()) if imported else 0
    return [SUBJECTS.format(repeated, len(test))] if repeated else []


def facts_of(name: str, likelihood: dict[str, Any], labelled: bool) -> dict[str, Any]:
    """Return facts about a baseline other than its scores.

    `likelihood` is the log-likelihood of held-out codes under the model's own prior.
    """
    origin = "judges" if name == "normal" else "data"
    facts = {"labels_from": origin if labelled else None, "stores_training_codes": False}
    return facts | {"log_likelihood": likelihood} if name == "normal" else facts


def autoencoder_scores(
    prior_generator: Generator,
    evaluators: Evaluators,
    codes: Codes,
    sets: dict[str, Dataset],
    outputs: EvaluatorOutputs,
    weights: Floats,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return the content of autoencoder.json; outputs and weights are those of the reconstruction."""
    subset = np.arange(min(CONDITIONED, len(weights[0])))
    rows, subset_weights = sets["real"].select(subset), weights[:, subset]
    means = codes.mean[codes.complete]
    few = too_few(len(means), FEWEST, "test rows with complete codes")
    scores = reconstruction_scores(sets["real"], sets["reconstruction"], outputs, weights) | {
        "dead_dimensions": few.written if few else dead_dimensions(means),
        "dimensions": codes.dimensions,
        "samples": len(outputs),
    }
    if evaluators.classifiers is not None:
        labelled = np.flatnonzero(sets["real"].labelled)[:CONDITIONED]
        scores["conditional_coherence"] = conditional_scores(
            prior_generator.model, evaluators.classifiers, sets["real"].select(labelled), weights[:, labelled], rng
        )
        scores["conditional_samples"] = len(labelled)
    likelihood = log_evidence(prior_generator.model, rows, subset_weights, generator_from(rng))
    return scores if likelihood is None else scores | {"log_evidence": likelihood}
