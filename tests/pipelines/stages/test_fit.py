"""The stage `fit`: the settings of an entry, and what the manifest says about the fit."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.equations import seeded
from support.latent import labelled
from support.project import small, write_params

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import complete_rows, load_codes, posteriors, save_codes
from postprior.pipelines.artefacts.density import load_density, log_likelihoods
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation import fitting
from postprior.pipelines.generation.fitting import fit_density
from postprior.pipelines.generation.memorisation import check_memorisation
from postprior.pipelines.settings.params import Fitting, Params
from postprior.pipelines.stages.fit import fit
from postprior.pipelines.storage import load_artefact, save_artefact
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Codes

Trained = tuple[Path, Params]
GMM = {"components": 1, "passes": 10}
TRAIN, VALIDATION, TEST = (labelled(rows, seed)[0] for rows, seed in ((300, 1), (100, 2), (80, 3)))
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


def fitted(written: dict[str, Any], **changes: Codes) -> tuple[Any, dict[str, Any]]:
    """Fit an entry to known codes, and return the loaded density and its manifest."""
    tables = SPLITS | changes
    density, known = fit_density("mine", written, tables, seed=0)
    tensors, description = density.state()
    return DENSITIES[description["density"]].from_state(tensors, description), description | known


def some_whole(codes: Codes) -> Codes:
    """Return the same codes, with every third row encoded from some of the modalities."""
    return replace(codes, whole=torch.arange(len(codes)) % 3 > 0)


def test_an_entry_without_settings_is_the_density_itself() -> None:
    density, manifest = fitted({"kind": "gmm", **GMM})
    alone = DENSITIES["gmm"](**GMM).fit(TRAIN, VALIDATION, generator_for("cpu", 0))
    assert manifest["fitting"] == {"kind": "gmm", "independent": False, "rows": "all", "labels": True}
    assert density.options == alone.options
    assert torch.equal(density.log_prob(TEST.mean), alone.log_prob(TEST.mean))


def test_without_labels_the_density_has_none() -> None:
    density, _ = fitted({"kind": "gmm", "labels": False, **GMM})
    assert not density.classes.labelled
    assert density.sample(5, seeded()).labels is None


def test_blocks_fitted_apart_are_independent() -> None:
    density, manifest = fitted({"kind": "gmm", "independent": True, "labels": False, **GMM})
    assert manifest["density"] == "independent"
    assert manifest["options"] == {"density": "gmm", "options": GMM}
    z = density.sample(4000, seeded()).loc[:, 0]
    joint = fitted({"kind": "gmm", "labels": False, **GMM})[0].sample(4000, seeded()).loc[:, 0]
    between = [drawn.T.corrcoef()[:2, 2:].abs().max() for drawn in (z, joint)]
    assert between[0] < 0.06
    assert between[1] > 0.3


def test_complete_rows_are_those_with_every_modality() -> None:
    parts = {name: some_whole(codes) for name, codes in SPLITS.items()}
    kept = {name: codes.select(complete_rows(codes)) for name, codes in parts.items()}
    density, manifest = fitted({"kind": "gmm", "rows": "complete", **GMM}, **parts)
    alone, told = fitted({"kind": "gmm", **GMM}, **kept)
    assert manifest["rows"]["used"] == 200
    assert torch.equal(density.sample(20, seeded()).loc, alone.sample(20, seeded()).loc)
    assert manifest["log_likelihood"] == told["log_likelihood"]
    _, of_all = fitted({"kind": "gmm", **GMM}, **parts)
    assert of_all["rows"]["used"] == 300
    none = replace(TRAIN, whole=torch.zeros(300, dtype=torch.bool))
    with pytest.raises(UserError, match=r"density\.mine\.rows: found no complete train row"):
        fitted({"kind": "gmm", "rows": "complete", **GMM}, train=none)


def test_encode_marks_the_rows_with_every_modality(trained: Trained, tmp_path: Path) -> None:
    root, _ = trained
    data = Dataset.load(root / "artefacts/data/validation")
    mask = np.ones((len(data), 5), bool)
    mask[::4, 2] = False
    model, _ = load_autoencoder(root / "artefacts/autoencoder")
    save_codes(tmp_path, posteriors(model, replace(data, mask=mask), 8, seeded()), {})
    codes = load_codes(tmp_path)
    assert codes.whole.tolist() == mask.all(1).tolist()
    assert complete_rows(codes).tolist() == [row for row in range(len(data)) if row % 4]
    assert bool(codes.complete.all())  # the shared code is inferred from the observed modalities


def test_of_many_rows_a_random_subset_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The density is that of these rows, and memorisation is checked against the same ones."""
    monkeypatch.setattr(fitting, "MOST", 90)
    monkeypatch.setattr(fitting, "MOST_HELD_OUT", 60)
    entry = Fitting(kind="gmm")
    rows = {split: fitting.fitted_rows("mine", entry, split, table, 0) for split, table in SPLITS.items()}
    assert [len(chosen.unique()) for chosen in rows.values()] == [90, 60, 60]
    assert rows["train"].max() > 200
    density, manifest = fitted({"kind": "gmm", **GMM})
    alone, _ = fitted({"kind": "gmm", **GMM}, **{split: SPLITS[split].select(rows[split]) for split in SPLITS})
    assert manifest["rows"]["used"] == 90
    assert torch.equal(density.log_prob(TEST.mean), alone.log_prob(TEST.mean))


