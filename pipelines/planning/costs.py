"""The table of costs: about how many seconds each stage takes, from its units of work and the seconds per unit.

Steps and rows that pass the project's networks take the times that are measured on this machine. All other constants
are seconds on one core of the reference machine, and are multiplied by the pace of this machine. They were fitted to
the processor times of the stages of the demo, and of a project with 300 rows of three small tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from postprior.pipelines.generation.augmentation import ARMS, epochs_of
from postprior.pipelines.generation.augmentation import MOST as COPIES
from postprior.pipelines.metrics.imputation.chained import ROUNDS, TRAINING, VARIABLES
from postprior.pipelines.metrics.privacy.attacks.attribute_inference import SECRETS
from postprior.pipelines.metrics.privacy.attacks.attributes import MOST as ATTRIBUTES
from postprior.pipelines.metrics.privacy.attacks.suite import SYNTHETIC
from postprior.pipelines.planning.fits import fit_seconds
from postprior.pipelines.planning.workload import Workload
from postprior.pipelines.settings.checks import read_entry
from postprior.pipelines.settings.params import ALL, Params

START = 2.0  # to start the process of a stage and to import the libraries
TRACKING = 1.0  # more, if MLflow starts in another process at the same time
SCORED = 5000  # largest number of rows that are scored
IMPUTED = 1000  # largest number of test rows that are imputed
CALIBRATION = 300  # largest number of held-out rows that calibrate the imputed draws

Cost = Callable[[Workload, str], float]
"""Seconds of a stage without its start; the text is the density or the number of rows that it works on."""


def code(work: Workload, item: str) -> float:
    return -1.1 * work.speeds.pace  # it imports no torch


def prepare(work: Workload, item: str) -> float:
    return work.speeds.pace * (8e-8 * work.values * sum(work.rows.values()) - 1.5)  # it imports no torch


def train_evaluators(work: Workload, item: str) -> float:
    settings = work.params.evaluators
    steps = settings.epochs * math.ceil(work.rows["train"] / settings.batch_size)
    return steps * work.speeds.classifier_step + work.rows["test"] * work.speeds.classify


def train(work: Workload, item: str) -> float:
    settings = work.params.train
    epochs = settings.epochs if isinstance(settings.epochs, int) else sum(settings.epochs)
    batches, held_out = (math.ceil(work.rows[split] / settings.batch_size) for split in ("train", "validation"))
    steps = epochs * (batches + held_out / 3)  # no gradients if held out
    return 0.5 * work.speeds.pace + steps * work.speeds.step


def refine(work: Workload, item: str) -> float:
    settings = work.params.refine
    if settings is None:
        return -1.1 * work.speeds.pace  # it imports no torch
    pixels = work.values - work.columns
    row = work.speeds.encode + work.speeds.decode + 1.3e-7 * work.speeds.pace * pixels * settings.width
    return settings.epochs * row * (work.rows["train"] + work.rows["validation"] / 3)  # no gradients if held out


def encode(work: Workload, item: str) -> float:
    return sum(work.rows.values()) * work.speeds.encode


def diagnose(work: Workload, item: str) -> float:
    return work.speeds.pace * (2.2 + 1.3e-5 * work.dimensions * (work.rows["train"] + work.rows["test"]))


def score_baselines(work: Workload, item: str) -> float:
    rows, subsets = min(scored(work), 500), min(2**work.modalities - 2, 60)
    generated = rows * subsets / 2 * (work.speeds.decode + work.speeds.classify)
    rows_of_leaderboard = 5.5 if work.columns == work.values else 3.5  # with samplers of tables and vectors
    return (
        rows_of_leaderboard * scoring(work) + generated + 64 * rows * work.speeds.decode
    )  # 64 draws give the log-evidence


def fit(work: Workload, item: str) -> float:
    fitting, options = read_entry(item, work.params.density[item])
    blocks = work.blocks if fitting.independent else 1
    return 0.3 * work.speeds.pace + blocks * fit_seconds(fitting.kind, options, work)


def generate(work: Workload, item: str) -> float:
    return work.params.generate.samples * work.speeds.decode


def evaluate(work: Workload, item: str) -> float:
    conditioned = min(scored(work), 200) * (work.modalities - 1)
    generated = conditioned * (64 * work.speeds.encode + 2 * (work.speeds.decode + work.speeds.classify))
    return 0.9 * work.speeds.pace + scoring(work) + generated + code_scores(work, item, 16 * conditioned)


def utility_real(work: Workload, item: str) -> float:
    settings = work.params.utility
    testing = work.rows["test"] * work.speeds.classify
    return len(settings.seeds) * (settings.steps * work.speeds.classifier_step + testing)


def utility(work: Workload, item: str) -> float:
    drawing = work.rows["train"] * (work.speeds.decode + work.speeds.classify)
    return utility_real(work, item) + len(work.params.utility.seeds) * drawing


def augment(work: Workload, item: str) -> float:
    settings, rows = work.params.augment, work.rows["train"] if item == ALL else int(item)
    batch_size = work.params.train.batch_size
    steps = epochs_of(settings.steps, rows, batch_size) * math.ceil(rows / batch_size)
    classifiers = len(ARMS) * work.params.utility.steps * work.speeds.classifier_step
    few = replace(work, rows=work.rows | {"train": rows, "validation": max(1, rows // 10)})
    fitting = fit(few, settings.density)
    drawing = COPIES * rows * work.speeds.decode + len(ARMS) * work.rows["test"] * work.speeds.classify
    trained = steps * work.speeds.augment_step + fitting + drawing + classifiers
    return 0.5 * work.speeds.pace + len(settings.seeds) * trained


def privacy(work: Workload, item: str) -> float:
    drawn = work.params.privacy.draws * work.rows["train"]
    attacked = drawn * min(work.rows["test"], SCORED)
    compared = min(work.params.generate.samples, SCORED) + min(work.rows["test"], SCORED)
    distances = work.rows["train"] * compared * work.values
    tests = drawn * work.speeds.decode + work.speeds.pace * (0.1 + 5.7e-8 * attacked + 6e-11 * distances)
    return tests + work.speeds.pace * attacks_on_people(work)


def attacks_on_people(work: Workload) -> float:
    """Return the seconds on the reference machine of the attacks on single people."""
    attacks, samples = work.params.privacy.attacks, min(work.params.generate.samples, SYNTHETIC)
    pairs = samples * sum(min(attacks, work.rows[split]) for split in ("train", "test"))
    attributes = min(work.columns, ATTRIBUTES)
    compared = 4.6e-9 * (attributes + min(attributes, SECRETS)) + 3e-11 * (work.values - work.columns)
    guessed = 2.2e-8 * attacks * (work.rows["train"] + work.rows["test"] + samples) if attributes else 0.0
    return pairs * compared + guessed


def evaluate_imputation_baselines(work: Workload, item: str) -> float:
    equations = work.params.imputation.draws * ROUNDS * min(work.columns, VARIABLES)
    rows = min(work.rows["train"], TRAINING // max(work.columns, 1))
    chained = equations * (5e-4 + 1e-6 * rows)
    return work.speeds.pace * (2.0 + 4.2e-7 * work.rows["train"] * work.values + chained)


def evaluate_imputation(work: Workload, item: str) -> float:
    rows = min(work.rows["test"], IMPUTED) + min(work.rows["validation"], CALIBRATION)
    decoding = rows * work.params.imputation.draws * work.speeds.decode / work.modalities
    candidates = code_scores(work, item, 64 * rows)
    return (
        decoding + candidates + work.speeds.pace * (0.3 + 1.6e-9 * rows * work.params.imputation.draws**2 * work.values)
    )


def compare(work: Workload, item: str) -> float:
    cells = 6.0 + 0.012 * min(work.columns, 200) if work.columns else 0.0  # figures of tables and vectors
    return work.speeds.pace * (12.2 + 0.35 * len(work.params.densities) + cells)


def scored(work: Workload) -> int:
    """Return the number of rows in a half of the test split that are scored."""
    return min(work.rows["test"] // 2, SCORED)


def scoring(work: Workload) -> float:
    """Return the seconds to score a set of rows: covariances of half-samples, distances of all pairs, boosted trees."""
    settings, spaces = work.params.evaluate, work.modalities + 1
    features = work.modalities * min(work.params.evaluators.features, work.values)
    boosted = 3.5e-5 * min(work.columns, 100) * min(scored(work), 1000)
    distances = 1e-7 * spaces * scored(work) ** 2
    return work.speeds.pace * (0.55 + 5e-10 * settings.resamples * features**3 + distances + boosted)


def code_scores(work: Workload, item: str, codes: int) -> float:
    """Return the seconds to score codes by a density: only a kernel density needs long, since it visits every row."""
    kernels = work.rows["train"] if read_entry(item, work.params.density[item])[0].kind == "kde" else 0
    return 1.5e-9 * work.speeds.pace * codes * kernels * work.dimensions


def once(params: Params) -> Iterable[str]:
    """The items of a stage that is not a matrix."""
    return ("",)


def densities(params: Params) -> Iterable[str]:
    """The items of a matrix over the densities."""
    return params.densities


def sizes(params: Params) -> Iterable[str]:
    """The items of the matrix of the augmentation."""
    return map(str, params.augment.sizes)


COSTS: dict[str, tuple[Callable[[Params], Iterable[str]], Cost]] = {
    "code": (once, code),
    "prepare": (once, prepare),
    "train-evaluators": (once, train_evaluators),
    "train": (once, train),
    "refine": (once, refine),
    "encode": (once, encode),
    "diagnose": (once, diagnose),
    "score-baselines": (once, score_baselines),
    "fit": (densities, fit),
    "generate": (densities, generate),
    "evaluate": (densities, evaluate),
    "utility-real": (once, utility_real),
    "utility": (densities, utility),
    "augment": (sizes, augment),
    "privacy": (densities, privacy),
    "evaluate-imputation-baselines": (once, evaluate_imputation_baselines),
    "evaluate-imputation": (densities, evaluate_imputation),
    "compare": (once, compare),
}
"""The stages in their order in dvc.yaml: the items of a matrix, and the cost of an item."""


@dataclass(frozen=True)
class Estimate:
    """A stage, named as in DVC, and about how many seconds it takes."""

    stage: str
    seconds: float


def estimates(work: Workload) -> list[Estimate]:
    """Return an estimate of every stage, in the order of the pipeline."""
    start = (START + TRACKING * work.tracked) * work.speeds.pace
    return [
        Estimate(f"{name}@{item}" if item else name, start + cost(work, item))
        for name, (items, cost) in COSTS.items()
        for item in items(work.params)
    ]
