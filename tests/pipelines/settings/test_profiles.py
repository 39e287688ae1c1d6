"""Settings with one value per profile: the loader chooses, and every value is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.project import REPOSITORY

from postprior.pipelines.errors import UserError
from postprior.pipelines.report.sources import Source, settings
from postprior.pipelines.settings.checks import load_params, parse_params

TREE: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text())


def changed(section: str, **values: Any) -> dict[str, Any]:
    return {**TREE, section: TREE[section] | values}


@pytest.mark.parametrize(("profile", "resamples"), [("quick", 30), ("full", 60)])
def test_the_profile_chooses_the_value(tmp_path: Path, profile: str, resamples: int) -> None:
    values = {"quick": 30, "full": 60}
    tree = changed("evaluate", resamples=values) | {"profile": profile}
    params = parse_params(tree, "params.yaml")
    assert params.evaluate.resamples == resamples
    assert params.by_profile["evaluate.resamples"] == values
    assert "by_profile" not in params.model_dump()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    assert settings(Source(tmp_path))["evaluate"]["resamples"] == resamples  # as another project reads it


def test_a_plain_value_counts_in_both_profiles() -> None:
    params = [parse_params(changed("utility", seeds=[4]) | {"profile": name}, "") for name in ("quick", "full")]
    assert [one.utility.seeds for one in params] == [(4,), (4,)]
    assert "utility.seeds" not in params[0].by_profile


def test_settings_without_a_profile_are_those_of_full() -> None:
    """Files of earlier versions have no profile."""
    params = parse_params({key: value for key, value in TREE.items() if key != "profile"}, "")
    assert params.profile == "full"
    assert params.utility.seeds == tuple(TREE["utility"]["seeds"]["full"])


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (
            "evaluate",
            {"resamples": {"quick": 30}},
            "evaluate.resamples: found values for quick, expected one value, or one each",
        ),
        (
            "evaluate",
            {"resamples": {"quick": 30, "full": 60, "fast": 5}},
            "evaluate.resamples: found values for quick, full, fast",
        ),
        (
            "evaluate",
            {"resamples": {"quick": 30, "full": 5}},
            "evaluate.resamples: found 5, expected a whole number of at least 20",
        ),
        (
            "augment",
            {"sizes": {"quick": [], "full": [100]}},
            "augment.sizes: found values for quick, full, expected one value, because DVC",
        ),
        ("train", {"epochs": {"quick": 1, "full": 2}}, "train.epochs: found a group of keys, expected a whole number"),
    ],
)
def test_wrong_values_are_refused_in_either_profile(section: str, values: dict[str, Any], message: str) -> None:
    for profile in ("quick", "full"):
        with pytest.raises(UserError, match=f"^params.yaml: {message}"):
            parse_params(changed(section, **values) | {"profile": profile}, "params.yaml")


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(UserError, match="profile: found the text 'fast', expected quick or full"):
        parse_params(TREE | {"profile": "fast"}, "params.yaml")


def test_the_profiles_of_the_repository_differ_in_scores_only() -> None:
    full, quick = (parse_params(TREE | {"profile": name}, "").model_dump() for name in ("full", "quick"))
    assert {key for key in full if full[key] != quick[key]} == {
        *("profile", "evaluate", "utility", "augment", "privacy", "imputation")
    }
    assert load_params(REPOSITORY / "params.yaml").profile == "quick"
