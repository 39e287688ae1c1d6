"""The table of costs of fits: about how many seconds each kind of density takes; see `costs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from postprior.pipelines.planning.workload import Workload
from postprior.stage2_latent import DENSITIES

Options = Mapping[str, Any]


def fit_seconds(kind: str, options: Options, work: Workload) -> float:
    """Return the seconds to fit a kind of density with some of its options; the others have their defaults."""
    return FITS[kind](DENSITIES[kind](**options).options, work)


def brief(options: Options, work: Workload) -> float:
    """Return the seconds of a fit without iterations."""
    return 0.1 * work.speeds.pace


def gmm(options: Options, work: Workload) -> float:
    sizes, structures = (_listed(options[name]) for name in ("components", "covariance"))
    runs = len(sizes) * len(structures) + options["averaged"]
    points = min(work.rows["train"], options["batch"] * max(1, work.labels)) * sum(sizes) * len(structures)
    return work.speeds.pace * options["passes"] * (4.7e-3 * runs + 2.6e-10 * points * work.dimensions**2)


def flow(options: Options, work: Workload) -> float:
    step = options["blocks"] * (4.6e-3 + 2e-7 * options["batch"] * work.dimensions)
    return work.speeds.pace * min(options["steps"], 150 + 0.15 * work.rows["train"]) * step  # few rows end it early


def flow_matching(options: Options, work: Workload) -> float:
    networks = _listed(options["network"]) if work.blocks > 1 else ["plain"]
    read = sum(work.dimensions / (work.blocks if network == "blocks" else 1) for network in networks)
    step = 4.3e-3 * len(networks) + 2.2e-9 * options["batch"] * options["hidden"] * read
    return work.speeds.pace * len(_listed(options["weight_decay"])) * options["steps"] * step


def two_stage_vae(options: Options, work: Workload) -> float:
    step = 2.5e-3 + options["batch"] * options["hidden"] * (5e-8 + 1.9e-9 * work.dimensions)
    return work.speeds.pace * options["steps"] * step


def vamp(options: Options, work: Workload) -> float:
    encoding = 2.2 * work.speeds.encode * options["pseudo_inputs"]
    points = options["batch"] * options["pseudo_inputs"] * work.dimensions
    return options["steps"] * (encoding + work.speeds.pace * (0.02 + 5e-9 * points))


def kde(options: Options, work: Workload) -> float:
    pairs = work.rows["train"] * work.rows["validation"] * len(_listed(options["bandwidth"]))
    return work.speeds.pace * (0.1 + 2e-9 * pairs * work.dimensions)


def riemannian(options: Options, work: Workload) -> float:
    pairs = min(work.rows["train"], options["centroids"]) ** 2 * len(_listed(options["radius"]))
    return work.speeds.pace * (0.1 + 1e-9 * pairs * work.dimensions)


def independent(options: Options, work: Workload) -> float:
    return work.blocks * fit_seconds(options["density"], options["options"] or {}, work)


def auto(options: Options, work: Workload) -> float:
    given = options["candidates"]
    candidates = given if isinstance(given, Mapping) else {name: {} for name in given}
    return sum(fit_seconds(name, of_candidate, work) for name, of_candidate in candidates.items())


FITS: dict[str, Callable[[Options, Workload], float]] = {
    "normal": brief,
    "gaussian": brief,
    "gmm": gmm,
    "flow": flow,
    "vamp": vamp,
    "kde": kde,
    "flow_matching": flow_matching,
    "two_stage_vae": two_stage_vae,
    "riemannian": riemannian,
    "independent": independent,
    "auto": auto,
}
"""Seconds to fit each kind of density with all its options. A fit that stops early takes less time."""


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]
