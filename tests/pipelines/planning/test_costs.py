"""The table of costs: every stage and density has an entry, and more work takes more time."""

from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.project import REPOSITORY

from postprior.pipelines.planning.costs import COSTS, estimates
from postprior.pipelines.planning.fits import FITS, fit_seconds
from postprior.pipelines.planning.speeds import Speeds
from postprior.pipelines.planning.workload import Workload
from postprior.pipelines.settings.checks import parse_params
from postprior.stage2_latent import DENSITIES

FILES = [REPOSITORY / "dvc.yaml", REPOSITORY / "pipelines/settings/templates/dvc.yaml"]
SETTINGS: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
SPEEDS = Speeds(0.02, 0.03, 3e-5, 8e-5, 0.02, 5e-5, pace=1.0)
ROWS = {"train": 5000, "validation": 500, "test": 2000}


def workload(**changes: Any) -> Workload:
    """The demo, with other settings: `train__epochs=3` changes `train.epochs`."""
    tree = yaml.safe_load(yaml.safe_dump(SETTINGS))
    for key, value in changes.items():
        *path, last = key.split("__")
        branch = tree
        for name in path:
            branch = branch[name]
        branch[last] = value
    return Workload(parse_params(tree, "params.yaml"), ROWS, 5, 3840, 0, 10, 32, 6, True, SPEEDS)


def total(work: Workload) -> float:
    return sum(estimate.seconds for estimate in estimates(work))


@pytest.mark.parametrize("file", FILES, ids=["repository", "template"])
def test_every_stage_of_the_pipeline_has_an_estimate(file: Path) -> None:
    stages = yaml.safe_load(file.read_text())["stages"]
    work, names = workload(augment__sizes=[100, "all"]), []
    for name, stage in stages.items():
        lists: list[Any] = [work.params]
        for key in stage.get("matrix", {}).values():  # as "${augment.sizes}"
            lists.append(work.params)
            for part in key.strip("${}").split("."):
                lists[-1] = getattr(lists[-1], part)
        items = ("-".join(map(str, item)) for item in product(*lists[1:]))
        names += [f"{name}@{item}" if item else name for item in items]
    assert [estimate.stage for estimate in estimates(work)] == names
    assert list(COSTS) == list(stages)


def test_every_density_has_a_cost() -> None:
    assert list(FITS) == list(DENSITIES)
    assert all(fit_seconds(kind, {}, workload()) > 0 for kind in DENSITIES)


def test_twice_the_seconds_per_unit_are_twice_the_seconds() -> None:
    """No constant is left out of the pace of the machine."""
    work = workload(densities=["gmm", "flow", "vamp", "flow_matching", "kde", "two_stage_vae", "riemannian", "auto"])
    slow = replace(work, speeds=Speeds(**{name: 2 * value for name, value in asdict(SPEEDS).items()}))
    expected = [2 * estimate.seconds for estimate in estimates(work)]
    assert [estimate.seconds for estimate in estimates(slow)] == pytest.approx(expected)


@pytest.mark.parametrize(
    "more",
    [
        {"train__epochs": 80},
        {"train__epochs": [40, 1]},
        {"train__batch_size": 32},
        {"evaluators__epochs": 10},
        {"densities": ["gmm", "flow", "flow_matching", "vamp", "kde"]},
        {"density__flow_matching__steps": 3000},
        {"density__gmm__components": [1, 2, 4, 8, 16, 32]},
        {"density__vamp__independent": True},
        {"generate__samples": 2000},
        {"evaluate__resamples": 400},
        {"utility__seeds": [0, 1, 2, 3]},
        {"utility__steps": 600},
        {"augment__sizes": [100, 200]},
        {"augment__seeds": [0, 1, 2, 3]},
        {"augment__steps": 1600},
        {"privacy__draws": 10},
        {"privacy__attacks": 4000},
        {"imputation__draws": 99},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_larger_setting_takes_longer(more: dict[str, Any]) -> None:
    assert total(workload(**more)) > total(workload())


@pytest.mark.parametrize(
    "grow",
    [
        *(lambda work, split=split: replace(work, rows=work.rows | {split: 2 * work.rows[split]}) for split in ROWS),
        lambda work: replace(work, values=2 * work.values),
        lambda work: replace(work, columns=10),
        lambda work: replace(work, dimensions=2 * work.dimensions),
    ],
    ids=[*ROWS, "values", "columns", "dimensions"],
)
def test_no_stage_is_faster_on_more_data(grow: Callable[[Workload], Workload]) -> None:
    before, after = estimates(workload()), estimates(grow(workload()))
    assert all(b.seconds >= a.seconds for a, b in zip(before, after, strict=True))
    assert sum(b.seconds for b in after) > sum(a.seconds for a in before)


def test_training_is_its_number_of_steps() -> None:
    one, three = (estimates(workload(train__epochs=epochs)) for epochs in (1, 3))
    ((stage, difference),) = (
        (a.stage, b.seconds - a.seconds) for a, b in zip(one, three, strict=True) if a.seconds != b.seconds
    )
    batches = 79 + 8 / 3  # 5000 and 500 rows in batches of 64; no gradients on held-out rows
    assert stage == "train"
    assert difference == pytest.approx(2 * batches * SPEEDS.step)
