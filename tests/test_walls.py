"""Three rooms, one direction: what each package may import."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"stage1_vae", "stage2_latent", "pipelines"}
FRAMEWORKS = {"dvc", "mlflow", "typer", "pydantic"}


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def test_stage_1_imports_nothing_of_ours() -> None:
    for path in files("stage1_vae"):
        assert not tops(path) & (OURS - {"stage1_vae"}), path


def test_stage_2_imports_only_the_distributions_of_stage_1() -> None:
    for path in files("stage2_latent"):
        ours = {name for name in imports(path) if name.split(".")[0] in OURS - {"stage2_latent"}}
        assert all(name.startswith("postprior.stage1_vae.distributions.") for name in ours), path


@pytest.mark.parametrize("package", ["stage1_vae", "stage2_latent"])
def test_the_stages_know_no_framework_and_no_file(package: str) -> None:
    for path in files(package):
        assert not tops(path) & (FRAMEWORKS | {"pathlib", "os", "shutil", "tempfile", "safetensors"}), path


@pytest.mark.parametrize(
    ("library", "places"), [("normflows", {"transport.py", "flows.py"}), ("accelerate", {"training.py"})]
)
def test_a_library_is_touched_in_one_file(library: str, places: set[str]) -> None:
    for package in OURS:
        assert {path.name for path in files(package) if library in tops(path)} <= places


def test_nothing_is_ever_unpickled() -> None:
    for package in OURS:
        for path in files(package):
            assert not tops(path) & {"pickle", "joblib", "dill", "shelve", "cloudpickle"}, path
            text = path.read_text()
            for unsafe in ("torch.load(", "allow_pickle=True", "yaml.load(", "yaml.unsafe_load("):
                assert unsafe not in text, f"{path}: {unsafe}"


def test_texts_reach_the_terminal_through_one_door() -> None:
    """Names from files of strangers are shown there, and steer nothing; signals.py has words of its own alone."""
    for path in files("pipelines"):
        if path.name not in ("texts.py", "signals.py"):
            called = {
                ast.unparse(node.func)
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call)
            }
            printing = {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"}
            assert not called & printing, path
