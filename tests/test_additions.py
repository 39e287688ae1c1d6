"""Adding a density, a model, a format, a metric or a stage to a copy of the sources takes few files, and it runs.

The files that are added are in fixtures/additions, under the paths that they get in the copy.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml
from support.copied import REPOSITORY, copy, python, run, touched
from support.project import small


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A copy of the sources."""
    return copy(tmp_path / "ours")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder of a user, outside the sources."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def add(ours: Path, name: str, lines: dict[str, list[tuple[str, str]]]) -> int:
    """Add a file to the copy and insert lines above unique lines of other files; return the number of changed files."""
    shutil.copy(REPOSITORY / "tests/fixtures/additions" / name, ours / name)
    for place, additions in lines.items():
        text = (ours / place).read_text()
        for line, above in additions:
            assert text.count(above) == 1, (place, above)
            text = text.replace(above, f"{line}\n{above}")
        (ours / place).write_text(text)
    return len(touched(ours))


def test_a_density_is_a_file_and_a_line(ours: Path, work: Path) -> None:
    entry = ('        "logistic": "logistic:Logistic",', '        "auto": "auto:Auto",')
    assert add(ours, "stage2_latent/logistic.py", {"stage2_latent/__init__.py": [entry]}) == 2
    script = """
import numpy as np, torch
from postprior import DENSITIES, load_density
from postprior.pipelines.commands.app import app
rng = np.random.default_rng(0)
np.savez("codes.npz", loc=rng.logistic([0, 5], [1, 2], (2000, 2)), scale=np.full((2000, 2), 1e-3))
app(["fit", "logistic", "--codes", "codes.npz", "--out", "mine"], standalone_mode=False)
app(["draw", "mine", "--samples", "2000", "--out", "new.npz"], standalone_mode=False)
drawn = np.load("new.npz")["loc"]
assert abs(drawn.mean(0) - [0, 5]).max() < 0.3 and abs(drawn.std(0) / [1.81, 3.63] - 1).max() < 0.1, drawn
z = torch.cartesian_prod(torch.linspace(-30, 30, 400), torch.linspace(-50, 60, 400))
mass = load_density("mine").log_prob(z).exp().sum() * (60 / 399) * (110 / 399)
assert "logistic" in DENSITIES and abs(mass - 1) < 1e-3, mass
"""
    python("-c", script, folder=work, path=ours)


def test_a_model_is_a_file_and_its_place_in_the_table(ours: Path, work: Path) -> None:
    imports = "from postprior.stage1_vae.models."
    lines = [
        (f"{imports}plain import Plain", f"{imports}telbo import"),
        ('    "plain": Plain,', '    "telbo":'),
    ]
    assert add(ours, "stage1_vae/models/plain.py", {"stage1_vae/models/__init__.py": lines}) == 2
    script = """
import numpy as np
from postprior import MODELS, MultimodalEncoder
rows = np.random.default_rng(0).normal(size=(60, 5))
rows[::3, 3:] = np.nan
options = {"modalities": {"a": [0, 1, 2], "b": [3, 4]}, "options": {"beta": 0.5}, "latent": 2, "epochs": 3}
encoder = MultimodalEncoder("plain", random_state=0, **options)
assert "plain" in MODELS and encoder.fit_transform(rows).shape == (60, 2)
assert encoder.loss_curve_[-1] < encoder.loss_curve_[0]
"""
    python("-c", script, folder=work, path=ours)


