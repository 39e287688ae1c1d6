"""Stage `evaluate`: the scores of a density, beside the rows that `reference` scored.

Its synthetic dataset is compared with real data, and modalities of real rows are generated from others through it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.artefacts.evaluators import load_judges
from postprior.pipelines.artefacts.standard import Standard
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import KIND as DENSITY
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.metrics.statistics.intervals import Missing
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import Artefact, folder_hash, load_artefact, save_artefact, write_json
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    from postprior.pipelines.metrics.features.reader import Reader

KIND = "evaluation"
CONDITIONED = 200  # rows whose modalities are generated from one another
GRID, BYTES = 4, 500_000  # rows that are shown generated from parts, and what they may take at most
FITTED = ("log_likelihood", "bound", "memorisation", "rows")  # told by the fit, where there is any
USUAL = {"temperature": 1.0, "truncation": 0.0}  # settings of draws, told where they differ


def evaluate(name: str, params: Params, root: Path) -> None:
    """Score artefacts/synthetic/<name> and what <name> generates from parts.

    Writes results/metrics/<name>.json, and artefacts/evaluation/<name>: the half-samples of every score of whole tuples
    and some rows generated from parts of them.
    """
    folder = root / "artefacts"
    synthetic, test = Dataset.load(folder / "synthetic" / name), Dataset.load(folder / "data/test")
    generator = Generator.load(folder / "densities" / name)
    density = load_artefact(folder / "densities" / name, DENSITY)
    standard = Standard.load(folder / "reference")
    reader = load_judges(folder / "judges")
    check_origins(synthetic, density, standard.manifest, folder_hash(folder / "judges"), test)
    if len(synthetic) < len(standard):
        raise UserError(
            f"{synthetic.folder}: {len(synthetic)} samples found, expected {len(standard)} at least, as many as the "
            f"reference has; set generate.samples to {len(standard)} or more and run postprior generate {name}"
        )
    with track("evaluate", params, root, density=name) as run:
        run.dataset(folder / "synthetic" / name, synthetic.hash)
        labels_from = synthetic.provenance["labels_from"]
        samples = scored_rows(synthetic, len(standard), labels_from)
        half = test.select(standard.rows)
        scores = standard.score(reader.read(samples), half, samples)
        written = {
            **standard.row(scores, half, samples),
            **conditional(generator, reader, test, standard, params),
            **facts(synthetic, density.manifest),
            "samples": len(standard),
        }
        write_json(root / f"results/metrics/{name}.json", written)
        arrays = {
            f"scores.{key}": values
            for key, values in scores.items()
            if "/" not in key and not isinstance(values, Missing)
        }
        arrays |= grid(generator, test.select(standard.real[:GRID]), params.evaluate.seed)
        origins = {"density": density.hash, "reference": folder_hash(folder / "reference")}
        save_artefact(folder / KIND / name, KIND, {**origins, "samples": len(standard)}, arrays=arrays)


def conditional(
    generator: Generator, reader: Reader, test: Dataset, standard: Standard, params: Params
) -> dict[str, Any]:
    """What the density adds when modalities are generated from others, on rows that `reference` took too.

    Nothing without labels, by which it is judged.
    """
    from postprior.pipelines.generation.parts import scores_through

    if reader.judges is None:
        return {}
    rng = np.random.default_rng(params.evaluate.seed)
    rows, weights = test.select(standard.real[:CONDITIONED]), standard.real_weights[:, :CONDITIONED]
    return scores_through(generator.model, generator.density, reader.judges, rows, weights, rng)


def grid(generator: Generator, real: Dataset, seed: int) -> dict[str, np.ndarray]:
    """Some real rows, and what is generated of each from 1, 2, … M − 1 of its modalities, for modalities of images.

    The rows, the parts that are observed and the draws of the posterior are those of every density.

    Returns:
        `grid.real.<m>` (rows, *shape), `grid.<m>` (rows, M − 1, *shape) with the real value where it is observed, and
        `grid.observed` (rows, M − 1, M); nothing without images. Of large ones there are fewer rows, then fewer pixels.
    """
    import torch

    from postprior.pipelines.generation.conditional import conditional_draw
    from postprior.pipelines.generation.parts import decoded, in_parts
    from postprior.pipelines.metrics.coherence.conditional import nested_parts
    from postprior.stage1_vae.randomness import generator_for

    images = [(index, m) for index, m in enumerate(real.modalities) if m.kind == "image"]
    if not images or not len(real):
        return {}
    size = (
        sum(math.prod(m.shape) for _, m in images) * len(real.modalities) * 4
    )  # bytes of a row, real and made
    real = real.select(np.arange(max(1, min(len(real), BYTES // size))))
    step = max(1, math.ceil(math.sqrt(size / BYTES)))
    observed = nested_parts(len(real), len(real.modalities), np.random.default_rng(seed))
    repeated = in_parts(real, observed)
    with torch.no_grad():
        batch = repeated.batch(slice(None))
        latents, _ = conditional_draw(
            generator.model, generator.density, batch, generator_for("cpu", seed, 3)
        )
        made = {m.name: decoded(generator.model, m, latents).numpy() for _, m in images}
    arrays: dict[str, np.ndarray] = {"grid.observed": observed}
    for index, m in images:
        here = observed[:, :, index].reshape(-1, *[1] * len(m.shape))
        shown = np.where(here, repeated.data[m.name], made[m.name])
        shown = shown.reshape(*observed.shape[:2], *m.shape)
        for key, values in ((m.name, shown), (f"real.{m.name}", real.data[m.name])):
            arrays[f"grid.{key}"] = np.asarray(values[..., ::step, ::step], np.float32)
    return arrays


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


def scored_rows(synthetic: Dataset, samples: int, labels_from: str) -> Dataset:
    """As many rows as the reference has, the first (their order is random), with labels where the density drew them."""
    first = synthetic.select(np.arange(samples))
    return first if labels_from == "density" else replace(first, labels=None)


def check_origins(
    synthetic: Dataset, density: Artefact, reference: dict[str, Any], judges: str, test: Dataset
) -> None:
    """Refuse to score what was not made from the same density, autoencoder, judges and test data."""
    found = {
        "density": (synthetic.provenance.get("density"), density.hash, "generate"),
        "autoencoder": (density.manifest["autoencoder"], reference["autoencoder"], "reference"),
        "judges": (judges, reference["judges"], "reference"),
        "test data": (test.hash, reference["data"], "reference"),
    }
    for what, (one, other, stage) in found.items():
        if one != other:
            raise UserError(
                f"{synthetic.folder}: {what} {str(one)[:12]} found, expected {other[:12]}; run postprior {stage} again"
            )
