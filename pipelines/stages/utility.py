"""Stages `utility-real` and `utility`: what classifiers learn from real and from synthetic rows.

Those of synthetic rows are tested on real ones and set against those of real rows, which read the synthetic ones.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.request import Request
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.metrics.statistics.intervals import SHARE
from postprior.pipelines.metrics.utility.classifiers import (
    Classifiers,
    Replicates,
    classifier_estimates,
    modality_names,
    observed_by_classifier,
    recipe,
    train_classifiers,
)
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import Artefact, load_artefact, save_artefact, write_json
from postprior.pipelines.tracking.runs import track

KIND = "utility"
REAL = "real"  # the name of what real rows teach; no density has it


def utility_of_real(params: Params, root: Path) -> None:
    """Train classifiers on real rows, one set a seed, keep them and test them; results/utility/real.json.

    Without labels there is nothing to learn, and the file has the numbers of rows alone.
    """
    project = Project(root)
    train, test = project.train_and_test()
    written: dict[str, Any] = {"samples": {"train": len(train), "test": len(test)}}
    tensors: dict[str, Tensor] = {}
    hits: list[np.ndarray] = []
    with track("utility-real", params, root) as run:
        run.dataset(project.artefacts.data / "train", train.hash)
        if train.labels is not None:
            with progress("utility real", len(params.utility.seeds)) as step:
                for seed in params.utility.seeds:
                    classifiers = train_classifiers([train], recipe(params), seed)
                    hits.append(classifiers.hits(test))
                    tensors |= {f"{seed}/{key}": value for key, value in classifiers.state_dict().items()}
                    step(f"accuracy {hits[-1][0].mean():.3f}")
            shares = replicates(params, test).accuracy(np.stack(hits), observed_by_classifier(test))
            written["train_real_test_real"] = classifier_estimates(shares, modality_names(test), SHARE)
        arrays = {"hits": np.stack(hits)} if hits else {}
        save_artefact(project.artefacts.real_utility, KIND, about(params, train, test), tensors, arrays)
        write_json(project.results.scores("utility", REAL), written)


def utility(name: str, params: Params, root: Path) -> None:
    """Train on samples of a density and test on real rows, and the reverse; results/utility/<name>.json.

    There are as many samples as training rows, other ones a seed. Without labels the file has numbers of rows alone.
    """
    project = Project(root)
    train, test = project.train_and_test()
    written: dict[str, Any] = {"samples": {"train": len(train), "test": len(test)}}
    arrays: dict[str, np.ndarray] = {}
    with track("utility", params, root, density=name) as run:
        run.dataset(project.artefacts.data / "train", train.hash)
        if train.labels is not None:
            known = learned_from_real(project.artefacts.real_utility, about(params, train, test))
            generator = Generator.load(project.artefacts.densities / name)
            evaluators = load_evaluators(project.artefacts.evaluators) if generator.label_names is None else None
            arrays["hits"], scores = exchanged(name, generator, evaluators, known, train, test, params)
            written |= scores
        save_artefact(project.artefacts.utility / name, KIND, about(params, train, test), arrays=arrays)
        write_json(project.results.scores("utility", name), written)


def exchanged(
    name: str,
    generator: Generator,
    evaluators: Evaluators | None,
    known: Artefact,
    train: Dataset,
    test: Dataset,
    params: Params,
) -> tuple[np.ndarray, dict[str, Any]]:
    """What classifiers of samples read rightly of the test rows (S, 1 + M, N), and the accuracies of both ways."""
    hits, read = [], []
    with progress(f"utility {name}", len(params.utility.seeds)) as step:
        for seed in params.utility.seeds:
            samples = drawn(generator, evaluators, len(train), seed, params)
            hits.append(train_classifiers([samples], recipe(params), seed).hits(test))
            read.append(classifiers_of(known, seed, train, params).hits(samples))
            step(f"accuracy {hits[-1][0].mean():.3f}")
    answers, names = np.stack(hits), modality_names(test)
    weights = replicates(params, test)
    ours, theirs = (weights.accuracy(each, observed_by_classifier(test)) for each in (answers, known.arrays["hits"]))
    back = replicates(params, replace(samples, labels=None)).accuracy(np.stack(read), observed_by_classifier(samples))
    return answers, {
        "train_synthetic_test_real": classifier_estimates(ours, names, SHARE),
        "ratio_to_real": classifier_estimates(ours / np.maximum(theirs, 1 / len(test)), names, (0, np.inf)),
        "train_real_test_synthetic": classifier_estimates(back, names, SHARE),
        "labels_from": samples.provenance["labels_from"],
    }


def drawn(generator: Generator, evaluators: Evaluators | None, rows: int, seed: int, params: Params) -> Dataset:
    """Samples as the stage `generate` draws them; a density without labels has them read by the evaluators."""
    samples = generator.draw(Request.of(params.generate, rows, seed=seed))
    if evaluators is None:
        return samples
    provenance = {**samples.provenance, "labels_from": "judges"}
    return replace(
        samples, labels=evaluators.label(samples.data), label_names=evaluators.label_names, provenance=provenance
    )


def learned_from_real(folder: Path, expected: dict[str, Any]) -> Artefact:
    """The classifiers of real rows, refused where they are of other data or settings."""
    known = load_artefact(folder, KIND)
    for key, value in expected.items():
        if (found := known.manifest[key]) != value:
            raise UserError(
                f"{folder}: found classifiers of {key} {found}, expected {value}; run postprior utility --real again"
            )
    return known


def classifiers_of(known: Artefact, seed: int, train: Dataset, params: Params) -> Classifiers:
    """The classifiers that real rows taught with a seed."""
    from postprior.stage2_latent.states import strip_prefix

    classifiers = Classifiers(train.modalities, train.label_names or (), params.evaluators.features)
    classifiers.load_state_dict(strip_prefix(f"{seed}/", known.tensors))
    return classifiers.eval()


def replicates(params: Params, rows: Dataset) -> Replicates:
    """Half-samples of the seeds and of tested rows, the same for every density."""
    rng = np.random.default_rng(params.evaluate.seed)
    seeds, resamples = len(params.utility.seeds), params.evaluate.resamples
    return Replicates.draw(seeds, rows.sources, resamples, rng, rows.labels)


def about(params: Params, train: Dataset, test: Dataset) -> dict[str, Any]:
    """What classifiers must share to be compared: their data and how they are trained."""
    settings = {**params.utility.model_dump(mode="json"), "features": params.evaluators.features}
    return {"data": train.hash, "test": test.hash, **settings}
