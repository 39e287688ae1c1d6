"""User-defined codes from end to end: the console script in a folder that has no project."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from support.equations import seeded
from support.latent import labelled
from typer.testing import CliRunner

from postprior.pipelines.api.draw import draw
from postprior.pipelines.api.fit import fit_codes
from postprior.pipelines.artefacts.density import load_density
from postprior.pipelines.commands.app import app
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import ROWS, Generator
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import load_artefact, save_artefact


def run(warm: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([warm / "postprior", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def save(path: Path, rows: int, seed: int) -> None:
    """Save means, scales and labels in double precision, as another library would."""
    codes, _ = labelled(rows, seed)
    loc, scale = (value[:, 0].double().numpy() for value in (codes.loc, codes.scale))
    np.savez(path, means=loc, scales=scale, labels=codes.labels.numpy())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, warm: Path) -> Path:
    """A folder with codes.npz, held_out.npz and the density `mine` of them."""
    folder = tmp_path_factory.mktemp("own")
    save(folder / "codes.npz", 500, seed=0)
    save(folder / "held_out.npz", 200, seed=1)
    answer = run(warm, folder, "fit", "gmm", "--codes", "codes.npz", "--validation", "held_out.npz", "--out", "mine")
    assert answer.returncode == 0, answer.stderr
    return folder


def test_the_density_is_of_these_codes(fitted: Path) -> None:
    assert sorted(path.name for path in fitted.iterdir()) == ["codes.npz", "held_out.npz", "mine"]
    assert (fitted / "mine/tensors.safetensors").stat().st_size < 1_000_000
    density = load_density(fitted / "mine")
    codes, _ = labelled(4000, seed=2)
    drawn = density.sample(4000, seeded())
    torch.testing.assert_close(drawn.mean.mean(0), codes.mean.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(drawn.mean.T.cov(), codes.draw(seeded()).T.cov(), atol=0.3, rtol=0)
    manifest = json.loads((fitted / "mine/manifest.json").read_text())
    assert set(manifest["log_likelihood"]) == {"train", "validation"}
    assert manifest["memorisation"]["samples"] == 200
    assert manifest["fitting"] == {"kind": "gmm", "independent": False, "rows": "all", "labels": True}
    assert "autoencoder" not in manifest
    with pytest.raises(UserError, match="fitted to custom codes, so no autoencoder can decode its draws"):
        Generator.load(fitted / "mine")


def test_codes_are_drawn_from_the_folder_alone(fitted: Path, tmp_path: Path, warm: Path) -> None:
    (fitted / "mine").rename(tmp_path / "moved")
    try:
        drawn = run(warm, tmp_path, "draw", "moved", "--samples", str(ROWS + 30), "--seed", "4", "--out", "many.npz")
        assert drawn.returncode == 0, drawn.stderr
        for name, rows in (("few", 10), ("again", ROWS + 30)):
            draw(tmp_path / "moved", tmp_path / f"{name}.npz", SampleRequest(rows, seed=4))
    finally:
        (tmp_path / "moved").rename(fitted / "mine")
    few, many = (np.load(tmp_path / f"{name}.npz") for name in ("few", "many"))
    assert many["loc"].shape == (ROWS + 30, 4)
    assert sorted(many.files) == ["labels", "loc"]
    assert np.array_equal(few["loc"], many["loc"][:10])
    assert np.array_equal(few["labels"], many["labels"][:10])
    assert (tmp_path / "many.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_labels_temperature_and_truncation_are_kept(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fitted)
    common = ["draw", "mine", "--label", "0=40", "--label", "2=60", "--out", "drawn.npz", "--force"]
    density, scores = load_density(fitted / "mine"), []
    for options in ([], ["--temperature", "0.5"], ["--truncation", "0.5"]):
        answer = CliRunner().invoke(app, [*common, *options])
        assert answer.exit_code == 0, answer.stderr
        drawn = np.load(fitted / "drawn.npz")
        assert np.bincount(drawn["labels"]).tolist() == [40, 0, 60]
        scores.append(float(density.log_prob(torch.from_numpy(drawn["loc"])).mean()))
    (fitted / "drawn.npz").unlink()
    assert min(scores[1:]) > scores[0] + 0.2


def test_draws_are_a_valid_input(fitted: Path, tmp_path: Path) -> None:
    draw(fitted / "mine", tmp_path / "drawn.npz", SampleRequest(300))
    fit_codes("gmm", None, tmp_path, tmp_path / "drawn.npz")
    assert load_density(tmp_path / "artefacts/densities/gmm").classes.labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fit", "gmmm", "--codes", "codes.npz"], "density: found 'gmmm', which is not a known density (did you mean"),
        (["fit", "gmm", "--codes", "none.npz"], "none.npz: found no such file or folder, expected a code"),
        (["fit", "gmm", "--codes", "mine"], "mine/manifest.json: found kind 'density', expected 'codes'"),
        (
            ["fit", "vamp", "--codes", "codes.npz"],
            "density.vamp: vamp needs the encoder of the autoencoder, which codes do not contain; run postprior",
        ),
        (
            ["draw", "mine", "--label", "1=5", "--out", "x.npz"],
            "labels: found '1', which is not a known label of the codes; known: 0, 2",
        ),
        (["draw", "mine", "--samples", "0", "--out", "x.npz"], "samples: found 0, expected a whole number"),
        (
            ["draw", "mine", "--samples", "3", "--temperature", "2", "--out", "x.npz"],
            "temperature: found 2.0, expected a number above 0 and at most 1",
        ),
        (["draw", "none", "--samples", "3", "--out", "x.npz"], "none/manifest.json: no such file"),
    ],
)
def test_a_mistake_is_one_line(
    fitted: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(fitted)
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 1
    assert answer.stderr.startswith(f"postprior: error: {sentence}")
    assert answer.stderr.count("\n") == 1
    assert sorted(path.name for path in fitted.iterdir()) == ["codes.npz", "held_out.npz", "mine"]


def test_other_blocks_for_validation_are_refused(fitted: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "narrow.npz", loc=np.zeros((20, 3)), labels=np.zeros(20, int))
    with pytest.raises(UserError, match=r"density\.gmm: validation codes have the blocks"):
        fit_codes("gmm", None, tmp_path, fitted / "codes.npz", tmp_path / "narrow.npz", tmp_path / "unfinished")
    assert not (tmp_path / "unfinished").exists()


def test_a_code_folder_of_a_project_keeps_its_autoencoder(trained: tuple[Path, Params], tmp_path: Path) -> None:
    root, params = trained
    codes = root / "artefacts/codes"
    fit_codes("gmm", params, root, codes / "train", codes / "validation", tmp_path / "mine")
    density = load_density(tmp_path / "mine")
    assert density.options["passes"] == params.density["gmm"]["passes"]
    of_stage = load_density(root / "artefacts/densities/gmm")
    assert torch.equal(density.sample(20, seeded()).loc, of_stage.sample(20, seeded()).loc)
    pair = Generator.load(tmp_path / "mine", root / "artefacts/autoencoder")
    assert len(pair.sample(3)) == 3
    artefact = load_artefact(codes / "validation", "codes")
    save_artefact(
        tmp_path / "other",
        "codes",
        {**artefact.manifest, "autoencoder": "0" * 64},
        artefact.tensors,
        artefact.arrays,
    )
    with pytest.raises(UserError, match="come from different autoencoders"):
        fit_codes("gmm", params, root, codes / "train", tmp_path / "other", tmp_path / "mine")


def test_codes_drawn_are_those_that_generate_decodes(trained: tuple[Path, Params], tmp_path: Path) -> None:
    folder = trained[0] / "artefacts/densities/gmm"
    draw(folder, tmp_path / "codes.npz", SampleRequest(30, seed=7))
    pair, drawn = Generator.load(folder), np.load(tmp_path / "codes.npz")
    data = pair.sample(30, seed=7)
    with torch.no_grad():
        decoded = pair.decode(torch.from_numpy(drawn["loc"]), "mean", seeded())
    assert np.array_equal(data.labels, drawn["labels"])
    assert drawn["label_names"].tolist() == list(data.label_names)
    for name, values in data.data.items():
        np.testing.assert_allclose(decoded[name], values, atol=1e-5)
