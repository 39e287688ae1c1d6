"""Compares all models on `digits` with the same budget: what each learns, and how much its best density improves it.

The stages of the pipeline train and encode every model, fit densities to its codes, draw samples and score them, with
the settings of params.yaml except for `changes`. Each finished run is stored as a file in benchmarks/zoo and is not run
again, unless `changes` are others now. If a run was interrupted, its training resumes. docs/zoo.md is written from
these files.

    python benchmarks/zoo.py [--seeds 3] [MODEL …]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that several processes can run in parallel, one core per process
os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

from ruamel.yaml import YAML

from postprior.pipelines.publishing import write_text
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import read_json, write_json

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".postprior/zoo"
RESULTS = ROOT / "benchmarks/zoo"
PAGE = ROOT / "docs/zoo.md"
EPOCHS = 20
"""Epochs of each phase: half of those in params.yaml."""
CHANGES: dict[str, Any] = {"train": {"epochs": EPOCHS}, "densities": ["gmm", "vamp"]}
"""Settings that differ from params.yaml: half of the epochs, and only the two densities that are fast to fit."""
SHARED = ("data", "evaluators")
ONE_CODE: dict[str, dict[str, Any]] = {
    "flow_matching": {"network": ["plain", "blocks"], "hidden": 192, "steps": 1200},
    "gmm": {"components": [1, 2, 4, 8, 16]},
}
"""Options of densities for models other than `unimodal`, as `postprior init` has them."""


def changes(model: str) -> dict[str, Any]:
    """Return the changes for one model: every phase has the same number of epochs."""
    from postprior import MODELS
    from postprior.stage1_vae.modalities import Modality

    phases = len(MODELS[model]([Modality(name, "vector", (2,), "normal") for name in "ab"]).phases())
    return CHANGES | {"train": {"epochs": EPOCHS if phases == 1 else [EPOCHS] * phases}}


def current(file: Path, model: str) -> bool:
    """Whether a file has results with the changes of its model; results with others are made again."""
    return file.exists() and read_json(file)["changes"] == changes(model)


def settings(model: str, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run, in the structure of params.yaml, whose model is `unimodal`."""
    tree = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    if model != "unimodal":
        tree["vae"]["latent"] = 32
        for name, options in ONE_CODE.items():
            tree["density"][name] |= options
    for section, change in changes.items():
        tree[section] = tree[section] | change if isinstance(change, dict) else change
    tree["seed"], tree["vae"]["model"] = seed, model
    return tree


def project(folder: Path, tree: dict[str, Any]) -> Params:
    """Create a project folder with these settings."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(tree, file)
    return load_params(folder / "params.yaml")


def prepare(model: str, seed: int, work: Path = WORK, changes: dict[str, Any] = CHANGES) -> tuple[Params, Path]:
    """Create the project of a run in the folder `work`; data and evaluators are created once per seed."""
    from postprior.pipelines.stages.prepare import prepare as make_data
    from postprior.pipelines.stages.train_evaluators import train_evaluators

    common = work / f"seed-{seed}"
    params = project(common, settings(model, seed, changes))
    if not (common / "artefacts/data/test").exists():
        make_data(params, common)
    if not (common / "artefacts/evaluators").exists():
        train_evaluators(params, common)
    folder = work / f"{model}-{seed}"
    params = project(folder, settings(model, seed, changes))
    for name in SHARED:
        if not (folder / "artefacts" / name).exists():
            shutil.copytree(common / "artefacts" / name, folder / "artefacts" / name)
    return params, folder


def run(model: str, seed: int) -> dict[str, Any]:
    """Train, encode, fit, draw and score; return the scores."""
    from postprior.pipelines.artefacts.autoencoder import load_autoencoder
    from postprior.pipelines.stages.encode import encode
    from postprior.pipelines.stages.evaluate import evaluate
    from postprior.pipelines.stages.fit import fit
    from postprior.pipelines.stages.generate import generate
    from postprior.pipelines.stages.score_baselines import score_baselines
    from postprior.pipelines.stages.train import train

    params, folder = prepare(model, seed, changes=changes(model))
    uninterrupted = not any((folder / name).exists() for name in (".postprior/checkpoints", "artefacts/autoencoder"))
    start = time.perf_counter()
    if not (folder / "artefacts/autoencoder").exists():
        train(params, folder)
    seconds = time.perf_counter() - start
    encode(params, folder)
    score_baselines(params, folder)
    for name in params.densities:
        fit(name, params, folder)
        generate(name, params, folder)
        evaluate(name, params, folder)
    metrics = folder / "results/metrics"
    rows = {name: read_json(metrics / f"{name}.json") for name in ("normal", "reconstruction", *params.densities)}
    autoencoder_metrics = read_json(metrics / "autoencoder.json")
    epochs = len((folder / "results/training.csv").read_text().splitlines()) - 1
    autoencoder, _ = load_autoencoder(folder / "artefacts/autoencoder")
    return {
        "model": model,
        "seed": seed,
        "options": params.vae.chosen,
        "changes": changes(model),
        "parameters": sum(parameter.numel() for parameter in autoencoder.parameters()),
        "seconds_per_epoch": seconds / epochs if uninterrupted else None,  # a resumed run timed only some epochs
        "conditional_coherence": {
            size: score["value"] for size, score in autoencoder_metrics["conditional_coherence"].items()
        },
        "log_evidence": autoencoder_metrics.get("log_evidence", {}).get("value"),
        "rows": {
            name: {score: row[score]["value"] for score in ("joint_coherence", "frechet_distance")}
            | {
                "joint_coherence_low": row["joint_coherence"]["low"],
                "joint_coherence_high": row["joint_coherence"]["high"],
            }
            for name, row in rows.items()
        },
    }


def best(result: dict[str, Any]) -> str:
    """Return the density of a run with the highest joint coherence."""
    return max(CHANGES["densities"], key=lambda name: result["rows"][name]["joint_coherence"])


def gap(result: dict[str, Any]) -> float | None:
    """Return the share of the gap in joint coherence between prior and reconstructions that the best density closes."""
    prior, density, reconstruction = (
        result["rows"][name]["joint_coherence"] for name in ("normal", best(result), "reconstruction")
    )
    return (density - prior) / (reconstruction - prior) if reconstruction - prior > 0.05 else None


def mean_and_deviation(values: list[float | None], digits: int) -> str:
    """Format the mean of the values that are not None, and their standard deviation if there are several."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return ""
    mean = f"{statistics.mean(numbers):.{digits}f}"
    return mean if len(numbers) == 1 else f"{mean} ± {statistics.stdev(numbers):.{digits}f}"