def test_a_format_is_a_file_and_its_place_in_the_table(ours: Path, work: Path) -> None:
    imports = "from postprior.pipelines.data.formats"
    lines = [
        (f"{imports} import plain_text", f"{imports}.contents import"),
        ('    "plain text": plain_text,', '    "npz": npz,'),
    ]
    place = "pipelines/data/formats/__init__.py"
    assert add(ours, "pipelines/data/formats/plain_text.py", {place: lines}) == 2
    script = """
from pathlib import Path
import numpy as np
from postprior import Dataset
from postprior.pipelines.commands.app import app
rows = np.random.default_rng(0).normal(size=(50, 3)).round(2)
np.savetxt("numbers.txt", rows)
app(["import", "numbers.txt", "data"], standalone_mode=False)
train = Dataset.load(Path("data/train"))
assert train.data["numbers"].shape == (35, 3) and train.modalities[0].kind == "vector"
app(["export", "data/train", "back"], standalone_mode=False)
assert set(map(tuple, np.loadtxt("back/numbers.txt"))) < set(map(tuple, rows))
"""
    python("-c", script, folder=work, path=ours)


def test_a_metric_is_a_file_and_an_entry(ours: Path, work: Path) -> None:
    """Its score is on the leaderboard and on the page."""
    entry = '    Metric("fidelity/spread", "spread_kept", "how far samples vary as real rows do"),'
    place = "pipelines/metrics/registry.py"
    assert add(ours, "pipelines/metrics/fidelity/spread.py", {place: [(entry, ')\n"""All metrics;')]}) == 2
    script = """
from pathlib import Path
from support import report_project
from test_scores import CLASSES, NAMES, ROWS, outputs
from postprior.pipelines.metrics.scores import ReferenceSet, row, score
from postprior.pipelines.metrics.statistics.intervals import half_samples
from postprior.pipelines.report import writing
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.storage import read_json, write_json
import numpy as np

weights = half_samples(np.arange(ROWS), 20, np.random.default_rng(0))
reference = ReferenceSet.fit(outputs(0), weights, 3, NAMES, CLASSES)
made = [score(outputs(seed), weights, reference) for seed in (1, 2, 3)]
root = report_project.make_project(Path("project"))
path = root / "results/metrics/gmm.json"
write_json(path, read_json(path) | {"spread_kept": row(*made)["spread_kept"]})
writing.figures = lambda *_: {}
writing.write_report(load_params(root / "params.yaml"), root)
"""
    tests = REPOSITORY / "tests"
    python("-c", script, folder=work, path=os.pathsep.join(map(str, (ours, tests, tests / "pipelines/metrics"))))
    header = (work / "project/results/comparison.csv").read_text().splitlines()[0]
    assert "spread_kept" in header.split(",")
    page = (work / "project/results/report.html").read_text()
    assert "<dt>Spread kept</dt><dd>how far samples vary as real rows do</dd>" in page


def test_a_stage_is_a_file_a_command_an_entry_in_dvc_and_what_is_logged(ours: Path, work: Path, warm: Path) -> None:
    command = '''@app.command()
def count(params: options.ParamsFile = options.DEFAULT) -> None:
    """Count the rows."""
    settings, root = load(params)
    from postprior.pipelines.stages.count import count

    count(settings, root)


@app.command()'''
    entry = """  count:
    cmd: postprior count
    deps: [pipelines/stages/count.py, artefacts/data]
    outs:
      - results/metrics/count.json: {cache: false}
"""
    lines = {
        "pipelines/commands/stages.py": [(command, "def train_evaluators(")],
        "dvc.yaml": [(entry, "  train-evaluators:\n")],
        "pipelines/tracking/outputs.py": [
            ('    "count": StageOutputs(files=(FILES.scores("metrics", "count"),)),', '    "train-evaluators": ')
        ],
    }
    assert add(ours, "pipelines/stages/count.py", lines) == 4
    (work / "params.yaml").write_text(yaml.safe_dump(small()))
    for name in ("prepare", "count"):
        assert run(str(warm / "postprior"), name, folder=work, path=ours).returncode == 0
    assert '"train": 300' in (work / "results/metrics/count.json").read_text()
    assert run("dvc", "init", "--no-scm", folder=ours).returncode == 0
    listed = run("dvc", "stage", "list", "--name-only", folder=ours)
    assert "count" in listed.stdout.splitlines(), listed.stderr
