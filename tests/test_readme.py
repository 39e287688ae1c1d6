"""The README and the pages: the quickstart runs, commands and files exist, numbers are those of the result files."""

import ast
import csv
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from statistics import geometric_mean

import numpy as np
import pytest
import yaml
from PIL import Image
from support.project import REPOSITORY
from typer.main import get_group

from postprior.pipelines.api.generator import Generator
from postprior.pipelines.api.synthetic import SyntheticDataset
from postprior.pipelines.commands.app import app
from postprior.pipelines.settings.params import Params
from postprior.pipelines.settings.round_trip import template
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES

PAGES = {
    path: path.read_text()
    for path in (
        *(REPOSITORY / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
        *sorted(path for path in (REPOSITORY / "docs").rglob("*.md") if "_build" not in path.parts),
    )
}
README, MAKEFILE = PAGES[REPOSITORY / "README.md"], (REPOSITORY / "Makefile").read_text()
RESULTS = {  # columns of comparison.csv, with the decimals in the README
    "joint_coherence": 3,
    "frechet_distance": 1,
    "gap_closed_joint_coherence": 2,
    "coverage": 2,
    "utility_ratio": 3,
    "membership_auc": 2,
}
SPEEDS = ("ours_samples_per_s", "multivae_samples_per_s")


def blocks(language: str, text: str) -> list[str]:
    """The blocks of code of a page."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert README.count("\n") <= 170
    for page, text in PAGES.items():
        prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", prose):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_quickstart_runs(trained: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [block for text in PAGES.values() for block in blocks("python", text)]
    (code,) = [block for block in found if "Generator.load(" in block and "MODELS" in block]
    root = shutil.copytree(trained[0], tmp_path / "project")
    monkeypatch.chdir(root)
    exec(compile(code, "guide", "exec"), {})
    assert (root / "threes-and-eights/m4.npy").exists()


def test_the_ten_lines_call_what_is_there() -> None:
    (code,) = blocks("python", README)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    called = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    methods = {function.attr for function in called if isinstance(function, ast.Attribute)} - {"read_csv"}
    assert {"sample", "to_pandas", "impute", "detect", "report", "save"} == methods
    assert all(hasattr(Generator, name) or hasattr(SyntheticDataset, name) for name in methods)


def test_the_commands_and_their_options_are_there() -> None:
    """In all pages; `make` with a target that is there."""
    commands, targets = get_group(app).commands, set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    told = set()
    for page, text in PAGES.items():
        code = re.sub(r"\s#.*", "", "\n".join(blocks("sh", text)).replace("\\\n", " "))
        pieces = [*re.split(r"\n|&&|;", code), *re.findall(r"`([^`\n]+)`", text)]
        for name, rest in re.findall(
            r"^(?:\S* ?-m )?postprior ([a-z][\w-]*)(.*)", "\n".join(map(str.strip, pieces)), re.M
        ):
            assert name in commands, f"{page}: postprior {name}"
            known = {option for parameter in commands[name].params for option in parameter.opts} | {"--help"}
            known |= {option for parameter in commands[name].params for option in parameter.secondary_opts}
            assert set(re.findall(r"(?<=\s)--[a-z][\w-]*", rest)) <= known, f"{page}: postprior {name}{rest}"
            told.add(name)
        assert set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.MULTILINE)) <= targets, page
    assert told == set(commands)


def test_the_rooms_are_there() -> None:
    """Every folder of pipelines/ has a row in the table, and the paths that pages mention exist."""
    told = set(re.findall(r"^\| `([\w/]+)/` \|", PAGES[REPOSITORY / "docs/reference/code.md"], re.MULTILINE))
    rooms = {f"pipelines/{path.parent.name}" for path in (REPOSITORY / "pipelines").glob("*/__init__.py")}
    assert told == rooms | {"postprior", "pipelines", "stage1_vae", "stage2_latent"}
    for page, text in PAGES.items():
        for place in re.findall(r"`((?:postprior|pipelines|stage1_vae|stage2_latent|tests)/[\w/.]*)`", text):
            assert (REPOSITORY / place).exists(), f"{page}: {place}"


def test_what_must_be_cited_and_noticed_is_that_of_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    first = re.search(r"^## \[(\S+)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] in (project["version"], "Unreleased")
    notice = (REPOSITORY / "NOTICE").read_text()
    contained = re.findall(r"^(Vega\S* [\d.]+),", template("plots.html")[:2000], re.MULTILINE)
    assert len(contained) == 3
    assert all(library in notice for library in contained)


def test_every_model_and_density_is_described() -> None:
    assert f"[{len(MODELS)} autoencoders]" in README
    assert f"[{len(DENSITIES)} densities]" in README
    page = PAGES[REPOSITORY / "docs/models.md"]
    for name in MODELS:
        assert f"| [`{name}`](#{name}) |" in page
        assert f"\n## {name}\n" in page


def test_the_table_of_capabilities_is_that_of_the_densities() -> None:
    page = PAGES[REPOSITORY / "docs/densities.md"]
    for name in DENSITIES:
        density = DENSITIES[name]()
        score = "exact" if density.exact_log_prob else "bound" if density.bound else "none"
        told = [density.labelled, density.conditional, density.marginal, density.incomplete]
        cells = ["yes" if each else "no" for each in (*told, density.stores_training_codes)]
        assert f"| `{name}` | {score} | {' | '.join(cells)} |" in page
        assert f"\n## `{name}`\n" in page


def committed(path: Path) -> str:
    """The content of a file in the last commit; that of the file itself if no commit has it, as in a source archive."""
    shown = ["git", "-C", str(path.parent), "show", f"HEAD:./{path.name}"]
    if shutil.which("git") and not (answer := subprocess.run(shown, capture_output=True, check=False)).returncode:
        return answer.stdout.decode()
    return path.read_text()


def table_of(comparison: str) -> dict[str, list[str]]:
    """The cells of the table in the README by row, from the content of comparison.csv."""
    lines = {}
    for row in csv.DictReader(comparison.splitlines()):
        found = {name: row[name] and f"{float(row[name]):.{places}f}" for name, places in RESULTS.items()}
        if row["row"] in ("real", "reconstruction", "normal"):
            found["gap_closed_joint_coherence"] = ""  # the gap is between these rows
        lines[row["row"]] = list(found.values())
    return lines


def check_results(readme: str, comparison: Path) -> None:
    """Assert that the README has the results of the last commit, which a run may have replaced in the working tree,
    or those in the working tree, before both are committed.
    """
    table = readme.split("<!-- results -->")[1].split("<!-- /results -->")[0]
    lines = re.findall(r"^\| `(\w+)` \|(.*)\|$", table, re.MULTILINE)
    written = {name: [cell.strip() for cell in cells.split("|")][: len(RESULTS)] for name, cells in lines}
    here = table_of(comparison.read_text())
    assert written == (here if written == here else table_of(committed(comparison)))


def test_the_picture_of_samples_can_be_drawn_from_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make screenshot` draws it: three sheets of as many rows, which differ."""
    monkeypatch.syspath_prepend(REPOSITORY / "docs")
    from samples import DOCS, HEAD, picture

    drawn = picture()
    with Image.open(DOCS / "samples.png") as stored:
        assert stored.size == drawn.size
    real, drawn_rows, prior = np.array_split(np.asarray(drawn, float)[HEAD:], 3, axis=1)
    darkest = [sheet.min() for sheet in (real, drawn_rows, prior)]
    assert max(darkest) < 64  # digits and backgrounds, not white paper
    assert np.abs(real - prior[:, : real.shape[1]]).mean() > 10


def test_the_table_of_results_is_that_of_the_files() -> None:
    check_results(README, REPOSITORY / "results/comparison.csv")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_run_of_the_demo_does_not_belie_the_readme(tmp_path: Path) -> None:
    path = tmp_path / "results/comparison.csv"
    path.parent.mkdir()

    def results(coherence: str) -> str:
        return "\n".join([",".join(["row", *RESULTS]), f"gmm,{coherence},66.7486,0.9726,0.825,0.9988,0.5593"])

    def git(*command: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *command], check=True, capture_output=True)

    def agrees(coherence: str) -> bool:
        """Whether the README passes with these results in the folder."""
        path.write_text(results(coherence))
        readme = "<!-- results -->\n| `gmm` | 0.836 | 66.7 | 0.97 | 0.82 | 0.999 | 0.56 | mixtures |\n<!-- /results -->"
        try:
            check_results(readme, path)
        except AssertionError:
            return False
        return True

    assert agrees("0.8361")
    assert not agrees("0.8372")  # without git, there are no committed results
    git("init")
    assert agrees("0.8361")
    git("add", ".")
    git("commit", "-m", "results that the README has")
    assert agrees("0.8361")
    assert agrees("0.8372")  # results of another processor in the working tree
    git("commit", "-a", "-m", "other results, the same README")
    assert not agrees("0.8372")
    assert not agrees("0.8383")
    assert agrees("0.8361")  # results that will be committed with this README


def test_the_table_of_speeds_is_that_of_the_file() -> None:
    """Models that have not been timed against the other library have no row."""
    with open(REPOSITORY / "benchmarks/multivae.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} <= set(MODELS)
    page = PAGES[REPOSITORY / "docs/explanation/speed.md"]
    table = page.split("<!-- speed -->")[1].split("<!-- /speed -->")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "`" in line]
    expected = [
        [
            f"`{row['model']}`",
            row["variant"],
            *(f"{float(row[name]):.0f}" for name in SPEEDS),
            row["ratio"],
        ]
        for row in rows
    ]
    assert lines == expected
    by_model = {row["model"]: [float(r["ratio"]) for r in rows if r["model"] == row["model"]] for row in rows}
    mean = geometric_mean(geometric_mean(ratios) for ratios in by_model.values())
    assert f"geometric mean over the models is {mean:.2f}" in " ".join(page.split())
