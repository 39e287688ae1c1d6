"""Compares joint samples of trained models of MultiVae 1.0.3: from its prior, its samplers, and densities of postprior.

Each model is trained once per seed on the digits of this repository, with the default networks of MultiVae, its own
losses and Adam. All samplers then decode codes with the same trained decoders; only the codes differ: those of the
model's prior, of `GaussianMixtureSampler` with 10 components, of `MAFSampler`, and of `postprior.adapt`. One set of
label classifiers judges all of them on the same 1,000 test rows. Seconds are processor seconds of the fit and of
1,000 draws, training aside. Every model and seed is a file in benchmarks/adapted; a sampler that is in it is not run
again. Trained models are kept in .postprior/adapted. The table in docs/adapted.md is written from the files.
`make bench-adapted` creates the environment that MultiVae needs.

    .venv-multivae/bin/python benchmarks/adapted.py [--seeds 3] [--epochs 25] [--rows 2500] [MODEL …]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that seconds are those of one core
os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

import numpy as np
import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:  # torchvision was built for another version of torch: operators that its import needs are missing
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import multivae.models
from multivae.data.datasets.base import MultimodalBaseDataset
from multivae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig, MAFSampler, MAFSamplerConfig
from pythae.trainers import BaseTrainerConfig

from postprior import Dataset, adapt
from postprior.pipelines.data.sources.digits import make_digits
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.metrics.features.fitting import fit_evaluators
from postprior.pipelines.metrics.registry import bounds_of
from postprior.pipelines.metrics.scores import ReferenceSet, score
from postprior.pipelines.metrics.statistics.intervals import estimate, half_samples
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.storage import read_json, write_json
from postprior.stage1_vae.randomness import seeded

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("adapted")
WORK = ROOT / ".postprior/adapted"
ROWS = 1000  # samples, and test rows that they are compared with
LATENT, PRIVATE = 32, 8  # dimensions of shared and private codes
COMPONENTS, MAF_EPOCHS = 10, 60  # of the samplers of MultiVae
THEIRS = ("MultiVae, prior", f"MultiVae, GMM({COMPONENTS})", "MultiVae, MAF")
DENSITIES = {
    f"postprior, {name}{' with labels' if labels else ''}": (name, labels)
    for labels in (False, True)
    for name in ("gmm", "flow_matching")
}
"""Densities of postprior, and whether they know the labels of the rows."""
MODELS: dict[str, dict[str, Any]] = {
    "MVTCAE": {},
    "MoPoE": {},
    "JMVAE": {},
    "DMVAE": {"modalities_specific_dim": PRIVATE},
    "MMVAEPlus": {"modalities_specific_dim": PRIVATE, "K": 1},
}
"""Models of MultiVae and options of their configurations; a private dimension is that of every modality."""
SCORES = ("joint_coherence", "joint_frechet_distance", "frechet_distance", "recall", "precision", "label_entropy")
RECONSTRUCTIONS = "reconstructions of test rows"
TRAINING = {"batch": 64, "learning_rate": 1e-3}


def built(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Return an untrained model with the default networks of MultiVae."""
    options = dict(MODELS[name])
    if name == "DMVAE":
        options["modalities_specific_dim"] = dict.fromkeys(shapes, PRIVATE)
    config = getattr(multivae.models, f"{name}Config")(
        n_modalities=len(shapes),
        latent_dim=LATENT,
        input_dims=dict(shapes),
        decoders_dist=dict.fromkeys(shapes, "laplace"),
        decoder_dist_params={m: {"scale": 0.1} for m in shapes},
        **options,
    )
    return getattr(multivae.models, name)(config)


