"""Compares densities with each other, with the mixture that other libraries fit, and with reconstructions, on `digits`.

There are four experiments, each with its own autoencoders:

- `best`: which density of the codes of an MVTCAE is best (three seeds, the settings of params.yaml);
- `models`: what the choice of `auto` gains for every model;
- `private`: what a joint fit of shared and private codes gains;
- `small`: which density is best with 200 training samples.

Two further parts measure cost: `speed` for all densities, and `memory:NAME` for one. Every run is stored as a file in
benchmarks/densities and is not run again. The numbers in docs/densities.md are written from these files.

    python benchmarks/densities.py [best models private small speed memory:NAME] [--model NAME …] [--seeds 3]
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

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that several processes can run in parallel, one core per process
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
class Experiment:
    """The models of an experiment and their training, and the densities that are fitted to their codes.

    Args:
        models: number of epochs of each model, by name.
        densities: names of entries of `density` in params.yaml, and the options of entries that are not in it.
        seeds: number of seeds.
        pairs: pairs of densities (one, other) whose difference is written.
        changes: settings that differ from params.yaml.
    """

    models: Mapping[str, int]
    densities: Mapping[str, dict[str, Any] | None]
    seeds: int
    pairs: tuple[tuple[str, str], ...]
    changes: dict[str, Any] = field(default_factory=dict)


SETS = 4
"""Sets of samples per density whose scores are averaged, so that intervals reflect the comparison, not the samples."""
SHORT = 20
"""Epochs of a short training."""
UNLABELLED = {"labels": False, "components": [10, 20, 40], "covariance": ["full", "tied"]}
"""Options of mixtures without labels, which get more components in return."""
EXPERIMENTS = {
    "best": Experiment(
        models={"mvtcae": 40},
        densities=dict.fromkeys([name for name in DENSITIES if name not in ("normal", "independent")] + [FIELD]),
        seeds=3,
        pairs=(("auto", FIELD), ("flow", "gmm"), ("flow_matching", "gmm")),
    ),
    "models": Experiment(
        models=dict.fromkeys(MODELS, SHORT) | {"mvtcae": 40},
        densities={"auto": None, FIELD: None},
        seeds=1,
        pairs=(("auto", FIELD),),
    ),
    "private": Experiment(
        models={"dmvae": SHORT},
        densities={
            "gmm": None,
            "gmm_apart": {"kind": "gmm", "independent": True},
            "free": {"kind": "gmm", **UNLABELLED},
            "free_apart": {"kind": "gmm", "independent": True, **UNLABELLED},
        },
        seeds=3,
        pairs=(("free", "free_apart"), ("gmm", "gmm_apart")),
    ),
    "small": Experiment(
        models={"mvtcae": 400},
        densities={"riemannian": None, "gmm": None, "flow": None, "kde": None, "auto": None, FIELD: None},
        seeds=3,
        pairs=tuple((name, other) for name in ("riemannian", "gmm", "flow", "auto") for other in (FIELD, "normal")),
        changes={"data": {"digits": {"train": 200, "validation": 100, "test": 2000}}},
    ),
}


def run(part: str, model: str, seed: int) -> dict[str, Any]:
    """Train an autoencoder if there is none, fit, draw and score; return the rows and their differences."""
    from postprior import Generator
    from postprior.pipelines.artefacts.autoencoder import load_autoencoder
    from postprior.pipelines.artefacts.baselines import Baselines
    from postprior.pipelines.artefacts.codes import load_codes
    from postprior.pipelines.artefacts.evaluators import load_evaluators

    experiment = EXPERIMENTS[part]
    params, folder = trained(part, model, seed)
    artefacts = folder / "artefacts"
    baselines, evaluators = Baselines.load(artefacts / "baselines"), load_evaluators(artefacts / "evaluators")
    autoencoder, _ = load_autoencoder(artefacts / "autoencoder")
    codes = {split: load_codes(artefacts / "codes" / split) for split in ("train", "validation", "test")}
    rows: dict[str, dict[str, Any]] = {}
    scores: dict[str, Scores] = {}
    likelihoods: dict[str, np.ndarray] = {}
    for name in ("normal", *experiment.densities):
        if name == FIELD:
            density = field_mixture().fit(codes["train"], codes["validation"])
        elif name == "normal":
            density = DENSITIES["normal"]().fit(codes["train"])
        else:
            density = fitted(name, params, folder)
        generator = Generator(autoencoder, density, {})
        scores[name] = mean_scores(generator, evaluators, baselines)
        rows[name] = row_of_scores(scores[name]) | {"stores": density.stores_training_codes}
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
    rows |= {name: row_of_metrics(read_json(metrics / f"{name}.json")) for name in ("reconstruction", "real")}
    return {
        "part": part,
        "model": model,
        "seed": seed,
        "epochs": experiment.models[model],
        "rows": rows,
        "differences": {
            f"{one} - {other}": difference(one, other, scores, likelihoods, artefacts)
            for one, other in experiment.pairs
        },
    }


def trained(part: str, model: str, seed: int) -> tuple[Any, Path]:
    """Return the settings and the folder of the project of a run, with autoencoder, codes and baselines."""
    from postprior.pipelines.stages.encode import encode
    from postprior.pipelines.stages.score_baselines import score_baselines
    from postprior.pipelines.stages.train import train

    experiment = EXPERIMENTS[part]
    work = WORK / part if experiment.changes else WORK
    added_options = {name: options for name, options in experiment.densities.items() if options is not None}
    pipeline_densities = [name for name in experiment.densities if name != FIELD]
    changes = {
        **experiment.changes,
        "train": {"epochs": experiment.models[model]},
        "density": added_options,
        "densities": pipeline_densities,
    }
    evaluators = work / f"seed-{seed}" / "artefacts/evaluators"
    if experiment.changes and not evaluators.exists():
        # Few rows would train poor evaluators. Those of the full data can be used, as the source images are the same.
        full_data = prepare(model, seed, WORK, {})[1]
        shutil.copytree(full_data / "artefacts/evaluators", evaluators)
    params, folder = prepare(model, seed, work, changes)
    for artefact, stage in (("autoencoder", train), ("codes/test", encode), ("baselines", score_baselines)):
        if not (folder / "artefacts" / artefact).exists():
            stage(params, folder)
    return params, folder


def fitted(name: str, params: Any, folder: Path) -> Density:
    """Return the density that the stage `fit` writes; run the stage if there is none."""
    from postprior import load_density
    from postprior.pipelines.stages.fit import fit

    path = folder / "artefacts/densities" / name
    if not path.exists():
        fit(name, params, folder)
    return load_density(path)


def mean_scores(generator: Any, evaluators: Any, baselines: Baselines) -> Scores:
    """Return scores with all half-samples, averaged over `SETS` sets of `len(baselines)` samples each."""
    from postprior.pipelines.metrics.scores import score
    from postprior.pipelines.scoring.evaluation import scored_rows

    scores_of_sets = []
    for seed in range(SETS):
        samples = generator.sample(len(baselines), seed=seed)
        whole = np.ones((len(baselines), len(samples.modalities)), bool)
        outputs = evaluators.outputs(scored_rows(samples, whole))
        scores_of_sets.append(score(outputs, baselines.weights, baselines.reference))
    return {name: np.mean([scores[name] for scores in scores_of_sets], axis=0) for name in scores_of_sets[0]}


def coherence_to_choose_by(generator: Any, evaluators: Any, rows: int) -> float:
    """Return the joint coherence of samples that are not reported.

    It does not use test rows: it only needs the evaluators, which are trained on training rows.
    """
    from postprior.pipelines.metrics.coherence.agreement import joint_agreement

    sets = (generator.sample(rows, seed=SETS + seed) for seed in range(SETS))
    return float(np.mean([joint_agreement(evaluators.outputs(samples).predictions).mean() for samples in sets]))


def field_mixture() -> Density:
    """Return an unfitted scikit-learn mixture of ten full-covariance Gaussians.

    It is fitted to one posterior draw per row, without whitening or labels.
    """
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
            parameters = torch.from_numpy(mixture.weights_).log(), torch.from_numpy(mixture.means_), factors
            self.mixture = Gaussians(*(parameter.to(z).unsqueeze(0) for parameter in parameters))

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
    """Return the result of an action and the seconds that it took."""
    start = time.perf_counter()
    return action(), time.perf_counter() - start


def log_likelihood(density: Density, codes: Codes) -> np.ndarray:
    """Return log p(z) of one posterior draw per row, (N,)."""
    import torch

    with torch.no_grad():
        return density.log_prob(codes.draw(torch.Generator().manual_seed(1))).double().numpy()


def row_of_scores(scores: Scores) -> dict[str, Any]:
    """Return scores with intervals, and the lowest label entropy of any modality."""
    from postprior.pipelines.metrics.statistics.intervals import estimate

    row = {name: estimate(scores[name]) for name in SCORES if name in scores}
    row["lowest_entropy"] = min(float(v[0]) for name, v in scores.items() if name.startswith("label_entropy/"))
    return row


def row_of_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the same values as `row_of_scores` from the metrics of a row that the pipeline scored."""
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
    """Return paired differences of scores and log-likelihoods, with 95 % intervals from half-samples of the sources."""
    from postprior import Dataset
    from postprior.pipelines.metrics.statistics.intervals import estimate, half_samples, weighted_mean

    differences = {name: estimate(scores[one][name] - scores[other][name]) for name in SCORES[:4]}
    if one in likelihoods and other in likelihoods:
        test = Dataset.load(artefacts / "data/test")
        groups = np.arange(len(test)) if test.groups is None else test.groups
        weights = half_samples(groups, 400, np.random.default_rng(0), test.labels)
        differences["log_likelihood"] = estimate(weighted_mean(likelihoods[one] - likelihoods[other], weights))
    return differences


