"""The hash of the code of a stage: modules of postprior that it imports, and user-defined modules."""

import sys
from pathlib import Path

import pytest
import yaml
from support.project import REPOSITORY

from postprior.pipelines.artefacts.code import closure, custom_code, fingerprint
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.stages.code import code

PARAMS = REPOSITORY / "params.yaml"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write an importable user-defined module, one in a package, and a package that ends the program on import."""
    (tmp_path / "mine.py").write_text("class Encoder: ...\n")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/__init__.py").touch()
    (tmp_path / "packed/deep.py").write_text("class Decoder: ...\n")
    (tmp_path / "ending").mkdir()
    (tmp_path / "ending/__init__.py").write_text("import sys\nsys.exit()\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mine", "packed", "packed.deep"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_user_defined_files_are_found_and_others_are_skipped(own: Path) -> None:
    named = ["mine:Encoder,packed.deep:Decoder", "residual", "nowhere.at_all:Encoder", "ending.deep:Encoder"]
    assert custom_code(named) == [own / "mine.py", own / "packed/deep.py"]


def test_a_hash_depends_only_on_the_files(own: Path) -> None:
    files = custom_code(["mine:Encoder"])
    before = fingerprint("stages.train", files)
    assert fingerprint("stages.train", files) == before
    assert fingerprint("stages.train") != before != fingerprint("stages.encode", files)
    (own / "mine.py").write_text("class Encoder: pass\n")
    assert fingerprint("stages.train", files) != before


def test_a_user_defined_network_is_part_of_the_stages_that_run_networks(own: Path) -> None:
    tree = yaml.safe_load(PARAMS.read_text())
    tree["vae"]["networks"] = {"m0": "mine:Encoder,packed.deep:Decoder"}
    (own / "params.yaml").write_text(yaml.safe_dump(tree))
    hashes = []
    for content in ("class Encoder: ...\n", "class Encoder: pass\n"):
        (own / "mine.py").write_text(content)
        code(load_params(own / "params.yaml"), own)
        hashes.append({path.name: path.read_text() for path in (own / "artefacts/code").iterdir()})
    changed = {name for name in hashes[0] if hashes[0][name] != hashes[1][name]}
    assert {"train", "encode", "fit", "generate", "augment"} <= changed
    assert changed.isdisjoint({"prepare", "diagnose"})


def test_computed_names_count() -> None:
    """Densities are looked up in a table, and fidelity scores in the registry."""
    assert "postprior.stage2_latent.flow_matching" in closure("stages.fit")
    assert "postprior.pipelines.metrics.fidelity.frechet" in closure("stages.evaluate")
    assert not any("stage2_latent.flow" in name or ".metrics." in name for name in closure("stages.train"))
    assert {name for name in closure("stages.compare") if name.endswith(".css")} == {"pipelines/report/style.css"}