def train(model: Any, data: dict[str, torch.Tensor], epochs: int, seed: int) -> None:
    """Train with the model's own loss and Adam, whose learning rate falls to 0."""
    optimizer = torch.optim.Adam(model.parameters(), TRAINING["learning_rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    rows = len(next(iter(data.values())))
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for epoch in range(1, epochs + 1):
        for part in torch.randperm(rows, generator=generator).split(int(TRAINING["batch"])):
            batch = MultimodalBaseDataset({m: x[part] for m, x in data.items()})
            optimizer.zero_grad()
            model(batch, epoch=epoch).loss.backward()
            optimizer.step()
        schedule.step()
        model.update()
    model.eval()


class Bench:
    """The data, their judges, and the scores of samples."""

    def __init__(self, seed: int, rows: int) -> None:
        params = load_params(ROOT / "params.yaml")
        self.params = params.model_copy(update={"seed": seed})
        self.splits = make_digits(seed, ROOT, train=rows)
        self.test = self.splits["test"].select(np.arange(ROWS))
        self.evaluators: Evaluators = fit_evaluators(self.splits["train"], self.params, ROOT)
        rng = np.random.default_rng(seed)
        outputs, resamples = self.evaluators.outputs(self.test), self.params.evaluate.resamples
        real = half_samples(outputs.sources, resamples, rng, outputs.labels)
        self.weights = half_samples(np.arange(ROWS), resamples, rng)
        names = tuple(m.name for m in self.test.modalities)
        neighbours, classes = self.params.evaluate.neighbours, len(self.test.label_names or ())
        self.reference = ReferenceSet.fit(outputs, real, neighbours, names, classes)

    def scores(self, samples: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the scores of samples, with intervals."""
        data = {m.name: np.clip(samples[m.name], 0, 1).astype(np.float32) for m in self.test.modalities}
        found = score(self.evaluators.outputs(Dataset(self.test.modalities, data)), self.weights, self.reference)
        bounds = bounds_of("fidelity")
        written = {key: estimate(found[key], bounds.get(key, (-np.inf, np.inf))) for key in SCORES if key in found}
        return {key: {part: round(float(x), 5) for part, x in value.items()} for key, value in written.items()}

    def tensors(self, split: str) -> dict[str, torch.Tensor]:
        """Return the values of a split by modality."""
        rows = self.splits[split]
        return {m.name: torch.from_numpy(np.asarray(rows.data[m.name], np.float32)) for m in rows.modalities}


def decoded(model: Any, codes: Any) -> dict[str, np.ndarray]:
    """Decode codes as MultiVae returned them."""
    return {m: x.numpy() for m, x in model.decode(codes).items()}


def their_samplers(model: Any, bench: Bench, seed: int) -> dict[str, Callable[[], dict[str, np.ndarray]]]:
    """Return functions that fit a sampler of MultiVae and draw from it."""
    data = MultimodalBaseDataset(bench.tensors("train"))
    held_out = MultimodalBaseDataset(bench.tensors("validation"))

    def mixture() -> dict[str, np.ndarray]:
        np.random.seed(seed)  # noqa: NPY002, its sampler uses the global generator
        sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=COMPONENTS))
        sampler.fit(data)
        return decoded(model, sampler.sample(ROWS))

    def flow() -> dict[str, np.ndarray]:
        with TemporaryDirectory() as folder:
            sampler = MAFSampler(model, MAFSamplerConfig())
            how = BaseTrainerConfig(output_dir=folder, num_epochs=MAF_EPOCHS, learning_rate=1e-3, no_cuda=True)
            sampler.fit(data, held_out, how)
        with torch.no_grad():
            return decoded(model, sampler.sample(ROWS))

    def prior() -> dict[str, np.ndarray]:
        return decoded(model, model.generate_from_prior(ROWS))

    return dict(zip(THEIRS, (prior, mixture, flow), strict=True))


def ours(model: Any, bench: Bench, seed: int) -> dict[str, Callable[[], dict[str, np.ndarray]]]:
    """Return functions that fit a density of postprior and draw from it, without labels and with them."""
    rows, others = ({m: np.asarray(x) for m, x in bench.splits[s].data.items()} for s in ("train", "validation"))
    known, held = (np.asarray(bench.splits[split].labels) for split in ("train", "validation"))

    def drawn(density: str, labels: bool) -> dict[str, np.ndarray]:
        label, held_out = (known, (others, held)) if labels else (None, others)
        generator = adapt(model, rows, label=label, held_out=held_out, density=density, seed=seed, progress=False)
        return {m: np.asarray(x) for m, x in generator.sample(ROWS, seed=seed).data.items()}

    return {title: partial(drawn, *density) for title, density in DENSITIES.items()}


def trained(name: str, seed: int, epochs: int, bench: Bench) -> tuple[Any, float]:
    """Return a model of MultiVae and the seconds of its training; train it if that was not done yet."""
    data = bench.tensors("train")
    rows = len(bench.splits["train"])
    file = WORK / f"{name}-{seed}-{rows}-{epochs}.pt"
    with seeded(seed):
        model = built(name, {m: tuple(x.shape[1:]) for m, x in data.items()})
        if not file.exists():
            start = time.process_time()
            train(model, data, epochs, seed)
            seconds = round(time.process_time() - start, 1)
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"seconds": seconds, "state": model.state_dict()}, file)
    stored = torch.load(file, weights_only=True)
    model.load_state_dict(stored["state"])
    return model.eval(), stored["seconds"]


def missing(name: str, seed: int, densities: Collection[str]) -> list[str]:
    """Return what the file of a model and a seed does not have yet."""
    file = RESULTS / f"{name}-{seed}.json"
    found = read_json(file)["samplers"] if file.exists() else {}
    wanted = (*THEIRS, *(title for title, (density, _) in DENSITIES.items() if density in densities), RECONSTRUCTIONS)
    return [title for title in wanted if title not in found]


def run(name: str, seed: int, epochs: int, titles: Collection[str], bench: Bench) -> None:
    """Score samplers of a trained model, and write them one by one."""
    model, seconds = trained(name, seed, epochs, bench)
    file = RESULTS / f"{name}-{seed}.json"
    print(f"{name}, seed {seed}: trained in {seconds} s", flush=True)
    rows = len(bench.splits["train"])
    about = {"model": name, "seed": seed, "epochs": epochs, "rows": rows, "training_seconds": seconds}
    result = read_json(file) if file.exists() else {**about, "samplers": {}}
    samplers = {**their_samplers(model, bench, seed), **ours(model, bench, seed)}
    for title in filter(samplers.__contains__, titles):
        with seeded(seed):
            start = time.process_time()
            samples = samplers[title]()
        spent = round(time.process_time() - start, 1)
        result["samplers"][title] = {**bench.scores(samples), "seconds": spent}
        shown = {key: value["value"] for key, value in result["samplers"][title].items() if key != "seconds"}
        print(f"  {title}: {spent} s, {shown}", flush=True)
        write_json(file, result)
    if RECONSTRUCTIONS in titles:
        held = {m: x[:ROWS] for m, x in bench.tensors("test").items()}
        with torch.no_grad(), seeded(seed):
            again = decoded(model, model.encode(SimpleNamespace(data=held)))
        result["samplers"][RECONSTRUCTIONS] = bench.scores(again)
        write_json(file, result)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare samplers on trained models of MultiVae.")
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL", help="models; all by default")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument(
        "--densities", nargs="*", default=sorted({name for name, _ in DENSITIES.values()}), metavar="DENSITY"
    )
    parser.add_argument("--epochs", type=int, default=25, help="epochs of training")
    parser.add_argument("--rows", type=int, default=2500, help="training rows")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - set(MODELS):
        parser.error(f"models: found {', '.join(sorted(unknown))}, expected some of {', '.join(MODELS)}")
    torch.set_num_threads(1)
    for seed in range(arguments.seeds):
        todo = {name: missing(name, seed, arguments.densities) for name in arguments.models}
        if not any(todo.values()):
            continue
        bench = Bench(seed, arguments.rows)
        for name in todo:
            if todo[name]:
                run(name, seed, arguments.epochs, todo[name], bench)
                write_page()


def write_page() -> None:
    """Write the table in docs/adapted.md from all files."""
    from adapted_page import write_table

    write_table([read_json(path) for path in sorted(RESULTS.glob("*.json"))])


if __name__ == "__main__":
    main()
