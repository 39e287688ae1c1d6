"""Utility: train label classifiers on real rows and on synthetic rows.

Classifiers trained on synthetic rows are tested on real rows and compared with those trained on real rows, which are
also tested on the synthetic rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.metrics.statistics.intervals import SHARE
from postprior.pipelines.metrics.utility.classifiers import (
    Classifiers,
    Replicates,
    classifier_estimates,
    modality_names,
    ratio_estimates,
    recipe,
    rows_by_classifier,
    train_classifiers,
)
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import Artefact, load_artefact, save_artefact, write_json

KIND = "utility"
REAL = "real"  # name of the results of real rows; no density has it


@dataclass(frozen=True)
class Utility:
    """The accuracies of classifiers, which test rows they label correctly, and the weights of those of real rows."""

    scores: dict[str, Any]
    about: dict[str, Any]  # the data and settings that classifiers must share to be compared
    arrays: dict[str, np.ndarray]
    tensors: dict[str, Tensor]

    def save(self, project: Project, name: str) -> None:
        """Write artefacts/utility/<name> and results/utility/<name>.json; `name` is a density or `real`."""
        save_artefact(project.artefacts.utility / name, KIND, self.about, self.tensors, self.arrays)
        write_json(project.results.scores("utility", name), self.scores)


def utility_of_real(train: Dataset, test: Dataset, params: Params) -> Utility:
    """Train classifiers on real rows, one set per seed, and test them.

    Without labels or without seeds, there are the numbers of rows only.
    """
    written: dict[str, Any] = {"samples": {"train": rows_of(train), "test": rows_of(test)}}
    tensors: dict[str, Tensor] = {}
    hits: list[np.ndarray] = []
    if train.labels is not None and params.utility.seeds:
        with progress("utility of real rows", len(params.utility.seeds)) as step:
            for seed in params.utility.seeds:
                classifiers = train_classifiers([train], recipe(params), seed)
                hits.append(classifiers.hits(test))
                tensors |= {f"{seed}/{key}": value for key, value in classifiers.state_dict().items()}
                step(f"accuracy {hits[-1][0].mean():.3f}")
        shares = replicates(params, test).accuracy(np.stack(hits), rows_by_classifier(test.labels, test.observed))
        written["train_real_test_real"] = classifier_estimates(shares, modality_names(test), SHARE)
    return Utility(written, about(params, train, test), {"hits": np.stack(hits)} if hits else {}, tensors)


def utility(
    name: str,
    generator: Callable[[], Generator],
    evaluators: Callable[[], Evaluators],
    real: Path,
    train: Dataset,
    test: Dataset,
    params: Params,
) -> Utility:
    """Train on samples of a density and test on real rows, and vice versa.

    The number of samples is that of the training rows with a label, or that of the rows that the steps of training
    can use, if this is smaller; each seed has its own samples. Without labels or without seeds, there are the numbers
    of rows only.

    Args:
        generator: Loads the generator; without labels or seeds, it is not needed.
        evaluators: Loads the label classifiers, which label the samples of a density without labels.
        real: The folder of the classifiers trained on real rows.

    Raises:
        UserError: The classifiers trained on real rows have other data or settings.
    """
    written: dict[str, Any] = {"samples": {"train": rows_of(train), "test": rows_of(test)}}
    arrays: dict[str, np.ndarray] = {}
    if train.labels is not None and params.utility.seeds:
        classifiers = load_real_classifiers(real, about(params, train, test))
        loaded = generator()
        judges = evaluators() if loaded.label_names is None else None
        arrays["hits"], scores = score_both_ways(name, loaded, judges, classifiers, train, test, params)
        written |= scores
    return Utility(written, about(params, train, test), arrays, {})


def score_both_ways(
    name: str,
    generator: Generator,
    evaluators: Evaluators | None,
    real: Artefact,
    train: Dataset,
    test: Dataset,
    params: Params,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return which test rows the classifiers trained on samples label correctly (S, 1 + M, N), and the accuracies.

    The accuracies are those of train on synthetic and test on real, and of train on real and test on synthetic.
    """
    hits, sample_hits, used = [], [], params.utility.steps * params.utility.batch_size
    count = min(int(train.labelled.sum()), used)
    with progress(f"utility {name}", 2 * len(params.utility.seeds)) as step:
        for seed in params.utility.seeds:
            samples = draw_samples(generator, evaluators, count, seed, params)
            step("samples")
            hits.append(train_classifiers([samples], recipe(params), seed).hits(test))
            sample_hits.append(classifiers_of(real, seed, train, params).hits(samples))
            step(f"accuracy {hits[-1][0].mean():.3f}")
    test_hits, names = np.stack(hits), modality_names(test)
    weights = replicates(params, test)
    tested = rows_by_classifier(test.labels, test.observed)
    synthetic_to_real, real_to_real = (weights.accuracy(x, tested) for x in (test_hits, real.arrays["hits"]))
    unlabelled, tested_samples = replace(samples, labels=None), rows_by_classifier(samples.labels, samples.observed)
    real_to_synthetic = replicates(params, unlabelled).accuracy(np.stack(sample_hits), tested_samples)
    return test_hits, {
        "train_synthetic_test_real": classifier_estimates(synthetic_to_real, names, SHARE),
        "ratio_to_real": ratio_estimates(synthetic_to_real, real_to_real, len(test), names),
        "train_real_test_synthetic": classifier_estimates(real_to_synthetic, names, SHARE),
        "labels_from": samples.provenance["labels_from"],
    }