def speed() -> dict[str, Any]:
    """Return the seconds to fit each density to 5,000 codes of 32 dimensions and to draw 100,000, with two threads."""
    import torch

    from postprior.pipelines.artefacts.codes import load_codes
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.generation.fitting import FrozenEncoder
    from postprior.pipelines.settings.checks import read_entry
    from postprior.pipelines.stages.fit import trained_on

    torch.set_num_threads(2)
    params, folder = trained("best", "mvtcae", 0)
    codes = {split: load_codes(folder / "artefacts/codes" / split) for split in ("train", "validation")}
    encoder = FrozenEncoder(partial(trained_on, Project(folder), codes_autoencoder(folder)))
    costs = {}
    for name in (name for name in DENSITIES if name != "auto"):  # `auto` costs the sum of its candidates
        options = read_entry(name, params.density.get(name, {}))[1]
        generator = torch.Generator().manual_seed(0)
        density, fit = timed(
            lambda name=name, options=options, generator=generator: DENSITIES[name](**options).fit(
                codes["train"], codes["validation"], generator, encoder
            )
        )
        _, draw = timed(lambda density=density: density.sample(100_000))
        size = sum(value.numel() * value.element_size() for value in density.state()[0].values())
        costs[name] = {"fit": fit, "draw": draw, "megabytes": size / 1e6}
        print("speed", name, {key: round(value, 1) for key, value in costs[name].items()}, flush=True)
    return costs


