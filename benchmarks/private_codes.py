"""Measures how many numbers models with private codes need to keep the detail of `digits`, and what a step costs.

Every variant of `VARIANTS` is trained on `ROWS` rows for `EPOCHS` epochs with the settings of params.yaml,
`flow_matching` is fitted to its codes, and reconstructions and samples are scored against validation rows. Finished
variants are stored in benchmarks/quality/private_codes and are not run again; the table in docs/quality.md is written
from them.

    python benchmarks/private_codes.py [VARIANT …]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that seconds are those of one core
os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

import numpy as np
import torch
from density_page import table
from missing import replace_block
from quality import WORK, timed
from quality_page import PAGE, RESULTS
from quality_temperature import SETS, ValidationScores
from zoo import project, settings

from postprior.pipelines.storage import read_json, write_json

if TYPE_CHECKING:
    from postprior import Dataset
    from postprior.pipelines.generation.generator import Generator
    from postprior.pipelines.metrics.statistics.intervals import Ints
    from postprior.stage2_latent.codes import Codes

FILES = RESULTS / "private_codes"
MARKS = ("<!-- private codes -->", "<!-- /private codes -->")
ROWS, EPOCHS = 2500, 20
DENSITY = "flow_matching"
SCORED = ("reconstruction", "samples")
ARROWS = {"joint coherence": "↑", "Frechet": "↓", "recall": "↑"}


@dataclass(frozen=True)
class Variant:
    """A model with sizes of its codes: `latent` numbers that are shared, and those of `options`."""

    model: str
    latent: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        changed = (f"{key}-{value}" for key, value in self.options.items())
        return "-".join((self.model, str(self.latent), *changed))


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("dmvae", 32, {"private": 4, "bounds": 1}),
        Variant("dmvae", 24, {"private": 16, "bounds": 0}),
        Variant("dmvae", 24, {"private": 16, "bounds": 1}),
        Variant("mmvaeplus", 32, {"private": 8}),
        Variant("mmvaeplus", 24, {"private": 16}),
        Variant("cmvae", 32, {"private": 8}),
        Variant("cmvae", 24, {"private": 16}),
    )
}


def run(variant: Variant) -> dict[str, Any]:
    """Train a variant, fit the density, and return scores, held-out log-likelihoods and processor seconds."""
    from postprior.pipelines.artefacts.autoencoder import load_autoencoder
    from postprior.pipelines.artefacts.codes import load_codes
    from postprior.pipelines.artefacts.evaluators import load_evaluators
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.generation.conditional_scores import conditional_scores, density_conditional_scores
    from postprior.pipelines.generation.generator import Generator
    from postprior.pipelines.stages.encode import encode
    from postprior.pipelines.stages.fit import fit
    from postprior.pipelines.stages.prepare import prepare
    from postprior.pipelines.stages.train import train
    from postprior.pipelines.stages.train_evaluators import train_evaluators

    common, folder = WORK / "private", WORK / f"private-{variant.name}"
    tree = settings("unimodal", 0, {"train": {"epochs": EPOCHS}, "densities": [DENSITY]})
    tree["data"]["digits"]["train"] = ROWS
    params = project(common, tree)
    for made, stage in (("data/test", prepare), ("evaluators", train_evaluators)):
        if not (common / "artefacts" / made).exists():
            stage(params, common)
    tree["vae"] |= {"model": variant.model, "latent": variant.latent}
    tree["vae"]["options"][variant.model] |= variant.options
    params, artefacts = project(folder, tree), Project(folder).artefacts
    artefacts.data.parent.mkdir(exist_ok=True)
    for shared in ("data", "evaluators"):
        if not (folder / "artefacts" / shared).exists():
            (folder / "artefacts" / shared).symlink_to(common / "artefacts" / shared)
    timed(folder, "train", artefacts.autoencoder, partial(train, params, folder))
    timed(folder, "encode", artefacts.codes / "test", partial(encode, params, folder))
    timed(folder, "fit", artefacts.densities / DENSITY, partial(fit, DENSITY, params, folder))

    validation, evaluators = Project(folder).dataset("validation"), load_evaluators(artefacts.evaluators)
    scores, (model, _) = ValidationScores(evaluators, validation), load_autoencoder(artefacts.autoencoder)
    generator = Generator.load(artefacts.densities / DENSITY)
    # intervals are not read, so that the scores have the weights of all rows and of one half-sample
    judged = evaluators.classifiers, validation, np.ones((2, len(validation))), np.random.default_rng(0)
    conditional = {
        "model": conditional_scores(model, *judged),
        "density": density_conditional_scores(model, generator.density, *judged)["conditional_coherence"],
    }
    codes = load_codes(artefacts.codes / "validation")
    return {
        "model": variant.model,
        "latent": variant.latent,
        "options": dict(params.vae.chosen),
        "rows": {
            "real": scores.real,
            "reconstruction": scores(reconstructions(generator, codes, validation, scores.halves)),
            "samples": scores(generator.sample(SETS * scores.rows, seed=1)),
        },
        "conditional_coherence": {
            through: {size: score["value"] for size, score in found.items()} for through, found in conditional.items()
        },
        "seconds": read_json(folder / "seconds.json"),
    }


def reconstructions(generator: Generator, codes: Codes, data: Dataset, parts: Sequence[Ints]) -> Dataset:
    """Return the rows of all parts, one part after the other, each decoded from one draw of its posterior."""
    from postprior.stage1_vae.randomness import generator_for

    rows, noise = np.concatenate(parts), generator_for("cpu", 0)
    z = codes.draw(noise, torch.from_numpy(rows))
    return replace(data.select(rows), data=generator.decode_all(z, "mean", noise))


def write_table() -> None:
    """Write the table of all finished variants into docs/quality.md."""
    runs = [read_json(path) for path in sorted(FILES.glob("*.json"))]
    heads = ["model", "shared", "private", "bounds", "seconds"]
    conditional = [(through, size) for through in ("model", "density") for size in ("1", "4")]
    heads += [f"{size} observed, {through} ↑" for through, size in conditional]
    heads += [f"{score} of {row} {arrow}" for score, arrow in ARROWS.items() for row in SCORED]
    lines = []
    for run in runs:
        line = [f"`{run['model']}`", str(run["latent"]), str(run["options"]["private"])]
        line += [str(run["options"].get("bounds", "")), f"{run['seconds']['train']:.0f}"]
        line += [f"{run['conditional_coherence'][through][size]:.3f}" for through, size in conditional]
        for score, digits in (("joint_coherence", 3), ("frechet_distance", 1), ("recall", 2)):
            line += [f"{run['rows'][row][score]:.{digits}f}" for row in SCORED]
        lines.append(line)
    replace_block(PAGE, *MARKS, table(heads, lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "variants", nargs="*", default=list(VARIANTS), metavar="VARIANT", help="variants; all by default"
    )
    arguments = parser.parse_args()
    for name in arguments.variants:
        file = FILES / f"{name}.json"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            write_json(file, run(VARIANTS[name]))
            write_table()


if __name__ == "__main__":
    main()
