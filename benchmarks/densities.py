"""Densities against each other, against the mixture that libraries fit, and against reconstructions, on `digits`.

Three questions, each with autoencoders of its own: which density of an MVTCAE's codes is best (`best`, three seeds, the
settings of params.yaml); what the choice of `auto` is worth for every model (`models`) and a joint fit for one with
private codes (`private`); what is best after 200 training samples (`small`). Every run is a file in
benchmarks/densities and is not run again; the numbers in docs/densities.md are written from these files.

    python benchmarks/densities.py [best models private small speed] [--model NAME …] [--seeds 3]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that runs can stand side by side, a core each
os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

import numpy as np
from density_page import FIELD, RESULTS, write_page
from zoo import ROOT, prepare

from postprior import DENSITIES, MODELS
from postprior.pipelines.storage import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from postprior.pipelines.artefacts.baselines import Baselines
    from postprior.pipelines.metrics.statistics.intervals import Scores
    from postprior.stage2_latent.codes import Codes
    from postprior.stage2_latent.density import Density

WORK = ROOT / ".postprior/densities"
SCORES = ("joint_coherence", "frechet_distance", "recall", "coverage", "label_entropy", "label_agreement")


@dataclass(frozen=True)
class Part:
    """One question: the models and how they are trained, and the densities that are fitted to their codes.

    Args:
        models: by name, with the epochs of each.
        densities: entries of `density` in params.yaml, and the options of those that are not there.
        seeds: how many.
        changes: settings that differ from params.yaml.
        pairs: differences that are written, (one, other).
    """

    models: Mapping[str, int]
    densities: Mapping[str, dict[str, Any] | None]
    seeds: int
    pairs: tuple[tuple[str, str], ...]
    changes: dict[str, Any] = field(default_factory=dict)


SETS = 4
"""Sets of draws of every density whose scores are averaged: intervals are those of the comparison, not of draws."""
SHORT = 20
FREE = {"labels": False, "components": [10, 20, 40], "covariance": ["full", "tied"]}
"""Mixtures that know no labels, with more components for it."""
PARTS = {
    "best": Part(
        models={"mvtcae": 40},
        densities=dict.fromkeys([name for name in DENSITIES if name not in ("normal", "independent")] + [FIELD]),
        seeds=3,
        pairs=(("auto", FIELD), ("flow", "gmm"), ("flow_matching", "gmm")),
    ),
    "models": Part(
        models=dict.fromkeys(MODELS, SHORT) | {"mvtcae": 40},
        densities={"auto": None, FIELD: None},
        seeds=1,
        pairs=(("auto", FIELD),),
    ),
    "private": Part(
        models={"dmvae": SHORT},
        densities={
            "gmm": None,
            "gmm_apart": {"kind": "gmm", "independent": True},
            "free": {"kind": "gmm", **FREE},
            "free_apart": {"kind": "gmm", "independent": True, **FREE},
        },
        seeds=3,
        pairs=(("free", "free_apart"), ("gmm", "gmm_apart")),
    ),
    "small": Part(
        models={"mvtcae": 400},
        densities={"riemannian": None, "gmm": None, "flow": None, "kde": None, "auto": None, FIELD: None},
        seeds=3,
        pairs=tuple((name, other) for name in ("riemannian", "gmm", "flow", "auto") for other in (FIELD, "normal")),
        changes={"data": {"digits": {"train": 200, "validation": 100, "test": 2000}}},
    ),
}


def run(part: str, model: str, seed: int) -> dict[str, Any]:
    """Train where that is not done, fit, draw and score; the rows and their differences."""
    from postprior import Generator
    from postprior.pipelines.artefacts.autoencoder import load_autoencoder
    from postprior.pipelines.artefacts.baselines import Baselines
    from postprior.pipelines.artefacts.codes import load_codes
    from postprior.pipelines.artefacts.evaluators import load_evaluators

    plan = PARTS[part]
    params, folder = trained(part, model, seed)
    artefacts = folder / "artefacts"
    baselines, evaluators = Baselines.load(artefacts / "baselines"), load_evaluators(artefacts / "evaluators")
    autoencoder, _ = load_autoencoder(artefacts / "autoencoder")
    codes = {split: load_codes(artefacts / "codes" / split) for split in ("train", "validation", "test")}
    rows: dict[str, dict[str, Any]] = {}
    scores: dict[str, Scores] = {}
    likelihoods: dict[str, np.ndarray] = {}
    for name in ("normal", *plan.densities):
        if name == FIELD:
            density = field_mixture().fit(codes["train"], codes["validation"])
        elif name == "normal":
            density = DENSITIES["normal"]().fit(codes["train"])
        else:
            density = fitted(name, params, folder)
        generator = Generator(autoencoder, density, {})
        scores[name] = scored(generator, evaluators, baselines)
        rows[name] = written(scores[name]) | {"stores": density.stores_training_codes}
        learned = density.state()[1]["learned"]
        if "why" in learned:
            rows[name] |= {"why": learned["why"], "chosen": learned["chosen"]["density"]}
        if part == "best":
            rows[name]["coherence_to_choose_by"] = coherence_to_choose_by(generator, evaluators, len(baselines))
        if density.exact_log_prob:
            likelihoods[name] = log_likelihood(density, codes["test"])
            rows[name]["log_likelihood"] = float(likelihoods[name].mean())
            rows[name]["validation_log_likelihood"] = float(log_likelihood(density, codes["validation"]).mean())
        print(
            part,
            model,
            seed,
            name,
            {k: round(rows[name][k]["value"], 3) for k in SCORES if rows[name].get(k)},
            flush=True,
        )
    metrics = folder / "results/metrics"
    rows |= {name: known(read_json(metrics / f"{name}.json")) for name in ("reconstruction", "real")}
    return {
        "part": part,
        "model": model,
        "seed": seed,
        "epochs": plan.models[model],
        "rows": rows,
        "differences": {
            f"{one} - {other}": difference(one, other, scores, likelihoods, artefacts) for one, other in plan.pairs
        },
    }


def trained(part: str, model: str, seed: int) -> tuple[Any, Path]:
    """The project of a run, its autoencoder trained, its codes and reference made."""
    from postprior.pipelines.stages.encode import encode
    from postprior.pipelines.stages.score_baselines import score_baselines
    from postprior.pipelines.stages.train import train

    plan = PARTS[part]
    work = WORK / part if plan.changes else WORK
    own = {name: options for name, options in plan.densities.items() if options is not None}
    fitted_here = [name for name in plan.densities if name != FIELD]
    changes = {
        **plan.changes,
        "train": {"epochs": plan.models[model]},
        "density": own,
        "densities": fitted_here,
    }
    evaluators = work / f"seed-{seed}" / "artefacts/evaluators"
    if plan.changes and not evaluators.exists():  # few rows train poor evaluators; the source images are the same
        whole = prepare(model, seed, WORK, {})[1]
        shutil.copytree(whole / "artefacts/evaluators", evaluators)
    params, folder = prepare(model, seed, work, changes)
    for made, stage in (("autoencoder", train), ("codes/test", encode), ("baselines", score_baselines)):
        if not (folder / "artefacts" / made).exists():
            stage(params, folder)
    return params, folder


def fitted(name: str, params: Any, folder: Path) -> Density:
    """The density that the stage `fit` leaves, or has left."""
    from postprior import load_density
    from postprior.pipelines.stages.fit import fit

    made = folder / "artefacts/densities" / name
    if not made.exists():
        fit(name, params, folder)
    return load_density(made)


def scored(generator: Any, evaluators: Any, baselines: Baselines) -> Scores:
    """Scores of as many draws as the reference has rows, with all half-samples: means over `SETS` sets of draws."""
    from postprior.pipelines.metrics.scores import score
    from postprior.pipelines.stages.evaluate import scored_rows

    every = []
    for seed in range(SETS):
        samples = generator.sample(len(baselines), seed=seed)
        outputs = evaluators.outputs(scored_rows(samples, len(baselines)))
        every.append(score(outputs, baselines.weights, baselines.reference))
    return {name: np.mean([scores[name] for scores in every], axis=0) for name in every[0]}


def coherence_to_choose_by(generator: Any, evaluators: Any, rows: int) -> float:
    """Joint coherence of draws that are not reported: it needs evaluators, which saw training rows, and no test row."""
    from postprior.pipelines.metrics.coherence.agreement import joint_agreement

    sets = (generator.sample(rows, seed=SETS + seed) for seed in range(SETS))
    return float(np.mean([joint_agreement(evaluators.outputs(samples).predictions).mean() for samples in sets]))


def field_mixture() -> Density:
    """An unfitted mixture of ten full-covariance Gaussians by scikit-learn, on one draw of every row, as it comes."""
    import torch
    from sklearn.mixture import GaussianMixture

    from postprior.stage2_latent.density import Density
    from postprior.stage2_latent.gaussians import Gaussians

    class FieldMixture(Density):
        name, whitens, labelled = FIELD, False, False

        def _fit(self, task: Any) -> None:
            z = task.train.draw(task.generator)
            mixture = GaussianMixture(10, random_state=0).fit(z.double().numpy())
            factors = torch.from_numpy(mixture.precisions_cholesky_).mT
            parts = torch.from_numpy(mixture.weights_).log(), torch.from_numpy(mixture.means_), factors
            self.mixture = Gaussians(*(part.to(z).unsqueeze(0) for part in parts))

        def _log_prob(self, x: Tensor, index: int) -> Tensor:
            return self.mixture.log_prob(x.unsqueeze(0)).squeeze(0)

        def _sample(self, classes: Tensor, generator: Any, temperature: float) -> Tensor:
            return self.mixture.sample(classes, generator, temperature)

        def _tensors(self) -> dict[str, Tensor]:
            return vars(self.mixture)

        def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
            self.mixture = Gaussians(*(tensors[name] for name in ("log_weights", "means", "factors")))

    return FieldMixture()


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """What an action gives, and its seconds."""
    start = time.perf_counter()
    return action(), time.perf_counter() - start


def log_likelihood(density: Density, codes: Codes) -> np.ndarray:
    """log p(z) of one posterior draw of every row, (N,)."""
    import torch

    with torch.no_grad():
        return density.log_prob(codes.draw(torch.Generator().manual_seed(1))).double().numpy()


def written(scores: Scores) -> dict[str, Any]:
    """Scores with intervals; of the labels' entropy also the lowest of any modality."""
    from postprior.pipelines.metrics.statistics.intervals import estimate

    row = {name: estimate(scores[name]) for name in SCORES if name in scores}
    row["lowest_entropy"] = min(float(v[0]) for name, v in scores.items() if name.startswith("label_entropy/"))
    return row


