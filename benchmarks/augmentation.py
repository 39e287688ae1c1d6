"""Measures whether synthetic rows help if there are few real rows, with learning curves for several models.

The data are `digits`. Every cell is a run of the stage `augment` with the settings of params.yaml, except for model and
density. Finished sizes are stored in benchmarks/augmentation, one file per model and density, and are not run again.
docs/augmentation.md contains the numbers of these files.

    python benchmarks/augmentation.py [MODEL:DENSITY …] [--sizes 50 100 200 500 all] [--seeds 3]
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that several processes can run in parallel, one core per process
os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

from augmentation_page import RESULTS, write_page
from zoo import ROOT, project, settings

from postprior.pipelines.storage import read_json, write_json

WORK = ROOT / ".postprior/augmentation"
PAIRS = ("mopoe:flow", "mvtcae:gmm", "cmvae:kde")
SIZES = ("50", "100", "200", "500", "all")


def run(pair: str, size: str, seeds: int) -> None:
    """Run one size of a model and a density, unless it is finished, and update the page."""
    from postprior.pipelines.artefacts.augmentation import load_arm_hits
    from postprior.pipelines.stages.augment import augment
    from postprior.pipelines.stages.prepare import prepare

    model, _, density = pair.partition(":")
    path = RESULTS / f"{model}-{density}.json"
    results: dict[str, Any] = read_json(path) if path.exists() else {"sizes": {}}
    if results["sizes"].get(size, {}).get("seeds", 0) >= seeds:
        return
    folder = WORK / f"{model}-{density}"
    params = project(
        folder, settings(model, 0, {"augment": {"model": model, "density": density, "seeds": list(range(seeds))}})
    )
    if not (folder / "artefacts/data/test").exists():
        prepare(params, folder)
    augment(size, params, folder)
    if found := load_arm_hits(folder / "artefacts/augmentation" / size):
        results["sizes"][size] = {"rows": found.rows, "seeds": seeds, "arms": found.estimates}
    write_json(path, {"model": model, "density": density, **results})
    write_page()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "pairs", nargs="*", default=PAIRS, metavar="MODEL:DENSITY", help=f"pairs to run, by default {', '.join(PAIRS)}"
    )
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="numbers of real rows, or all")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds per size")
    arguments = parser.parse_args()
    for size in arguments.sizes:
        for pair in arguments.pairs:
            run(pair, size, arguments.seeds)
    write_page()


if __name__ == "__main__":
    main()
