"""The table of `postprior plan`, and the stages that DVC would run."""

from pathlib import Path

import pytest

from postprior.pipelines.planning.costs import Estimate
from postprior.pipelines.planning.plan import out_of_date, table

PIPELINE = """
stages:
  code: {cmd: echo > code, outs: [code], always_changed: true}
  train: {cmd: echo > model, params: [epochs], outs: [model]}
  fit:
    matrix: {density: [gmm, flow]}
    cmd: echo > ${item.density}
    deps: [model]
    params: ["${item.density}"]
    outs: ["${item.density}"]
  compare: {cmd: echo > page, deps: [gmm, flow], outs: [page]}
"""


def test_the_table_has_the_times_and_what_is_up_to_date() -> None:
    expected = [Estimate("train", 90.0), Estimate("fit@gmm", 30.0)]
    assert table(expected, {"fit@gmm"}) == [
        f"stage {'about':>18}  share",
        "train         1 min 30 s    75%  up to date",
        "fit@gmm             30 s    25%",
        "all stages     2 min 0 s",
        "to run now          30 s",
    ]
    assert table(expected, None)[1:] == [
        "train         1 min 30 s    75%",
        "fit@gmm             30 s    25%",
        "all stages     2 min 0 s",
    ]


def test_the_stages_that_dvc_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed setting concerns its stage and all that depend on it, wherever the command runs."""
    from dvc.repo import Repo

    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    assert out_of_date(tmp_path) is None
    everything = {"code", "train", "fit@gmm", "fit@flow", "compare"}
    settings = tmp_path / "params.yaml"
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    settings.write_text("{epochs: 1, gmm: 1, flow: 1}")
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        assert out_of_date(tmp_path) == everything
        monkeypatch.chdir(tmp_path)
        repo.reproduce()
    monkeypatch.chdir("/")
    assert out_of_date(tmp_path) == {"code"}
    settings.write_text("{epochs: 1, gmm: 1, flow: 2}")
    assert out_of_date(tmp_path) == {"code", "fit@flow", "compare"}
    settings.write_text("{epochs: 2, gmm: 1, flow: 1}")
    assert out_of_date(tmp_path) == everything
