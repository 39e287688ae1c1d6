"""Repeats the papers' comparison of five models on PolyMNIST with `digits`, by postprior and by MultiVae 1.0.3.

Both libraries train the same networks (three convolutions of stride 2) on the same rows for the same epochs with AdamW
and a learning rate that falls along a cosine, each with its own trainer. The same label classifiers judge both:
conditional coherence by the number of observed modalities, and joint coherence of samples from the prior, a masked
flow, a mixture of ten Gaussians and, for postprior, its mixture with labels. Each library, model and seed is a file in
benchmarks/reproduction and is not run again with the same settings. docs/reproduction.md is written from these files.
`make bench-reproduction` creates the environment that MultiVae needs; without it, only postprior is run.

    .venv-multivae/bin/python benchmarks/reproduction.py [--seeds 3] [--smallest] [MODEL …]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

import numpy as np
import torch
from densities import field_mixture
from reproduction_page import write_page
from zoo import ROOT

from postprior import DENSITIES, MODELS, Dataset, Generator
from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.data.sources.digits import make_digits
from postprior.pipelines.metrics.coherence.agreement import joint_agreement, share_right, subsets_by_size
from postprior.pipelines.metrics.features.fitting import fit_evaluators
from postprior.pipelines.metrics.statistics.intervals import estimate, half_samples, weighted_mean
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.storage import read_json, write_json
from postprior.stage1_vae.randomness import generator_for
from postprior.stage1_vae.training import Settings, train

RESULTS = Path(__file__).with_name("reproduction")
NETWORKS = "polymnist_networks:Encoder,polymnist_networks:Decoder"
SCALE = 0.1
"""Scale of the Laplace likelihoods. The papers have 0.75, for three times as many values per image and more steps."""
COMPONENTS, SUBSETS = 10, 4
DIMENSIONS = "latent", "private", "modalities_specific_dim"


@dataclass(frozen=True)
class Budget:
    """What a run costs; results with another budget are made again."""

    rows: int = 2000
    epochs: int = 40
    batch: int = 32
    learning_rate: float = 2e-3
    judged: int = 1000
    conditional: int = 300
    flow_steps: int = 240
    width: int = 16
    largest: int = 64
    """Largest number of dimensions of a code."""


SMALLEST = Budget(rows=100, epochs=1, judged=40, conditional=20, flow_steps=1, width=2, largest=4)


@dataclass(frozen=True)
class Recipe:
    """A model in both libraries: options of postprior, and those of the configuration of MultiVae."""

    options: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)


MIXED = {"latent": 32, "private": 32, "draws": 1, "estimator": "iwae", "beta": 2.5}
THEIR_MIXED = {"modalities_specific_dim": 32, "K": 1, "loss": "iwae_looser", "beta": 2.5}
RECIPES = {
    "mvtcae": Recipe({"latent": 512, "alpha": 5 / 6, "beta": 2.5}, {"alpha": 5 / 6, "beta": 2.5}),
    "mopoe": Recipe({"latent": 512, "beta": 2.5}, {"beta": 2.5}),
    "mmvaeplus": Recipe({**MIXED, "family": "laplace"}, THEIR_MIXED),
    "jnf": Recipe({"latent": 64}),
    "cmvae": Recipe(
        {**MIXED, "family": "normal", "clusters": 20},
        {**THEIR_MIXED, "prior_and_posterior_dist": "normal", "number_of_clusters": 20},
    ),
}
"""The models of the papers. JNF has 64 dimensions, as in its paper; products have 512."""
Images = Mapping[str, np.ndarray]


class Judges:
    """The data of a seed, label classifiers, and the scores that they give."""

    def __init__(self, seed: int, budget: Budget) -> None:
        params = load_params(ROOT / "params.yaml").model_copy(update={"seed": seed})
        self.splits = make_digits(seed, ROOT, budget.rows, max(50, budget.rows // 10), budget.judged)
        self.evaluators = fit_evaluators(self.splits["train"], params, ROOT)
        self.rows = self.splits["test"].select(np.arange(budget.conditional))
        rng = np.random.default_rng(seed)
        self.subsets = subsets_by_size(len(self.rows.modalities), SUBSETS, rng)
        self.weights = half_samples(np.arange(budget.judged), 200, rng)
        self.row_weights = half_samples(self.rows.sources, 200, rng, self.rows.labels)

    def labels(self, images: Images) -> np.ndarray:
        """Return the predicted labels (N, M) of images."""
        data = {m.name: np.clip(images[m.name], 0, 1).astype(np.float32) for m in self.rows.modalities}
        return self.evaluators.outputs(Dataset(self.rows.modalities, data)).predictions

    def joint(self, images: Images) -> dict[str, Any]:
        """Return the joint coherence of samples, with its interval."""
        return estimate(weighted_mean(joint_agreement(self.labels(images)), self.weights), (0, 1))

    def samplers(self, draws: Mapping[str, Callable[[], Images]]) -> dict[str, Any]:
        """Return the joint coherence of each sampler; None if its fit did not stay finite."""
        scores: dict[str, Any] = {}
        for title, draw in draws.items():
            try:
                scores[title] = self.joint(draw())
            except ArithmeticError as error:
                print(f"{title}: {error}", flush=True)
                scores[title] = None
        return scores

    def conditional(self, completed: Callable[[int], Images]) -> dict[str, Any]:
        """Return conditional coherence by the number of observed modalities.

        `completed` generates all modalities from the subset with a number.
        """
        predictions = np.stack([self.labels(completed(place)) for place in range(len(self.subsets))], 1)  # (N, S, M)
        assert self.rows.labels is not None
        right, counts = share_right(predictions, self.rows.labels, self.subsets), self.subsets.sum(1)
        means = {size: right[:, counts == size].mean(1) for size in np.unique(counts).tolist()}
        return {str(size): estimate(weighted_mean(values, self.row_weights), (0, 1)) for size, values in means.items()}


def model_of(name: str, data: Dataset, seed: int, budget: Budget) -> Any:
    """Return an untrained model with the networks of the papers."""
    networks = {m.name: NETWORKS for m in data.modalities}
    sizes = {"width": budget.width, "likelihood_scale": SCALE, "networks": networks, "seed": seed}
    return MODELS[name](data.modalities, **sizes, **limited(RECIPES[name].options, budget))


def limited(options: Mapping[str, Any], budget: Budget) -> dict[str, Any]:
    """Return options in which no code has more dimensions than the budget allows."""
    return {key: min(value, budget.largest) if key in DIMENSIONS else value for key, value in options.items()}


def ours(name: str, seed: int, budget: Budget, judges: Judges) -> dict[str, Any]:
    """Train with postprior and score."""
    data = judges.splits["train"]
    model = model_of(name, data, seed, budget)
    epochs = [budget.epochs] * len(model.phases())
    how = Settings(epochs, budget.batch, budget.learning_rate, seed=seed, device="cpu")
    start = time.process_time()
    for _ in train(model, data, how):
        pass
    seconds = time.process_time() - start

    with torch.no_grad():  # all subsets at once: JNF draws them by one chain of Hamiltonian Monte Carlo
        latents = model.infer(
            judges.rows.batch(slice(None)), torch.from_numpy(judges.subsets), generator_for("cpu", 1)
        )  # (N, S, ·)

    def completed(place: int) -> Images:
        with torch.no_grad():
            return {m.name: model.decode_one(m, latents[:, place]).mean.numpy() for m in model.modalities}

    return {
        "training_seconds": seconds,
        "conditional": judges.conditional(completed),
        "joint": judges.samplers(our_samplers(model, seed, budget, judges)),
    }


def our_samplers(model: Any, seed: int, budget: Budget, judges: Judges) -> dict[str, Callable[[], Images]]:
    """Return functions that fit a density to the codes of a model and draw from it."""
    train_codes, held_out = (
        posteriors(model, judges.splits[split], 32, generator_for("cpu", seed)) for split in ("train", "validation")
    )

    def drawn(make: Callable[[], Any], labels: bool = False) -> Callable[[], Images]:
        def draw() -> Images:
            codes = [c if labels else replace(c, labels=None, label_names=None) for c in (train_codes, held_out)]
            density = make().fit(*codes, generator_for("cpu", seed, 2))
            return Generator(model, density, {}).sample(budget.judged, seed=seed).data

        return draw

    flow = {"coupling": "masked", "components": 0, "steps": budget.flow_steps}
    return {
        "prior": drawn(DENSITIES["normal"]),
        "masked flow": drawn(lambda: DENSITIES["flow"](**flow)),
        "mixture of 10": drawn(field_mixture),
        "best": drawn(lambda: DENSITIES["gmm"](components=[1, 2, 4]), labels=True),
    }


def theirs(name: str, seed: int, budget: Budget, judges: Judges) -> dict[str, Any]:
    """Train the same networks with MultiVae and its own trainer, and score."""
    from against_multivae import CASES, MultimodalBaseDataset, multivae_model
    from multivae.trainers import BaseTrainer, BaseTrainerConfig, MultistageTrainer, MultistageTrainerConfig

    data = {split: MultimodalBaseDataset(tensors(judges.splits[split])) for split in ("train", "validation")}
    model = model_of(name, judges.splits["train"], seed, budget)
    phases = len(model.phases())
    config = limited(RECIPES[name].config, budget) | ({"warmup": budget.epochs} if phases > 1 else {})
    case = next(case for case in CASES if case.name == name)._replace(options=RECIPES[name].options, config=config)
    trainer, how = (BaseTrainer, BaseTrainerConfig) if phases == 1 else (MultistageTrainer, MultistageTrainerConfig)
    start = time.process_time()
    with TemporaryDirectory() as folder, torch.random.fork_rng():
        settings = how(
            output_dir=folder,
            num_epochs=phases * budget.epochs,
            per_device_train_batch_size=budget.batch,
            learning_rate=budget.learning_rate,
            optimizer_cls="AdamW",
            scheduler_cls="CosineAnnealingLR",
            scheduler_params={"T_max": budget.epochs},
            seed=seed,
            no_cuda=True,
        )
        run = trainer(multivae_model(case, model, SCALE), data["train"], training_config=settings)
        run.train()
        trained = run._best_model.eval()
        seconds = time.process_time() - start
        rows = MultimodalBaseDataset(tensors(judges.rows))
        names = [m.name for m in judges.rows.modalities]

        def completed(place: int) -> Images:
            seen = [m for m, given in zip(names, judges.subsets[place], strict=True) if given]
            with torch.no_grad():
                found = trained.predict(rows, cond_mod=seen, gen_mod="all")
            return {m: found[m].numpy() for m in names}

        return {
            "training_seconds": seconds,
            "conditional": judges.conditional(completed),
            "joint": judges.samplers(their_samplers(trained, data, seed, budget, Path(folder))),
        }


def their_samplers(
    model: Any, data: Mapping[str, Any], seed: int, budget: Budget, folder: Path
) -> dict[str, Callable[[], Images]]:
    """Return functions that fit a sampler of MultiVae to the codes of a model and draw from it."""
    from multivae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig, MAFSampler, MAFSamplerConfig
    from pythae.trainers import BaseTrainerConfig

    def decoded(codes: Any) -> Images:
        with torch.no_grad():
            return {m: x.numpy() for m, x in model.decode(codes).items()}

    def mixture() -> Images:
        before = np.random.get_state()  # noqa: NPY002, its sampler uses the global generator
        np.random.seed(seed)  # noqa: NPY002
        sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=COMPONENTS))
        sampler.fit(data["train"])
        drawn = sampler.sample(budget.judged)
        np.random.set_state(before)  # noqa: NPY002
        return decoded(drawn)

    def flow() -> Images:
        sampler = MAFSampler(model, MAFSamplerConfig())
        epochs = max(1, budget.flow_steps * 512 // budget.rows)  # as many rows as our flow
        how = BaseTrainerConfig(output_dir=str(folder), num_epochs=epochs, learning_rate=1e-3, no_cuda=True)
        sampler.fit(data["train"], data["validation"], how)
        with torch.no_grad():
            return decoded(sampler.sample(budget.judged))

    return {
        "prior": lambda: decoded(model.generate_from_prior(budget.judged)),
        "masked flow": flow,
        "mixture of 10": mixture,
    }


def tensors(data: Dataset) -> dict[str, torch.Tensor]:
    """Return the values of all rows by modality."""
    return {m.name: torch.from_numpy(np.asarray(data.data[m.name], np.float32)) for m in data.modalities}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(RECIPES), metavar="MODEL", help="models; all by default")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--smallest", action="store_true", help="the smallest form, to see that everything runs")
    parser.add_argument("--out", type=Path, default=None, help="folder of the files; if given, the page stays")
    arguments = parser.parse_args()
    budget = SMALLEST if arguments.smallest else Budget()
    libraries = {"postprior": ours} | ({"multivae": theirs} if find_spec("multivae") else {})
    folder = arguments.out or RESULTS
    torch.set_num_threads(1)
    for seed in range(arguments.seeds):
        judges: Judges | None = None
        for name in arguments.models:
            for library, run in libraries.items():
                file = folder / f"{name}-{seed}-{library}.json"
                if file.exists() and read_json(file)["budget"] == asdict(budget):
                    continue
                judges = judges or Judges(seed, budget)
                facts = {"model": name, "seed": seed, "library": library, "budget": asdict(budget)}
                write_json(file, facts | run(name, seed, budget, judges))
                print(f"{name}, seed {seed}, {library}", flush=True)
                if arguments.out is None:
                    write_page([read_json(path) for path in sorted(folder.glob("*.json"))])


if __name__ == "__main__":
    main()