def memory(name: str) -> dict[str, float]:
    """Return the peak gigabytes of this process and the seconds of a fit to 100,000 codes of 512 dimensions.

    Run it in a separate process for each density.
    """
    import torch

    from postprior import Block
    from postprior.stage1_vae.distributions import Mixture, Normal
    from postprior.stage2_latent.codes import Codes

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
    """Return the identifier of the autoencoder that encoded the training codes."""
    from postprior.pipelines.storage import load_artefact

    autoencoder: str = load_artefact(folder / "artefacts/codes/train", "codes").manifest["autoencoder"]
    return autoencoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(EXPERIMENTS), help="experiments, speed, or memory:NAME")
    parser.add_argument("--model", nargs="*", default=None, help="models to run; by default those of the experiment")
    parser.add_argument("--seeds", type=int, default=None, help="number of seeds; by default that of the experiment")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for part in arguments.parts:
        if part == "speed":
            write_json(RESULTS / "speed.json", speed())
        elif part.startswith("memory:"):
            name = part.partition(":")[2]
            file = RESULTS / "memory.json"
            sizes = read_json(file) if file.exists() else {}
            write_json(file, sizes | {name: memory(name)})
        else:
            experiment = EXPERIMENTS[part]
            for seed in range(arguments.seeds or experiment.seeds):
                for model in arguments.model or experiment.models:
                    file = RESULTS / f"{part}-{model}-{seed}.json"
                    if not file.exists():
                        write_json(file, run(part, model, seed))
        write_page()


if __name__ == "__main__":
    main()