def test_the_encoder_gets_the_rows_that_are_fitted(trained: Trained, tmp_path: Path) -> None:
    """If two thirds of the rows are complete, the encoder gets these rows only."""
    root = tmp_path / "project"
    shutil.copytree(trained[0], root)
    vamp = {"kind": "vamp", "pseudo_inputs": 20, "steps": 10, "rows": "complete"}
    choosing = {
        "kind": "auto",
        "candidates": {"vamp": {"pseudo_inputs": 20, "steps": 10}},
        "rows": "complete",
    }
    params = write_params(root, small(density__mine=vamp, density__chosen=choosing))
    seen: list[np.ndarray] = []
    for split in ("train", "validation"):
        folder = root / "artefacts/codes" / split
        codes, origin = load_codes(folder), load_artefact(folder, "codes").manifest
        save_codes(folder, some_whole(codes), {name: origin[name] for name in ("autoencoder", "data")})
        seen.append(codes.labels[torch.arange(len(codes)) % 3 > 0].numpy())
    fit("mine", params, root)
    manifest = load_artefact(root / "artefacts/densities/mine", "density").manifest
    assert manifest["density"] == "vamp"
    assert manifest["rows"]["used"] == len(seen[0]) == 200
    assert len(load_density(root / "artefacts/densities/mine").sample(3)) == 3
    fit("chosen", params, root)
    assert load_density(root / "artefacts/densities/chosen").scores[0]["log_likelihood"]


def test_the_likelihood_is_that_of_one_draw_of_rows_with_every_modality(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    density, manifest = fitted({"kind": "gmm", **GMM}, test=some_whole(TEST))
    assert list(manifest["log_likelihood"]) == ["train", "validation", "test"]
    rows = torch.tensor([row for row in range(80) if row % 3])
    generator = torch.Generator().manual_seed(0)
    draws = [density.log_prob(TEST.draw(generator, rows)).mean() for _ in range(50)]
    low, high = float(min(draws)), float(max(draws))
    assert low < manifest["log_likelihood"]["test"] < high
    blank = replace(TEST, observed=torch.zeros_like(TEST.observed))
    unknown = {"value": None, "why": "there are no complete test rows"}
    assert log_likelihoods(density, {"test": blank}, 0) == {"test": unknown}
    far = replace(TEST, loc=TEST.loc * 1e30)
    unlikely = {"value": None, "why": "some rows have no finite likelihood"}
    assert log_likelihoods(density, {"test": far}, 0) == {"test": unlikely}
    monkeypatch.setattr("postprior.pipelines.artefacts.density.MOST", 7)
    few = log_likelihoods(density, {"test": TEST}, 0)["test"]
    assert few != log_likelihoods(density, {"test": TEST}, 1)["test"]
    assert few == log_likelihoods(density, {"test": TEST}, 0)["test"]


def test_overfitting_and_memorising_show() -> None:
    narrow = {
        name: replace(codes, scale=torch.full_like(codes.scale, 0.03))
        for name, codes in {"train": TRAIN, "validation": VALIDATION, "test": TEST}.items()
    }
    sides, found = (narrow["train"], narrow["test"]), []
    for written in ({"kind": "kde", "bandwidth": 1.0}, {"kind": "gmm", **GMM}):
        density, known = fitted(written, **narrow)
        found.append(known | {"memorisation": check_memorisation("mine", density, known, *sides, 0)})
    kde, gmm = found
    assert kde["log_likelihood"]["train"] > kde["log_likelihood"]["test"] + 10
    assert abs(gmm["log_likelihood"]["train"] - gmm["log_likelihood"]["test"]) < 0.5
    assert kde["memorisation"]["ratio"]["high"] < gmm["memorisation"]["ratio"]["low"]
    assert kde["memorisation"]["near_copies"]["low"] > gmm["memorisation"]["near_copies"]["high"]
    assert gmm["memorisation"]["samples"] == 80


def test_a_bound_is_flagged_and_what_has_no_score_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    _, manifest = fitted({"kind": "gmm", **GMM})
    assert manifest["bound"] is False
    monkeypatch.setattr(DENSITIES["gmm"], "exact_log_prob", False)
    monkeypatch.setattr(DENSITIES["gmm"], "bound", True)
    _, manifest = fitted({"kind": "gmm", **GMM})
    assert manifest["bound"] is True
    assert manifest["log_likelihood"]
    monkeypatch.setattr(DENSITIES["gmm"], "bound", False)
    _, manifest = fitted({"kind": "gmm", **GMM})
    assert manifest["log_likelihood"] == {}


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"kind": "gmm", "components": 0}, r"density\.mine: option components: found 0, expected"),
        ({"kind": "gmm", "colour": 1}, r"density\.mine\.colour is not a known key"),
        ({"kind": "vamp"}, r"density\.mine: vamp needs the encoder of the autoencoder"),
    ],
)
def test_an_error_of_a_density_is_reported(written: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        fitted(written)


def test_a_density_of_another_version_is_reported(tmp_path: Path) -> None:
    density, _ = fit_density("mine", {"kind": "gmm", **GMM}, {"train": TRAIN}, seed=0)
    tensors, manifest = density.state()
    lacking = {name: value for name, value in tensors.items() if name != "levels"}
    save_artefact(tmp_path / "old", "density", manifest, lacking)
    with pytest.raises(UserError, match=r"old: this was written by another version of postprior \('levels'\); make"):
        load_density(tmp_path / "old")
    save_artefact(tmp_path / "new", "density", {**manifest, "density": "copula"}, tensors)
    with pytest.raises(UserError, match=r"new: density: found 'copula', which is not a known density; known: "):
        load_density(tmp_path / "new")
