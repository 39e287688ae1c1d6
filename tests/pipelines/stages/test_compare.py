"""The command `compare` with densities of this project and results of other folders, revisions and seeds."""

import csv
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import report_results as made_up
from support.project import REPOSITORY, write_params
from support.report_project import make_project
from typer.testing import CliRunner

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.commands.app import app
from postprior.pipelines.errors import UserError
from postprior.pipelines.report.findings import findings
from postprior.pipelines.report.gallery import Pictures, pictures
from postprior.pipelines.report.page import settings
from postprior.pipelines.report.results import IMPUTERS, Results, read_results
from postprior.pipelines.report.rows import mean
from postprior.pipelines.report.sources import experiments
from postprior.pipelines.report.summary import shown
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.stages.compare import compare
from postprior.pipelines.storage import read_json, write_json

DVC = Path(sys.executable).parent / "dvc"
QUIET = os.environ | {"DVC_NO_ANALYTICS": "1"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("compare") / "project")


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with results of `gmm`, `flow` and `vamp`; its comparison has no figures and no samples."""
    monkeypatch.setattr("postprior.pipelines.stages.compare.track", lambda *_: nullcontext())
    monkeypatch.setattr("postprior.pipelines.report.writing.figures", lambda *_: {})
    monkeypatch.setattr("postprior.pipelines.report.writing.pictures", lambda *_: Pictures({}, {}, {}))
    return Path(shutil.copytree(made, tmp_path / "project"))


def lines(root: Path) -> dict[str, dict[str, str]]:
    with open(root / "results/comparison.csv", encoding="utf-8") as file:
        return {line["row"]: line for line in csv.DictReader(file)}


def rows(root: Path) -> list[str]:
    return list(lines(root))


def other(project: Path, name: str, seed: int, **rows: dict[str, Any]) -> Path:
    """Another project with another seed, and other scores in some rows."""
    root = Path(shutil.copytree(project, project.parent / name))
    tree = yaml.safe_load((root / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(tree | {"seed": seed}))
    for row, scores in rows.items():
        path = root / f"results/metrics/{row}.json"
        write_json(path, read_json(path) | scores)
    return root


def read(root: Path, **others: Path | str) -> Results:
    return read_results(load_params(root / "params.yaml"), root, {label: str(where) for label, where in others.items()})


def test_the_densities_named_are_compared_and_no_others(project: Path) -> None:
    compare(load_params(project / "params.yaml"), project, ["flow", "gmm"])
    assert rows(project) == ["real", "reconstruction", "gmm", "flow", "normal"]
    page = (project / "results/report.html").read_text(encoding="utf-8")
    assert "density.flow.blocks" in page
    assert "density.vamp.steps" not in page
    assert {path.name for path in (project / "results/datasheets").iterdir()} == {"flow.md", "gmm.md"}


def test_a_file_of_the_user_in_the_results_is_kept(project: Path) -> None:
    notes = [project / "results" / part / "notes.md" for part in ("plots", "datasheets")]
    for note in notes:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text("mine")
    compare(load_params(project / "params.yaml"), project, ["gmm"])
    assert [note.read_text() for note in notes] == ["mine", "mine"]
    assert (project / "results/datasheets/gmm.md").exists()


def test_many_entries_are_compared(project: Path) -> None:
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
        (["gmm", "gmm"], "NAME: found a name twice in gmm, gmm, expected each name once"),
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


def test_the_table_has_utility_and_privacy(project: Path) -> None:
    compare(load_params(project / "params.yaml"), project)
    found = lines(project)
    for name, (accuracy, auc, copies) in made_up.USES.items():
        assert float(found[name]["utility_ratio"]) == pytest.approx(accuracy / made_up.REAL)
        assert [float(found[name][key]) for key in ("membership_auc", "near_copies")] == [auc, copies]
    assert found["normal"]["utility_ratio"] == found["real"]["membership_auc"] == ""
    with open(project / "results/plots/paired.csv", encoding="utf-8") as file:
        pairs = [(line["metric"], line["first"], line["second"]) for line in csv.DictReader(file)]
    assert len(pairs) == len(set(pairs)) == 2 * 3


def test_stages_that_have_not_run_leave_their_part_out(project: Path) -> None:
    for part in ("utility", "privacy", "augmentation", "imputation"):
        shutil.rmtree(project / "results" / part)
        shutil.rmtree(project / "artefacts" / part, ignore_errors=True)
    shutil.rmtree(project / "artefacts/evaluation")
    (project / "results/metrics/latent.json").unlink()
    params = load_params(project / "params.yaml")
    compare(params, project)
    shown = pictures(params, Project(project))
    assert read(project).imputers == ()
    assert (set(shown.samples), shown.conditional, shown.neighbours) == (set(made_up.ROWS), {}, {})
    assert not {"utility_ratio", "membership_auc", "near_copies"} & set(lines(project)["gmm"])
    assert not (project / "results/plots/paired.csv").exists()
    assert "has not run" in (project / "results/datasheets/gmm.md").read_text(encoding="utf-8")


def test_the_augmentation_has_the_sizes_of_the_settings(project: Path) -> None:
    results = read(project)
    (stage,) = results.augmented.values()
    assert stage["seeds"] == [0, 1, 2]
    expected = stage["accuracy"]["synthetic_5x"]["joint"]
    assert results.augmentation["100"]["synthetic_5x"]["accuracy"]["joint"]["value"] == pytest.approx(expected)
    tree = yaml.safe_load((project / "params.yaml").read_text())
    for sizes in ([50], []):
        tree["augment"] |= {"sizes": sizes}
        write_params(project, tree)
        assert read(project).augmentation == read(project).augmented == {}


def test_imputers_are_read_with_their_scores_by_task(project: Path) -> None:
    write_json(project / "results/imputation/baselines.json", made_up.baselines(("modalities", "cells")))
    found = {row.name: row.scores for row in read(project).imputers}
    assert list(found) == list(IMPUTERS.values())
    assert found["Chained equations"] == {"imputation": dict.fromkeys(("modalities", "cells"), made_up.imputed("mice"))}


def test_without_labels_rows_are_ordered_by_distance(project: Path, tmp_path: Path) -> None:
    root = make_project(tmp_path / "unlabelled", labels=False)
    compare(load_params(root / "params.yaml"), root)
    assert rows(root) == ["real", "reconstruction", "gmm", "vamp", "flow", "normal"]
    header = set(lines(root)["gmm"])
    assert "gap_closed_frechet_distance" in header
    assert not [name for name in header if "label" in name or "joint_coherence" in name]


def test_results_of_another_folder_are_added(project: Path) -> None:
    mopoe = other(project, "mopoe", 0, gmm={"joint_coherence": made_up.estimate(0.9)})
    before = {path: path.read_bytes() for path in mopoe.rglob("*") if path.is_file()}
    compare(load_params(project / "params.yaml"), project, others={"mopoe": str(mopoe)})
    assert rows(project) == [
        *("real", "reconstruction", "mopoe: reconstruction", "mopoe: gmm", "mopoe: vamp", "vamp"),
        *("gmm", "flow", "mopoe: flow", "normal", "mopoe: normal"),
    ]
    assert {path: path.read_bytes() for path in mopoe.rglob("*") if path.is_file()} == before
    assert (
        "Of 6 fitted densities, mopoe: gmm draws the most coherent samples"
        in (project / "results/report.html").read_text()
    )


def test_named_densities_select_those_of_other_sources_too(project: Path) -> None:
    mopoe = str(other(project, "mopoe", 0))
    compare(load_params(project / "params.yaml"), project, ["flow"], {"mopoe": mopoe})
    named = [name for name in rows(project) if "flow" in name or "gmm" in name or "vamp" in name]
    assert named == ["flow", "mopoe: flow"]
    tree = yaml.safe_load((project / "params.yaml").read_text())
    tree["density"]["mine"] = tree["density"]["gmm"]
    for kind in ("densities", "synthetic"):
        (project / "artefacts" / kind / "mine").symlink_to(project / "artefacts" / kind / "gmm")
    shutil.copy(project / "results/metrics/gmm.json", project / "results/metrics/mine.json")
    compare(write_params(project, tree), project, ["mine"], {"mopoe": mopoe})
    assert [name for name in rows(project) if name.startswith("mopoe: ") and name != "mopoe: normal"] == [
        *("mopoe: reconstruction", "mopoe: vamp", "mopoe: gmm", "mopoe: flow"),
    ]


def test_a_row_of_another_source_is_compared_with_its_own_prior(project: Path) -> None:
    mopoe = other(
        project,
        "mopoe",
        0,
        gmm={"joint_coherence": made_up.estimate(0.9)},
        normal={"joint_coherence": made_up.estimate(0.2)},
    )
    results = read(project, mopoe=mopoe)
    text = " ".join(finding.text for finding in findings(results, results.densities[0]))
    assert "In 20.0\u202f% of the samples from the autoencoder's own prior (Normal prior in the report)" in text


def test_other_scores_of_real_rows_are_reported(project: Path) -> None:
    same = read(project, copy=other(project, "copy", 0))
    assert same.cautions == ()
    assert "copy: real" not in [row.name for row in same.rows]
    judged = read(project, copy=other(project, "judged", 5, real={"frechet_distance": made_up.estimate(6.0)}))
    assert len(judged.cautions) == 1
    assert "Real rows have other scores in copy than in this project (different: seed)" in judged.cautions[0]
    assert judged.row("copy: real").title == "copy: Real, held out"


def test_seeds_are_averaged_with_an_interval_over_them(project: Path) -> None:
    scores = {seed: {"joint_coherence": made_up.estimate(value)} for seed, value in ((1, 0.78), (2, 0.85))}
    others = {f"seed{seed}": other(project, f"seed{seed}", seed, gmm=scores[seed]) for seed in scores}
    results = read(project, **others)
    row = results.row("gmm, mean of 3 seeds")
    estimate = row.estimate("joint_coherence")
    assert estimate is not None
    # mean of 0.80, 0.78 and 0.85, s = 0.036056, t(0.975, 2) = 4.302653
    assert estimate.value == pytest.approx(0.81)
    assert estimate.high == pytest.approx(0.81 + 4.302653 * 0.0360555 / 3**0.5, abs=1e-6)
    assert estimate.high - estimate.value == pytest.approx(estimate.value - (estimate.low or 0))
    assert row.kind == "seeds"
    assert row not in results.densities
    assert results.rows.index(row) < results.rows.index(results.row("gmm"))  # 0.81 is higher than its 0.80
    text = " ".join(finding.text for finding in findings(results, results.densities[0])).replace("\u202f", " ")
    assert "gmm, mean of 3 seeds: a joint coherence of 81 % (95 % CI 72 to 90)" in text


def test_other_settings_are_not_another_seed(project: Path) -> None:
    root = other(project, "wider", 1)
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["vae"]["width"] += 1
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    assert not [row for row in read(project, wider=root).rows if row.kind == "seeds"]
    tree["vae"]["width"] -= 1
    tree["density"]["gmm"]["passes"] += 1  # of one density; the other densities stay the same
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    means = {row.name for row in read(project, wider=root).rows if row.kind == "seeds"}
    assert means == {"flow, mean of 2 seeds", "vamp, mean of 2 seeds"}
    again = read(project, same=other(project, "same", 0))
    assert not [row for row in again.rows if row.kind == "seeds"]


def test_the_interval_of_a_share_ends_at_its_bounds() -> None:
    assert mean([0.95, 1.0], share=True)["high"] == 1.0
    assert mean([0.95, 1.0])["high"] > 1.0
    assert mean([0.5, 0.5, 0.5]) == {"value": 0.5, "low": 0.5, "high": 0.5}


@pytest.fixture
def repository(project: Path) -> Path:
    """The project in a subfolder of a repository; in its last commit, gmm has worse scores."""
    home = project.parent
    git(home, "init", "-q")
    (home / ".gitignore").write_text("artefacts/\n")
    git(home, "add", "-A")
    git(home, "commit", "-q", "-m", "first")
    git(home, "tag", "good")
    path = project / "results/metrics/gmm.json"
    write_json(path, read_json(path) | {"joint_coherence": made_up.estimate(0.1)})
    git(home, "commit", "-q", "-a", "-m", "second")
    return project


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    answer = subprocess.run(
        ["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    return answer.stdout.strip()


def test_results_of_a_revision_are_added(repository: Path) -> None:
    results = read(repository, before="good")
    values = {row.name: row.value("joint_coherence") for row in results.densities}
    assert values["before: gmm"] == made_up.ROWS["gmm"][0]
    assert values["gmm"] == 0.1
    assert results.row("before: gmm").value("utility", "ratio_to_real", "joint") > 0.9
    assert results.row("before: gmm").value("imputation", "modalities", "energy_score") == made_up.IMPUTED["gmm"][0]
    assert git(repository, "status", "--porcelain") == ""


def test_an_experiment_of_dvc_is_known_by_its_name(repository: Path) -> None:
    base, commit = git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "good")
    git(repository, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/eager-newt", commit)
    assert read(repository, newt="eager-newt").row("newt: gmm").value("joint_coherence") == 0.8
    git(repository, "update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/eager-newt", base)
    with pytest.raises(UserError, match="found 2 experiments named 'eager-newt', expected one"):
        read(repository, newt="eager-newt")


def test_experiments_of_the_commit_are_named_after_what_they_change(repository: Path) -> None:
    base, params = git(repository, "rev-parse", "HEAD"), repository / "params.yaml"

    def experiment(name: str, coherence: float | None = None, **changes: Any) -> None:
        """Make an experiment as DVC does, with other settings of the autoencoder, or other results."""
        if coherence is not None:
            path = repository / "results/metrics/gmm.json"
            write_json(path, read_json(path) | {"joint_coherence": made_up.estimate(coherence)})
        text = yaml.safe_load(params.read_text())
        text["vae"] |= changes
        params.write_text(yaml.safe_dump(text))
        git(repository, "commit", "-q", "-a", "--allow-empty", "-m", name)
        git(repository, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", "HEAD")
        git(repository, "reset", "-q", "--hard", base)

    experiment("eager-newt", model="mopoe")
    experiment("front-tiff", model="mopoe")
    experiment("hoary-loup", model="jmvae", latent=7)
    experiment("wimpy-ants", coherence=0.3)
    experiment("zonal-same")  # what the commit has
    git(repository, "update-ref", f"refs/exps/{'0' * 2}/{'0' * 38}/other", base)  # of another commit
    found = experiments(repository)
    assert list(found) == ["model=mopoe", "front-tiff", "latent=7, model=jmvae", "wimpy-ants"]
    results = read(repository, **found)
    assert {"gmm", "model=mopoe: gmm", "wimpy-ants: gmm"} <= {row.name for row in results.densities}
    assert not results.cautions


def test_real_rows_are_the_same_whatever_the_autoencoder(project: Path) -> None:
    """Their distance to its prior is not a score of theirs."""
    mine = read_json(project / "results/metrics/real.json") | {"difference_to_normal": {}, "gap_closed": {}}
    model = other(project, "model", 0)
    write_json(model / "results/metrics/real.json", mine | {"gap_closed": {"joint_coherence": made_up.estimate(2.0)}})
    write_json(project / "results/metrics/real.json", mine)
    results = read(project, model=model)
    assert not results.cautions
    assert "model: real" not in [row.name for row in results.rows]


def test_a_comparison_is_a_table_of_headline_metrics() -> None:
    comparison = (
        "row,joint_coherence,frechet_distance,precision\nreal,0.92512,33.888,0.7\nmodel=基因: gmm,,1204.5,0.1\n"
    )
    assert shown(comparison) == [
        "                 joint_coherence  frechet_distance",
        "real             0.9251           33.89",
        "model=基因: gmm                   1204",
    ]


def test_sources_that_hold_nothing_are_told_in_a_sentence(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found no folder, git revision or DVC experiment named 'bad'"):
        read(repository, a="bad")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--with a: no params.yaml found in '.*empty', expected the root"):
        read(repository, a=tmp_path / "empty")
    shutil.rmtree(repository / "results/metrics")
    git(repository, "commit", "-q", "-a", "-m", "third")
    git(repository, "checkout", "-q", "HEAD~", "--", ".")
    with pytest.raises(UserError, match=r"no results found in .*:results/metrics, expected results of gmm, flow"):
        read(repository, a="HEAD")
    other_version = tmp_path / "other"
    other_version.mkdir()
    (other_version / "params.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="no densities found, expected a list of names"):
        read(repository, a=other_version)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [('{"joint_coherence": ', "not a JSON file"), ("[1]", "expected a JSON object, found another value")],
)
def test_a_damaged_file_is_named(project: Path, written: str, sentence: str) -> None:
    broken = other(project, "broken", 0)
    (broken / "results/metrics/flow.json").write_text(written)
    with pytest.raises(UserError, match=rf"broken/results/metrics/flow.json: {sentence}"):
        read(project, a=broken)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--with", "mopoe"], "--with: found 'mopoe', expected LABEL=SOURCE"),
        (["--with", "a=x", "--with", "a=y"], "--with: found 'a' twice, expected each label once"),
        (["--experiments"], "--experiments: found no DVC experiment of the current commit; make some"),
        (["--with", "a=nowhere"], "--with a: found no folder, git revision or DVC experiment"),
    ],
)
def test_the_command_line_names_sources(project: Path, given: list[str], sentence: str) -> None:
    answer = CliRunner().invoke(app, ["compare", "--params", str(project / "params.yaml"), *given])
    assert answer.exit_code == 1
    assert sentence in answer.output
    assert len(answer.output.splitlines()) == 1


def test_settings_read_as_they_are_written(project: Path) -> None:
    told = dict(settings(load_params(project / "params.yaml")))
    assert told["densities"] == "gmm, flow, vamp"
    assert told["density.gmm.components"] == "1, 2, 4"
    assert told["vae.rescaling"] == "null"
    assert told["seed"] == "0"
    assert not [value for value in told.values() if "(" in value or "[" in value]
    json.dumps(told)


def test_dvc_shows_the_numbers_of_the_comparison(project: Path) -> None:
    """The real `dvc` commands show the metrics and plots of dvc.yaml."""
    compare(load_params(project / "params.yaml"), project)
    blocks = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())
    shown = {key: blocks[key] for key in ("metrics", "plots")}
    (project / "dvc.yaml").write_text(yaml.safe_dump(shown))
    git(project, "init", "-q")
    run_dvc(project, "init", "-q")
    files = json.loads(run_dvc(project, "metrics", "show", "--json"))[""]["data"]
    told = files["results/summary.json"]["data"]
    assert told["gmm"]["joint_coherence"] == float(lines(project)["gmm"]["joint_coherence"])
    plots = json.loads(run_dvc(project, "plots", "show", "--json"))
    assert set(plots["data"]) == {name for plot in shown["plots"] for name in plot}
    points = plots["data"]["joint_coherence"][0]["content"]["data"]["values"]
    assert {point["row"]: point["joint_coherence"] for point in points} == {
        name: line["joint_coherence"] for name, line in lines(project).items()
    }


def run_dvc(root: Path, *arguments: str) -> str:
    """Run the command, assert that it reports no error in any file, and return its output."""
    answer = subprocess.run(
        [str(DVC), *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=120, env=QUIET
    )
    assert "failed" not in answer.stderr  # dvc reports this for any score with the name `error`
    assert "could not" not in answer.stderr
    return answer.stdout


def test_a_reason_has_a_column_where_there_is_one(project: Path) -> None:
    compare(load_params(project / "params.yaml"), project)
    images = {"singling_out_why", "attribute_inference_why"}  # have no columns to attack
    assert {name for name in lines(project)["gmm"] if name.endswith("_why")} == images
    path = project / "results/metrics/gmm.json"
    few, unsure = {"value": None, "why": "one row"}, {"value": 0.5, "low": None, "high": None, "why": "few"}
    write_json(path, read_json(path) | {"frechet_distance": few, "precision": unsure})
    compare(load_params(project / "params.yaml"), project)
    own, flow = lines(project)["gmm"], lines(project)["flow"]
    assert [own[f"frechet_distance{of}"] for of in ("", "_low", "_high", "_why")] == ["", "", "", "one row"]
    assert [own[f"precision{of}"] for of in ("", "_low", "_high", "_why")] == ["0.5", "", "", "few"]
    assert flow["frechet_distance_why"] == ""
    assert {name for name in own if name.endswith("_why")} == {"frechet_distance_why", "precision_why"} | images


def test_a_score_that_one_seed_lacks_has_no_mean(project: Path) -> None:
    missing = {"value": None, "why": "one row"}
    root = other(project, "second", 1, gmm={"joint_coherence": missing})
    (row,) = [row for row in read(project, second=root).rows if row.kind == "seeds" and "gmm" in row.name]
    assert row.scores["joint_coherence"] == missing
    assert row.estimate("frechet_distance") is not None
