"""The command `compare` over some of the densities that have been evaluated."""

import csv
import shutil
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import pytest
import yaml
from conftest import write_params
from report_project import make_project

from pipelines.compare import compare
from pipelines.config import load_params
from pipelines.errors import UserError
from pipelines.report.plots import comparison


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with results of `gmm`, `flow` and `vamp`, whose comparison draws no more than the two first figures."""
    monkeypatch.setattr("pipelines.compare.track", lambda *_: nullcontext())
    monkeypatch.setattr("pipelines.compare.comparison", lambda *given: islice(comparison(*given), 2))
    monkeypatch.setattr("pipelines.compare.foundations", lambda _: ())
    return make_project(tmp_path)


def rows(root: Path) -> list[str]:
    with open(root / "results/comparison.csv", encoding="utf-8") as file:
        return [line["row"] for line in csv.DictReader(file)]


def test_the_densities_named_are_compared_and_no_others(project: Path) -> None:
    compare(load_params(project / "params.yaml"), project, ["flow", "gmm"])
    assert rows(project) == ["real", "reconstruction", "gmm", "flow", "normal"]
    page = (project / "results/report.html").read_text(encoding="utf-8")
    assert "density.flow.blocks" in page
    assert "density.vamp.steps" not in page


def test_many_entries_stand_side_by_side(project: Path) -> None:
    tree = yaml.safe_load((project / "params.yaml").read_text())
    names = [f"gmm_{number}" for number in range(12)]
    for name in names:
        tree["density"][name] = {"kind": "gmm", "labels": False}
        shutil.copy(project / "results/metrics/gmm.json", project / f"results/metrics/{name}.json")
        for kind in ("densities", "synthetic"):
            (project / "artefacts" / kind / name).symlink_to(project / "artefacts" / kind / "gmm")
    compare(write_params(project, tree), project, names)
    assert rows(project) == ["real", "reconstruction", *sorted(names), "normal"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["gmmm"], r"NAME: found 'gmmm', which has no entry under `density` \(did you mean gmm\?\)"),
        (["normal"], "NAME: found 'normal', which is always scored"),
        (["gmm", "gmm"], "NAME: found a name twice in gmm, gmm; expected each once"),
    ],
)
def test_a_mistake_writes_nothing(project: Path, names: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        compare(load_params(project / "params.yaml"), project, names)
    assert not (project / "results/comparison.csv").exists()


def test_what_was_not_evaluated_names_the_command(project: Path) -> None:
    (project / "results/metrics/flow.json").unlink()
    with pytest.raises(UserError, match="run `postprior evaluate flow` first"):
        compare(load_params(project / "params.yaml"), project, ["flow"])