def draw_samples(generator: Generator, evaluators: Evaluators | None, rows: int, seed: int, params: Params) -> Dataset:
    """Draw samples as the stage `generate` does; if the density has no labels, the label classifiers predict them."""
    samples = generator.draw(SampleRequest.from_settings(params.generate, rows, seed=seed))
    if evaluators is None:
        return samples
    provenance = {**samples.provenance, "labels_from": "judges"}
    return replace(samples, labels=evaluators.label(samples), label_names=evaluators.label_names, provenance=provenance)


def load_real_classifiers(folder: Path, expected: dict[str, Any]) -> Artefact:
    """Load the classifiers trained on real rows; a UserError is raised if their data or settings differ."""
    artefact = load_artefact(folder, KIND)
    for key, value in expected.items():
        if (found := artefact.manifest[key]) != value:
            raise UserError(
                f"{folder}: found classifiers with {key} {found}, expected {value}; run postprior utility --real again"
            )
    return artefact


def classifiers_of(real: Artefact, seed: int, train: Dataset, params: Params) -> Classifiers:
    """Restore the classifiers that were trained on real rows with a seed."""
    from postprior.stage2_latent.states import strip_prefix

    classifiers = Classifiers(train.modalities, train.label_names or (), params.evaluators.features)
    classifiers.load_state_dict(strip_prefix(f"{seed}/", real.tensors))
    return classifiers.eval()


def replicates(params: Params, rows: Dataset) -> Replicates:
    """Draw half-samples of the seeds and of the tested rows; they are the same for every density."""
    rng = np.random.default_rng(params.evaluate.seed)
    seeds, resamples = len(params.utility.seeds), params.evaluate.resamples
    return Replicates.draw(seeds, rows.sources, resamples, rng, rows.labels)


def rows_of(split: Dataset) -> int:
    """Return the number of rows that classifiers can use: those with a label, if there are labels."""
    return len(split) if split.labels is None else int(split.labelled.sum())


def about(params: Params, train: Dataset, test: Dataset) -> dict[str, Any]:
    """Return the data and settings that classifiers must share to be compared."""
    settings = {**params.utility.model_dump(mode="json"), "features": params.evaluators.features}
    return {"data": train.hash, "test": test.hash, **settings}
