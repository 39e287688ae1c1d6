"""Stage `utility`: what classifiers learn from synthetic data in place of real data, and how they read each other's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.artefacts.evaluators import load_judges
from postprior.pipelines.data.dataset import Dataset, check_labels
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator, as_set
from postprior.pipelines.metrics.statistics.intervals import SHARE
from postprior.pipelines.metrics.utility.classifiers import names_of, recipe
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import Artefact, load_artefact, save_artefact, write_json
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    from torch import Tensor

    from postprior.pipelines.metrics.features.reader import Reader
    from postprior.pipelines.metrics.utility.classifiers import Classifiers, Replicates

KIND = "utility"
REAL = "real"  # the name of what real data taught


def utility(name: str, params: Params, root: Path) -> None:
    """Train on real data (`real`) or on samples of a density, and test; results/utility/<name>.json.

    Without labels there is nothing to learn, and the file has the numbers of rows alone.
    """
    train, test = (Dataset.load(root / "artefacts/data" / split) for split in ("train", "test"))
    check_labels(train, test)
    written: dict[str, Any] = {"samples": {"train": len(train), "test": len(test)}}
    stage, density = ("utility-real", None) if name == REAL else ("utility", name)
    with track(stage, params, root, density) as run:
        run.dataset(root / "artefacts/data/train", train.hash)
        folder = root / "artefacts/utility" / name
        if train.labels is None:
            save_artefact(folder, KIND, about(params, train, test))
        elif density is None:
            written |= of_real(params, folder, train, test)
        else:
            written |= of_density(density, params, root, train, test)
        write_json(root / f"results/utility/{name}.json", written)


def of_real(params: Params, folder: Path, train: Dataset, test: Dataset) -> dict[str, Any]:
    """The accuracy of classifiers of real data, one set a seed; they are kept for the densities."""
    from postprior.pipelines.metrics.utility.classifiers import seen_by, told, train_classifiers

    hits: list[np.ndarray] = []
    tensors: dict[str, Tensor] = {}
    with progress("utility real", len(params.utility.seeds)) as step:
        for seed in params.utility.seeds:
            classifiers = train_classifiers([train], recipe(params), seed)
            hits.append(classifiers.hits(test))
            tensors |= {f"{seed}/{key}": value for key, value in classifiers.state_dict().items()}
            step(f"accuracy {hits[-1][0].mean():.3f}")
    answers = np.stack(hits)  # (S, 1 + M, N)
    save_artefact(folder, KIND, about(params, train, test), tensors, {"hits": answers})
    shares = replicates(params, test).accuracy(answers, seen_by(test))
    return {"train_real_test_real": told(shares, names_of(test), SHARE)}


def of_density(name: str, params: Params, root: Path, train: Dataset, test: Dataset) -> dict[str, Any]:
    """The accuracy of classifiers of as many samples as there are training rows, other ones a seed, and the reverse."""
    from postprior.pipelines.metrics.utility.classifiers import seen_by, told, train_classifiers

    known = learned_from_real(root, about(params, train, test))
    generator = Generator.load(root / "artefacts/densities" / name)
    judges = load_judges(root / "artefacts/judges") if generator.label_names is None else None
    hits, read = [], []
    with progress(f"utility {name}", len(params.utility.seeds)) as step:
        for seed in params.utility.seeds:
            samples = drawn(generator, judges, len(train), seed, params)
            hits.append(train_classifiers([samples], recipe(params), seed).hits(test))
            read.append(classifiers_of(known, seed, train, params).hits(samples))
            step(f"accuracy {hits[-1][0].mean():.3f}")
    answers, names = np.stack(hits), names_of(test)
    folder = root / "artefacts/utility" / name
    save_artefact(folder, KIND, about(params, train, test), arrays={"hits": answers})
    weights = replicates(params, test)
    ours, theirs = (weights.accuracy(each, seen_by(test)) for each in (answers, known.arrays["hits"]))
    back = replicates(params, replace(samples, labels=None)).accuracy(np.stack(read), seen_by(samples))
    return {
        "train_synthetic_test_real": told(ours, names, SHARE),
        "ratio_to_real": told(ours / np.maximum(theirs, 1 / len(test)), names, (0, np.inf)),
        "train_real_test_synthetic": told(back, names, SHARE),
        "labels_from": samples.provenance["labels_from"],
    }


def drawn(generator: Generator, judges: Reader | None, rows: int, seed: int, params: Params) -> Dataset:
    """Samples as the stage `generate` draws them; a density without labels has them read by the judges."""
    samples = generator.sample(rows, seed, **as_set(params.generate, rows))
    if judges is None:
        return samples
    return replace(
        samples,
        labels=judges.label(samples.data),
        label_names=judges.label_names,
        provenance={**samples.provenance, "labels_from": "judges"},
    )


def learned_from_real(root: Path, expected: dict[str, Any]) -> Artefact:
    """The classifiers of real data, refused where they are of other data or settings."""
    folder = root / "artefacts/utility" / REAL
    known = load_artefact(folder, KIND)
    for key, value in expected.items():
        if (found := known.manifest[key]) != value:
            raise UserError(
                f"{folder}: found classifiers of {key} {found}, expected {value}; run postprior utility real again"
            )
    return known


def classifiers_of(known: Artefact, seed: int, train: Dataset, params: Params) -> Classifiers:
    """The classifiers that real data taught with a seed."""
    from postprior.pipelines.metrics.utility.classifiers import Classifiers
    from postprior.stage2_latent.parts import under

    classifiers = Classifiers(train.modalities, train.label_names or (), params.judge.features)
    classifiers.load_state_dict(under(f"{seed}/", known.tensors))
    return classifiers.eval()


def replicates(params: Params, rows: Dataset) -> Replicates:
    """Half-samples of the seeds and of tested rows, the same for every density."""
    from postprior.pipelines.metrics.utility.classifiers import Replicates

    rng = np.random.default_rng(params.evaluate.seed)
    return Replicates.draw(
        len(params.utility.seeds), rows.sources, params.evaluate.resamples, rng, rows.labels
    )


def about(params: Params, train: Dataset, test: Dataset) -> dict[str, Any]:
    """What classifiers must share to be compared: their data and how they are trained."""
    recipe = {**params.utility.model_dump(mode="json"), "features": params.judge.features}
    return {"data": train.hash, "test": test.hash, **recipe}