def known(metrics: dict[str, Any]) -> dict[str, Any]:
    """The same of a row that the pipeline scored."""
    row = {name: metrics[name] for name in SCORES if metrics.get(name)}
    row["lowest_entropy"] = min(m["label_entropy"]["value"] for m in metrics["modalities"].values())
    return row


def difference(
    one: str,
    other: str,
    scores: Mapping[str, Scores],
    likelihoods: Mapping[str, np.ndarray],
    artefacts: Path,
) -> dict[str, Any]:
    """Differences with 95 % intervals: of scores by half-sample, of log-likelihoods over half-samples of sources."""
    from postprior import Dataset
    from postprior.pipelines.metrics.statistics.intervals import estimate, half_samples, weighted_mean

    found = {name: estimate(scores[one][name] - scores[other][name]) for name in SCORES[:4]}
    if one in likelihoods and other in likelihoods:
        test = Dataset.load(artefacts / "data/test")
        groups = np.arange(len(test)) if test.groups is None else test.groups
        weights = half_samples(groups, 400, np.random.default_rng(0), test.labels)
        found["log_likelihood"] = estimate(weighted_mean(likelihoods[one] - likelihoods[other], weights))
    return found


def speed() -> dict[str, Any]:
    """Seconds to fit each density to 5,000 codes of 32 dimensions and to draw 100,000, with two threads."""
    import torch

    from postprior.pipelines.artefacts.codes import load_codes
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.generation.fitting import FrozenEncoder
    from postprior.pipelines.settings.checks import load_params, read_entry
    from postprior.pipelines.stages.fit import trained_on

    torch.set_num_threads(2)
    _, folder = trained("best", "mvtcae", 0)
    codes = {split: load_codes(folder / "artefacts/codes" / split) for split in ("train", "validation")}
    encoder = FrozenEncoder(partial(trained_on, Project(folder), codes_autoencoder(folder)))
    settings = load_params(ROOT / "params.yaml").density
    found = {}
    for name in (name for name in DENSITIES if name != "auto"):  # which is the sum of its candidates
        options = read_entry(name, settings.get(name, {}))[1]
        generator = torch.Generator().manual_seed(0)
        density, fit = timed(
            lambda name=name, options=options, generator=generator: DENSITIES[name](**options).fit(
                codes["train"], codes["validation"], generator, encoder
            )
        )
        _, draw = timed(lambda density=density: density.sample(100_000))
        size = sum(value.numel() * value.element_size() for value in density.state()[0].values())
        found[name] = {"fit": fit, "draw": draw, "megabytes": size / 1e6}
        print("speed", name, {key: round(value, 1) for key, value in found[name].items()}, flush=True)
    return found


