"""Measures how close samples come to real rows on `digits`: pairs of a model and a density, with several seeds.

The stages of the pipeline make and score everything, with the settings of params.yaml except for those in `PAIRS`. The
temperature of the draws is the only further choice: it is made on validation rows by `temperature_by_validation`. Every
finished run is stored as a file in benchmarks/quality and is not run again; an interrupted run continues after its last
finished stage. The numbers in docs/quality.md are written from these files.

    python benchmarks/quality.py [PAIR …] [--seeds 3] [--project FOLDER]
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that seconds are those of one core
os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

from quality_page import RESULTS, write_page
from quality_temperature import temperature_by_validation
from zoo import ROOT, project, settings

from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.storage import read_json, write_json

if TYPE_CHECKING:
    from postprior.pipelines.settings.params import Params

WORK = ROOT / ".postprior/quality"


@dataclass(frozen=True)
class Pair:
    """A model and a density, as changes of the settings in params.yaml.

    Args:
        model: name of the model.
        density: name of the density.
        vae: changes of `vae`.
        options: changes of the density's options.
    """

    model: str
    density: str = "flow_matching"
    vae: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.model}-{self.density}"


APART = settings("unimodal", 0, {})["density"]["flow_matching"]
"""Options of flow_matching for one code per modality."""
PAIRS = {
    pair.name: pair
    for pair in (
        Pair("unimodal"),
        Pair(
            "dmvae", vae={"latent": 24, "options": {"dmvae": {"private": 16, "bounds": 1, "beta": 1.0}}}, options=APART
        ),
        Pair("mvtcae"),
    )
}


def run(pair: Pair, seed: int) -> dict[str, Any]:
    """Run the stages that are not finished; return the scores of real rows, reconstructions and samples."""
    from postprior.pipelines.artefacts.evaluators import load_evaluators
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.generation.generator import Generator
    from postprior.pipelines.stages.encode import encode
    from postprior.pipelines.stages.fit import fit
    from postprior.pipelines.stages.score_baselines import score_baselines
    from postprior.pipelines.stages.train import train

    params, folder = prepared(pair, seed)
    artefacts = Project(folder).artefacts
    stages: tuple[tuple[str, Path, Callable[[], None]], ...] = (
        ("train", artefacts.autoencoder, partial(train, params, folder)),
        ("encode", artefacts.codes / "test", partial(encode, params, folder)),
        ("score-baselines", artefacts.baselines, partial(score_baselines, params, folder)),
        ("fit", artefacts.densities / pair.density, partial(fit, pair.density, params, folder)),
    )
    for stage, made, action in stages:
        timed(folder, stage, made, action)
    generator, evaluators = Generator.load(artefacts.densities / pair.density), load_evaluators(artefacts.evaluators)
    chosen, trials = temperature_by_validation(generator, evaluators, Project(folder))
    names = {t: name_at(pair, t) for t in dict.fromkeys((1.0, chosen))}
    for temperature, name in names.items():
        make_samples(pair, params, folder, temperature, name)
    impute(pair, params, folder)
    seconds = read_json(folder / "seconds.json")
    return collected(pair, params, folder, names, chosen) | {"temperatures": trials, "seconds": seconds}


def of_project(root: Path) -> dict[str, dict[str, Any]]:
    """Return what `run` returns for the pairs of a project whose pipeline has run, at the temperature of its settings.

    There are no seconds, and no scores on validation rows.
    """
    params = load_params(root / "params.yaml")
    pairs = [PAIRS[name] for density in params.densities if (name := f"{params.vae.model}-{density}") in PAIRS]
    temperature = params.generate.temperature
    return {pair.name: collected(pair, params, root, {temperature: pair.density}, temperature) for pair in pairs}


def collected(pair: Pair, params: Params, folder: Path, names: dict[float, str], temperature: float) -> dict[str, Any]:
    """Return the scores of a project that the page shows.

    Args:
        names: names of the results of samples, by the temperature of their draws.
        temperature: the one that was chosen.
    """
    from postprior.pipelines.artefacts.project import Project

    results = Project(folder).results
    read = {name: read_json(results.scores("metrics", name)) for name in ("real", "reconstruction", *names.values())}
    samples = {
        str(t): joint_scores(read[name])
        | {key: read[name][key] for key in ("conditional_coherence", "memorisation")}
        | {"utility_ratio": read_json(results.scores("utility", name))["ratio_to_real"]}
        | {"privacy": {s: read_json(results.scores("privacy", name))["spaces"][s] for s in ("joint", "codes")}}
        for t, name in names.items()
    }
    return {
        "model": pair.model,
        "density": pair.density,
        "seed": params.seed,
        "settings": {
            "latent": params.vae.latent,
            "options": params.vae.chosen,
            "epochs": params.train.epochs,
            "density": dict(params.density[pair.density]),
        },
        "temperature": temperature,
        "rows": {name: joint_scores(read[name]) for name in ("real", "reconstruction")},
        "samples": samples,
        "conditional_coherence": read_json(results.scores("metrics", "autoencoder"))["conditional_coherence"],
        "utility_of_real": read_json(results.scores("utility", "real"))["train_real_test_real"],
        "imputation": imputation_scores(results.scores("imputation", pair.density)),
        "seconds": {},
    }


def prepared(pair: Pair, seed: int) -> tuple[Params, Path]:
    """Create the project of a run; data, evaluators and the classifiers of real rows are made once per seed."""
    from postprior.pipelines.stages.prepare import prepare
    from postprior.pipelines.stages.train_evaluators import train_evaluators
    from postprior.pipelines.stages.utility import utility_of_real

    tree = settings(pair.model, seed, {})
    tree["vae"] |= {**pair.vae, "options": {**tree["vae"]["options"], **pair.vae.get("options", {})}}
    tree["density"][pair.density] |= pair.options
    tree["densities"] = [pair.density]
    common = WORK / f"seed-{seed}"
    params = project(common, tree)
    for made, stage in (
        ("artefacts/data/test", prepare),
        ("artefacts/evaluators", train_evaluators),
        ("artefacts/utility/real", utility_of_real),
    ):
        if not (common / made).exists():
            stage(params, common)
    folder = WORK / f"{pair.name}-{seed}"
    params = project(folder, tree)
    for shared in ("artefacts/data", "artefacts/evaluators", "artefacts/utility/real", "results/utility/real.json"):
        if not (folder / shared).exists():
            copy = shutil.copytree if (common / shared).is_dir() else shutil.copy
            (folder / shared).parent.mkdir(parents=True, exist_ok=True)
            copy(common / shared, folder / shared)
    return params, folder


def timed(folder: Path, stage: str, made: Path, action: Callable[[], None]) -> None:
    """Run a stage unless what it makes exists, and store its processor seconds; None if it had been interrupted."""
    if made.exists():
        return
    file = folder / "seconds.json"
    interrupted = stage == "train" and (folder / ".postprior/checkpoints").exists()
    start = time.process_time()
    action()
    seconds = None if interrupted else round(time.process_time() - start, 1)
    write_json(file, (read_json(file) if file.exists() else {}) | {stage: seconds})


def name_at(pair: Pair, temperature: float) -> str:
    """Return the name of the samples that are drawn at a temperature."""
    return pair.density if temperature == 1.0 else f"{pair.density}_{round(1000 * temperature)}"


def make_samples(pair: Pair, params: Params, folder: Path, temperature: float, name: str) -> None:
    """Draw samples, and score them, their utility and their privacy, with the stages of the pipeline."""
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.stages.evaluate import evaluate
    from postprior.pipelines.stages.generate import generate
    from postprior.pipelines.stages.privacy import privacy
    from postprior.pipelines.stages.utility import utility

    artefacts, results = Project(folder).artefacts, Project(folder).results
    if not (artefacts.densities / name).exists():
        shutil.copytree(artefacts.densities / pair.density, artefacts.densities / name)
    params = params.model_copy(
        update={
            "density": {**params.density, name: params.density[pair.density]},
            "generate": params.generate.model_copy(update={"temperature": temperature}),
        }
    )
    places = {generate: artefacts.synthetic / name, evaluate: results.scores("metrics", name)}
    places |= {stage: results.scores(stage.__name__, name) for stage in (utility, privacy)}
    for stage, made in places.items():
        timed(folder, f"{stage.__name__} {name}", made, partial(stage, name, params, folder))


def impute(pair: Pair, params: Params, folder: Path) -> None:
    """Impute hidden modalities by the baseline imputers and through the density, with the stages of the pipeline."""
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.stages.evaluate_imputation import evaluate_baseline_imputers, evaluate_imputation

    results = Project(folder).results
    timed(
        folder,
        "baseline imputers",
        results.scores("imputation", "baselines"),
        partial(evaluate_baseline_imputers, params, folder),
    )
    timed(
        folder,
        "imputation",
        results.scores("imputation", pair.density),
        partial(evaluate_imputation, pair.density, params, folder),
    )


def imputation_scores(file: Path) -> dict[str, Any]:
    """Return the energy score of imputed modalities and its differences to those of the baseline imputers."""
    task = read_json(file)["modalities"]
    against = {name: scores["energy_score"] for name, scores in task["against"].items()}
    return {"energy_score": task["energy_score"], "against": against}


def joint_scores(row: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a row that the page shows, with the lowest label entropy of any modality."""
    keys = ("joint_coherence", "frechet_distance", "recall", "precision", "coverage", "label_agreement")
    lowest = min(scores["label_entropy"]["value"] for scores in row["modalities"].values())
    return {key: row[key] for key in keys} | {"lowest_entropy": {"value": lowest}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", default=list(PAIRS), metavar="PAIR", help="pairs; all by default")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds per pair")
    parser.add_argument(
        "--project", type=Path, help="a project whose pipeline has run: take its scores, and run nothing"
    )
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if arguments.project:
        for name, found in of_project(arguments.project).items():
            write_json(RESULTS / f"{name}-{found['seed']}.json", found)
    for seed in range(0 if arguments.project else arguments.seeds):
        for name in arguments.pairs:
            file = RESULTS / f"{name}-{seed}.json"
            if not file.exists():
                write_json(file, run(PAIRS[name], seed))
    write_page()


if __name__ == "__main__":
    main()