def line(results: list[dict[str, Any]]) -> str:
    """Return the table row for the runs of a model."""
    columns = [f"`{results[0]['model']}`", str(len(results))]
    for size in results[0]["conditional_coherence"]:
        columns.append(mean_and_deviation([r["conditional_coherence"][size] for r in results], 3))
    for score, digits in (("joint_coherence", 3), ("frechet_distance", 1)):
        columns.append(mean_and_deviation([r["rows"]["normal"][score] for r in results], digits))
        columns.append(mean_and_deviation([r["rows"][best(r)][score] for r in results], digits))
        columns.append(mean_and_deviation([r["rows"]["reconstruction"][score] for r in results], digits))
    columns += [
        ", ".join(dict.fromkeys(best(r) for r in results)),
        mean_and_deviation([gap(r) for r in results], 2),
        mean_and_deviation([r["log_evidence"] for r in results], 0),
        mean_and_deviation([r["seconds_per_epoch"] for r in results], 1),
        f"{results[0]['parameters'] / 1e6:.2f}",
    ]
    return "| " + " | ".join(columns) + " |"


def page(results: list[dict[str, Any]]) -> str:
    """Return the text of docs/zoo.md."""
    from postprior import MODELS

    names = [name for name in MODELS if any(r["model"] == name for r in results)]
    heads = ["model", "seeds", "1", "2", "3", "4"]
    heads += [f"{score} {row}" for score in ("joint", "Frechet") for row in ("normal", "density", "reconstruction")]
    heads += ["density", "gap closed", "log p(x)", "s per epoch", "M parameters"]
    table = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    table += [line([r for r in results if r["model"] == name]) for name in names]
    notes = PAGE.read_text().split("<!-- notes -->", 1)[1] if PAGE.exists() else "\n"
    return INTRODUCTION + "\n".join(table) + "\n\n<!-- notes -->" + notes


INTRODUCTION = """# The zoo

This page compares all models on `digits`. `make zoo` writes it from the files in `benchmarks/zoo`. The settings are
those of `params.yaml` with 20 epochs instead of 40, in each phase of a model with two phases (JNF, TELBO), 5,000 tuples
of five 3 × 16 × 16 images, and batches of 64: 1,580 steps per phase. `SEEDS=3 make zoo` repeats each model with
different data, evaluators and initial parameters; values are then mean ± standard deviation.

Columns 1 to 4 are conditional coherence by the number of observed modalities. `joint` is joint coherence, the share of
samples whose five digits agree. `Frechet` is the Frechet distance in the features of the evaluators. Both are given for
draws from the model's own prior (`normal`), for draws from the better of two fitted densities (chosen by this joint
coherence, which favours it a little), and for decoded codes of held-out samples (`reconstruction`, the target of a
density). `gap closed` is the share of the gap in joint coherence between `normal` and `reconstruction` that the density
closes; it is left out where the gap is at most 0.05. `log p(x)` is in nats, estimated by importance sampling with 64
draws. Seconds per epoch were measured with one thread while other runs used the machine.

"""


def main() -> None:
    from postprior import MODELS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL", help="models; all by default")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds per model")
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        for model in arguments.models:
            file = RESULTS / f"{model}-{seed}.json"
            if not current(file, model):
                write_json(file, run(model, seed))
                shutil.rmtree(WORK / f"{model}-{seed}")
            paths = [path for path in sorted(RESULTS.glob("*.json")) if current(path, path.stem.rpartition("-")[0])]
            write_text(PAGE, page([read_json(path) for path in paths]))


if __name__ == "__main__":
    main()