def memory(name: str) -> dict[str, float]:
    """Gigabytes and seconds of a fit to 100,000 codes of 512 dimensions, in a process of its own."""
    import torch

    from postprior.stage1_vae.distributions import Mixture, Normal
    from postprior.stage2_latent.codes import Block, Codes

    rows, size, generator = 100_000, 512, torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % 10
    loc = torch.randn(10, size, generator=generator)[labels]
    loc += torch.randn(rows, 16, generator=generator) @ torch.randn(16, size, generator=generator)
    prior = Mixture.single(Normal(torch.zeros(size), torch.ones(size)))
    names = tuple(str(label) for label in range(10))
    layout, observed = (Block("z", (size,)),), torch.ones(rows, 1, dtype=torch.bool)
    scale = torch.full((rows, 1, size), 0.3)
    weights = torch.ones(rows, 1)
    codes = Codes(layout, "normal", loc.unsqueeze(1), scale, weights, observed, prior, labels, label_names=names)
    del loc
    options = {"gmm": {"covariance": "low_rank", "components": [1, 4]}}.get(name, {})
    _, seconds = timed(lambda: DENSITIES[name](**options).fit(codes))
    return {"gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "seconds": seconds}


def codes_autoencoder(folder: Path) -> str:
    from postprior.pipelines.storage import load_artefact

    autoencoder: str = load_artefact(folder / "artefacts/codes/train", "codes").manifest["autoencoder"]
    return autoencoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--model", nargs="*", default=None, help="these models alone")
    parser.add_argument("--seeds", type=int, default=None, help="instead of the part's own number")
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for part in given.parts:
        if part == "speed":
            write_json(RESULTS / "speed.json", speed())
        elif part.startswith("memory:"):
            name = part.partition(":")[2]
            file = RESULTS / "memory.json"
            known_sizes = read_json(file) if file.exists() else {}
            write_json(file, known_sizes | {name: memory(name)})
        else:
            plan = PARTS[part]
            for seed in range(given.seeds or plan.seeds):
                for model in given.model or plan.models:
                    file = RESULTS / f"{part}-{model}-{seed}.json"
                    if not file.exists():
                        write_json(file, run(part, model, seed))
        write_page()


if __name__ == "__main__":
    main()
