"""Measures a device: training steps, fits of densities, generation, and the time to coherent samples of digits."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from device_values import labelled_codes
from step import bare
from timing import batch, images, optimised
from torch import Tensor

from postprior import DENSITIES, MODELS
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.training import Settings, freeze_except, train

PRECISIONS = ("single", "tf32", "bf16")
"""`single` has no TF32; `tf32` allows it in products and convolutions; `bf16` is automatic mixed precision."""
DRAWN = 8192
"""Samples that are decoded at once."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        image: height and width of the images of training steps.
        width: width of the networks.
        seconds: time for each measurement of a step.
        codes: rows and dimensions of the codes of fits.
        steps: steps of each fit; None for the default of the density.
        generated: number of digits to generate.
        rows: numbers of training, validation and test rows of the digits.
        epochs: maximum number of epochs on the digits.
        every: epochs between two measurements of coherence.
        compiled: models that are compiled.
    """

    image: int = 28
    width: int = 32
    seconds: float = 0.5
    codes: tuple[int, int] = (50_000, 128)
    steps: int | None = None
    generated: int = 1_000_000
    rows: tuple[int, int, int] = (5000, 500, 2000)
    epochs: int = 40
    every: int = 2
    compiled: tuple[str, ...] = ("mvtcae", "mopoe")


SMALL = Size(8, 2, 0.0, (200, 4), 10, 100, (60, 20, 20), 1, 1, ("mvtcae",))
"""The smallest form, which shows on a CPU that every part runs."""


def waited(device: torch.device) -> float:
    """Return the clock in seconds after the device has done its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def per_second(action: Callable[[], Any], rows: int, seconds: float, device: torch.device) -> float:
    """Return the rows per second of an action on `rows` rows, repeated for at least the given seconds."""
    for _ in range(3 if seconds else 1):  # fills caches and chooses algorithms
        action()
    count, start = 0, waited(device)
    while True:
        for _ in range(10 if seconds else 1):
            action()
            count += 1
        elapsed = waited(device) - start
        if elapsed >= seconds:
            return rows * count / elapsed


@contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """Compute with one of `PRECISIONS` inside the block."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def steps(size: Size, device: torch.device) -> dict[str, Any]:
    """Return, by model and phase, the rows per second of our steps and of their bare network passes, by precision."""
    modalities, results = images(size.image), {}
    data = batch(modalities).to(device)
    for name in MODELS:
        model = MODELS[name](modalities, width=size.width).to(device).train()
        for phase in model.phases():
            row: dict[str, float] = {}
            for kind in PRECISIONS:
                with freeze_except(model, phase), precision(kind, device):
                    generator = torch.Generator(device).manual_seed(0)

                    def backward(phase: Any = phase, generator: torch.Generator = generator) -> None:
                        phase.objective(data, generator, 1.0).per_sample.mean().backward()

                    step, passes = optimised(phase.parameters, backward), bare(model, phase, data)
                    row[kind] = per_second(step, len(data), size.seconds, device)
                    row[f"{kind}, bare"] = per_second(passes, len(data), size.seconds, device)
            results[f"{name} {phase.name}"] = row
    return results


def compilation(size: Size, device: torch.device) -> dict[str, Any]:
    """Return, by model and phase, the rows per second of steps as they are and compiled, and the seconds to compile.

    Raises:
        ImportError: there is no compiler for the device.
    """
    from postprior.stage1_vae.compilation import compiled

    if not (shutil.which("g++") if device.type == "cpu" else find_spec("triton")):
        raise ImportError(f"no compiler for {device.type}")
    modalities, results = images(size.image), {}
    data = batch(modalities).to(device)
    for name in size.compiled:
        model = MODELS[name](modalities, width=size.width).to(device).train()
        for phase in model.phases():
            row: dict[str, float] = {}
            for key, objective in (("as it is", phase.objective), ("compiled", compiled(phase.objective))):
                with freeze_except(model, phase):
                    generator = torch.Generator(device).manual_seed(0)

                    def backward(objective: Any = objective, generator: torch.Generator = generator) -> None:
                        objective(data, generator, 1.0).per_sample.mean().backward()

                    step, start = optimised(phase.parameters, backward), waited(device)
                    step()
                    row[f"first step, {key}"] = waited(device) - start
                    row[key] = per_second(step, len(data), size.seconds, device)
            results[f"{name} {phase.name}"] = row
    return results


def against_multivae(size: Size, device: torch.device) -> dict[str, Any]:
    """Return, by model and phase, the rows per second of both libraries on the same networks, by precision.

    Raises:
        ImportError: MultiVae is not installed in this environment.
    """
    from against_multivae import CASES, LATE_EPOCH, MODALITIES, SCALE, MultimodalBaseDataset, multivae_model

    data, results = batch(MODALITIES).to(device), {}
    inputs = MultimodalBaseDataset(data.data)
    for case in CASES:
        model = MODELS[case.name](MODALITIES, width=size.width, likelihood_scale=SCALE, **case.options)
        other = multivae_model(case, model).to(device)
        phases = model.to(device).phases()
        for number, phase in enumerate(phases, 1):
            epoch, row = LATE_EPOCH if number == len(phases) else 1, {}
            for kind in PRECISIONS:
                with freeze_except(model, phase), precision(kind, device):
                    generator = torch.Generator(device).manual_seed(0)

                    def ours(phase: Any = phase, generator: torch.Generator = generator) -> None:
                        phase.objective(data, generator, 1.0).per_sample.mean().backward()

                    def theirs(other: Any = other, epoch: int = epoch) -> None:
                        other(inputs, epoch=epoch).loss.backward()

                    pairs = ((kind, ours, phase.parameters), (f"{kind}, MultiVae", theirs, list(other.parameters())))
                    for key, backward, parameters in pairs:
                        row[key] = per_second(optimised(parameters, backward), len(data), size.seconds, device)
            results[f"{case.name} {case.variant} {phase.name}"] = row
    return results


def fits(size: Size, device: torch.device) -> dict[str, Any]:
    """Return, by density, the seconds of a fit and its mean held-out log-likelihood."""
    codes, results = labelled_codes(*size.codes, 10, device), {}
    for name in ("gmm", "flow", "flow_matching"):
        options = {} if size.steps is None or name == "gmm" else {"steps": size.steps}
        start = waited(device)
        density = DENSITIES[name](**options).fit(codes, None, torch.Generator(device).manual_seed(0))
        results[name] = {"seconds": waited(device) - start, **density.history[-1]}
    return results


def generation(size: Size, device: torch.device) -> dict[str, Any]:
    """Return the seconds to draw codes, decode them and bring the images (N, 1, 28, 28) to the host as uint8."""
    model = MODELS["mvtcae"]([Modality("digit", "image", (1, 28, 28), "laplace", (0, 1))], latent=16, width=16)
    model = model.to(device).eval()
    density = DENSITIES["gmm"](components=2).fit(labelled_codes(500, 16, 10, device))
    generator = torch.Generator(device).manual_seed(0)
    host = torch.empty(size.generated, 1, 28, 28, dtype=torch.uint8)
    start = waited(device)
    with torch.no_grad():
        for part in host.split(DRAWN):
            z = density.sample(len(part), generator).loc[:, 0]
            part.copy_((model.decode(z)["digit"].mean.clamp(0, 1) * 255).round().to(torch.uint8))
    return {"digits": size.generated, "seconds": waited(device) - start}


class Rows:
    """Complete rows of images on a device."""

    def __init__(self, data: dict[str, Tensor], device: torch.device) -> None:
        self.data = {name: x.to(device) for name, x in data.items()}
        self.observed = torch.ones(len(next(iter(data.values()))), len(data), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.observed)

    def batch(self, rows: Any) -> Batch:
        """Return the batch of the rows at the given indices."""
        index = torch.as_tensor(rows)
        place, observed = index.to(next(iter(self.data.values())).device), self.observed[index]
        data = {name: x.index_select(0, place) for name, x in self.data.items()}
        return Batch(data, observed.to(place.device), complete=True)


def coherence(size: Size, device: torch.device, target: float = 0.8) -> dict[str, Any]:
    """Return the seconds of training, encoding and fitting until samples of `digits` have the target joint coherence.

    A MoPoE is trained on the data of `params.yaml`; after some epochs a mixture is fitted to its codes, and its samples
    are judged by label classifiers. Making the data, the classifiers and judging are not counted.
    """
    from postprior.pipelines.data.sources.digits import make_digits
    from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
    from postprior.pipelines.metrics.features.learning import train_label_classifiers

    data = make_digits(0, Path(), *size.rows)["train"]
    judges = LabelClassifiers(data.modalities, data.label_names or (), 64, 0)
    for _ in train_label_classifiers(judges, data, 1 if size.steps else 5, 64, 2e-3, torch.Generator().manual_seed(0)):
        pass
    rows = Rows({name: torch.from_numpy(x) for name, x in data.data.items()}, device)
    model, labels = MODELS["mopoe"](data.modalities).to(device), torch.from_numpy(data.labels).to(device)
    settings = Settings(epochs=size.epochs, device=str(device))
    spent, curve, start = 0.0, [], waited(device)
    for number, _ in enumerate(train(model, rows, settings), 1):
        if number % size.every:
            continue
        z = encoded(model.eval(), rows, labels, device)
        density = DENSITIES["gmm"](components=4).fit(z, None, torch.Generator(device).manual_seed(0))
        spent += waited(device) - start
        with torch.no_grad():
            drawn = density.sample(size.rows[2], torch.Generator(device).manual_seed(1)).loc[:, 0]
            images = {name: p.mean.clamp(0, 1).cpu() for name, p in model.decode(drawn).items()}
        found = torch.stack([judges.labels(name, x) for name, x in images.items()], 1)
        curve.append([spent, float((found == found[:, :1]).all(1).float().mean())])
        if curve[-1][1] >= target:
            break
        start = waited(device)
    reached = curve[-1][0] if curve[-1][1] >= target else None
    return {"target": target, "seconds": reached, "seconds_and_coherence": curve}


def encoded(model: Any, rows: Rows, labels: Tensor, device: torch.device) -> Any:
    """Return the codes of rows, one posterior draw per row, with their labels."""
    from postprior.stage2_latent.codes import Codes

    generator, parts = torch.Generator(device).manual_seed(0), []
    with torch.no_grad():
        for part in torch.arange(len(rows)).split(512):
            parts.append(model.posterior(rows.batch(part)).rsample((), generator))
    names = tuple(map(str, range(10)))
    return Codes.empirical(model.layout, torch.cat(parts), labels, names)
