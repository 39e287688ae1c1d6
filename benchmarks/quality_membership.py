"""Splits the membership attack of docs/quality.md into parts: rows of known digits, and digits.

The digits of training rows do not occur in test rows. So the attack of the stage `privacy` finds training rows by their
digits too, and also if a density learned nothing but the distribution of rows with these digits. New rows that are
composed of training digits tell the parts apart: training rows against them, and them against test rows. Further new
rows, in place of samples, say what the attack finds if samples are perfect draws of that distribution.

    python benchmarks/quality_membership.py [--seed 0]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

import numpy as np
import torch
from quality import PAIRS, WORK
from quality_page import MEMBERSHIP, write_page

from postprior.pipelines.storage import read_json, write_json

NEW = 2000
"""Number of new rows."""
DRAWN = 10_000
"""Number of samples that the attacker sees, as in the profile `quick`, and of further new rows."""
BLOCK = 1000
SPACES = ("joint", "codes")
PARTS = {"all": ("train", "test"), "rows": ("train", "new"), "digits": ("new", "test")}
"""Members and others of each part of the attack."""
Aucs = dict[str, dict[str, float]]
"""AUC by part and space."""


def membership(folder: Path, name: str, seed: int) -> dict[str, Aucs]:
    """Return the AUCs if the attacker sees `samples` of density `name` of a project on `digits`, or `new_rows`."""
    from postprior.pipelines.artefacts.codes import load_codes, posteriors
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.data.sources.digits import make_digits
    from postprior.pipelines.generation.generator import Generator
    from postprior.pipelines.metrics.privacy.splits import RealSplits
    from postprior.pipelines.scoring.privacy import samples
    from postprior.stage1_vae.randomness import generator_for

    project = Project(folder)
    generator = Generator.load(project.artefacts.densities / name)
    data = project.splits()
    codes = {split: load_codes(project.artefacts.codes / split) for split in data}
    rows = make_digits(seed, folder, train=NEW + DRAWN)["train"]  # the digits of training rows in other rows
    encoded = posteriors(generator.model, rows, 1, generator_for("cpu", seed))
    data["new"], codes["new"] = rows.select(np.arange(NEW)), encoded.select(torch.arange(NEW))
    z = encoded.draw(generator_for("cpu", seed, 1), torch.arange(len(rows)))
    provenance = generator.sample(1).provenance | {"values": "mean"}
    found: dict[str, Aucs] = {"samples": {}, "new_rows": {}}
    for part, (members, others) in PARTS.items():
        sides = {"train": members, "test": others, "validation": "validation"}
        real = RealSplits.fit(
            {place: data[split] for place, split in sides.items()},
            {place: codes[split] for place, split in sides.items()},
            seed=0,
        )
        further = ((z[chosen], rows.select(chosen)) for chosen in np.split(np.arange(NEW, len(rows)), DRAWN // BLOCK))
        for seen, drawn in {"samples": samples(generator, provenance, DRAWN, 0), "new_rows": further}.items():
            aucs, _ = real.attack(drawn, dimensions=32, resamples=20, rng=np.random.default_rng(0))
            found[seen][part] = {space: round(float(np.asarray(aucs[space])[0]), 4) for space in SPACES}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", default=["unimodal-flow_matching"], metavar="PAIR")
    parser.add_argument("--seed", type=int, default=0, help="seed of runs of benchmarks/quality.py that are finished")
    arguments = parser.parse_args()
    found = read_json(MEMBERSHIP) if MEMBERSHIP.exists() else {}
    for name in arguments.pairs:
        run = f"{name}-{arguments.seed}"
        found[run] = membership(WORK / run, PAIRS[name].density, arguments.seed)
        write_json(MEMBERSHIP, found)
    write_page()


if __name__ == "__main__":
    main()
