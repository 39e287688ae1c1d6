"""The rules of `init` and `advise`: one case per rule, the numbers of their pages, and docs/choose.md."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from support.project import REPOSITORY

from postprior.pipelines.api.choice.alternatives import ALTERNATIVES, alternatives
from postprior.pipelines.api.choice.facts import Facts, Rule
from postprior.pipelines.api.choice.rules import RULES, choices
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.settings.checks import parse_params
from postprior.stage1_vae.modalities import Column, Modality

IMAGES = tuple(Modality(name, "image", (1, 8, 8), "laplace", (0.0, 1.0)) for name in "ab")
COLUMNS = tuple(Column(name, "normal") for name in "pqrst")
TABLES = tuple(Modality(name, "table", (5,), "columns", columns=COLUMNS) for name in "cd")
VECTOR = Modality("v", "vector", (9,), "normal")
MANY = Facts(IMAGES, 5000, 5000, 5000, 5000, labels=10, test=1000, half=250)
FEW = Facts(TABLES, 300, 300, 300, 300, labels=2, test=100, half=25)
MIXED = replace(FEW, modalities=(*IMAGES, VECTOR))
UNLABELLED = replace(MANY, labelled=0, whole=0, labels=0)
HOLES = replace(FEW, complete=200, whole=200)

CASES: dict[tuple[str, int], tuple[Facts, dict[str, Any]]] = {  # of the nth rule of a topic
    ("model", 0): (MANY, {"vae.model": "unimodal"}),
    ("model", 1): (replace(MANY, whole=999), {"vae.model": "mvtcae"}),
    ("model", 2): (FEW, {"vae.model": "mvtcae"}),
    ("model", 3): (MIXED, {"vae.model": "mvtcae"}),
    ("size of the code", 0): (MANY, {"vae.latent": 24}),
    ("size of the code", 1): (FEW, {"vae.latent": 8, "vae.options.mvtcae.beta": 0.2}),  # of 10 columns
    ("size of the code", 2): (replace(FEW, modalities=(VECTOR,)), {"vae.latent": 4}),  # of half of 9 values
    ("likelihood", 0): (MIXED, {"vae.likelihood_scale": {"a": 0.1, "b": 0.1, "v": "features"}}),
    ("likelihood", 1): (MANY, {"vae.likelihood_scale": 0.1}),
    ("weights of modalities", 0): (replace(FEW, modalities=(*IMAGES, *TABLES)), {"vae.rescaling": "dimensions"}),
    ("weights of modalities", 1): (MIXED, {"vae.rescaling": None}),
    ("training", 0): (
        FEW,
        {"train.epochs": 300, "train.batch_size": 32, "train.patience": 60, "evaluators.epochs": 42},
    ),
    ("training", 1): (MANY, {"train.epochs": 38, "train.batch_size": 64, "train.patience": 0, "evaluators.epochs": 5}),
    ("densities", 0): (
        MANY,
        {"densities": ["flow_matching", "gmm", "vamp"], "density.flow_matching.network": "blocks"},
    ),
    ("densities", 1): (FEW, {"densities": ["gmm", "gaussian", "vamp"]}),
    ("densities", 2): (
        UNLABELLED,
        {"densities": ["gmm", "flow", "flow_matching", "vamp"], "density.flow_matching.network": ["plain", "blocks"]},
    ),
    ("components", 0): (MANY, {"density.gmm.components": [1, 2, 4], "density.vamp.pseudo_inputs": 500}),
    ("values of samples", 0): (FEW, {"generate.values": "auto"}),
    ("augmentation test", 0): (FEW, {"augment.sizes": [100], "augment.density": "gmm"}),
    ("scores", 0): (FEW, {"evaluators.features": 12, "evaluate.neighbours": 5, "privacy.dimensions": 30}),
}
SUITED = {  # facts for which an alternative is told, and others for which it is not
    "a first look, soon": (FEW, None),
    "a modality from one other": (MIXED, FEW),
    "images of one kind from another, pixel by pixel": (MANY, MIXED),
    "sharper images": (UNLABELLED, MANY),
    "samples from few rows that nobody else gets": (FEW, HOLES),
    "other models for rows that lack modalities": (HOLES, FEW),
}


def rule_of(topic: str, number: int) -> Rule:
    return [rule for rule in RULES if rule.topic == topic][number]


@pytest.mark.parametrize(("topic", "number"), CASES)
def test_a_rule_decides_for_its_data(topic: str, number: int) -> None:
    facts, expected = CASES[topic, number]
    (rule,) = [rule for rule in choices(facts) if rule.topic == topic]
    assert rule == rule_of(topic, number)
    assert expected.items() <= rule.settings(facts).items()


def test_every_rule_has_a_case() -> None:
    assert [rule_of(*case) for case in CASES] == list(RULES)
    assert [rule.topic for rule in ALTERNATIVES] == list(SUITED)


@pytest.mark.parametrize("facts", [MANY, FEW, MIXED, UNLABELLED, HOLES], ids=["many", "few", "mixed", "none", "holes"])
def test_rules_set_what_params_yaml_has_and_each_key_once(facts: Facts) -> None:
    """With every alternative as well, the settings are valid."""
    keys = [key for rule in choices(facts) for key in rule.settings(facts)]
    assert len(keys) == len(set(keys))
    assert [rule.topic for rule in choices(facts)] == list(dict.fromkeys(rule.topic for rule in RULES))
    for other in (None, *ALTERNATIVES):
        tree = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
        for rule in (*choices(facts), *([] if other is None else [other])):
            for key, value in rule.settings(facts).items():
                *path, last = key.split(".")
                branch = tree
                for name in path:
                    branch = branch[name]
                assert last in branch
                branch[last] = value
        parse_params(tree, "params.yaml")


def test_density_and_code_suit_a_model_that_the_user_chose() -> None:
    """With one that is trained already, or another than the rules choose, densities are those of a shared code."""
    chosen = {}
    for model in (None, "unimodal", "mopoe", "adapted"):
        facts = replace(MANY, model=model)
        chosen[model] = {key: value for rule in choices(facts) for key, value in rule.settings(facts).items()}
    assert chosen[None] == chosen["unimodal"]
    assert chosen["mopoe"] == chosen["adapted"]
    assert chosen["adapted"]["densities"][0] == "gmm"
    assert chosen["adapted"]["density.flow_matching.hidden"] < chosen["unimodal"]["density.flow_matching.hidden"]
    assert chosen["adapted"]["vae.latent"] == 32


@pytest.mark.parametrize("topic", SUITED)
def test_an_alternative_is_told_for_its_data_alone(topic: str) -> None:
    suited, other = SUITED[topic]
    assert topic in [rule.topic for rule in alternatives(suited)]
    assert other is None or topic not in [rule.topic for rule in alternatives(other)]


def test_facts_are_counts_of_rows() -> None:
    rng = np.random.default_rng(0)
    data = {m.name: np.zeros((40, *m.shape), np.float32) for m in IMAGES}
    mask = rng.random((40, 2)) < 0.7
    mask[~mask.any(1), 0] = True
    labels = rng.integers(-1, 3, 40)
    train = Dataset(IMAGES, data, mask=mask, labels=labels, label_names=("x", "y", "z"))
    test = train.select(np.arange(20))
    complete, labelled = mask.all(1), labels >= 0
    counted = [complete.sum(), labelled.sum(), (complete & labelled).sum(), 3, 20, (mask[:20].sum(0) // 2).min()]
    assert Facts.of({"train": train, "test": test}) == Facts(IMAGES, 40, *map(int, counted))


@pytest.mark.parametrize(
    "rule", [rule for rule in (*RULES, *ALTERNATIVES) if rule.measured], ids=lambda rule: f"{rule.topic}: {rule.choice}"
)
def test_numbers_are_those_of_the_page(rule: Rule) -> None:
    """What is told as measured has to follow the page of the measurement: correct the rule if this fails."""
    page = (REPOSITORY / rule.page).read_text()
    numbers = re.findall(r"−?\d*[.,]?\d+", rule.measured)
    assert numbers
    missing = [n for n in numbers if not re.search(rf"(?<![\d.,]){re.escape(n)}(?![\d]|[.,]\d)", page)]
    assert not missing, f"{rule.page} does not have {missing}: {rule.measured}"


def test_what_was_not_measured_has_no_page() -> None:
    assert all(bool(rule.measured) == bool(rule.page) for rule in (*RULES, *ALTERNATIVES))


def test_the_page_has_the_rules_and_what_they_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python docs/choose.py` writes the tables again."""
    monkeypatch.syspath_prepend(REPOSITORY / "docs")
    from choose import PAGE, page

    assert PAGE.read_text() == page(PAGE.read_text())
