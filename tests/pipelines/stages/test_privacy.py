"""The stage `privacy` on a small trained project: its results, the detection of memorisation, and what it refuses."""

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from postprior.pipelines.artefacts.codes import load_codes, save_codes
from postprior.pipelines.artefacts.project import Project as Layout
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator, draw_codes
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.metrics.features.scale import Scale, points_of
from postprior.pipelines.metrics.privacy.proximity import LISTED, PROXIMITY, TESTS
from postprior.pipelines.metrics.privacy.splits import SHOWN, RealSplits
from postprior.pipelines.scoring.privacy import compare
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.encode import encode
from postprior.pipelines.stages.fit import fit
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.privacy import privacy
from postprior.pipelines.storage import file_hash, load_artefact, read_json

Project = tuple[Path, Params]
SPACES = {"joint", "codes", "m0", "m1", "m2", "m3", "m4"}


@pytest.fixture(scope="module")
def project(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the trained project with tests of two densities: one fitted, and one that repeats its codes.

    The codes are replaced by well separated ones, because two epochs do not train an encoder that separates the rows.
    """
    root, params = tmp_path_factory.mktemp("private") / "project", trained[1]
    shutil.copytree(trained[0], root)
    for seed, split in enumerate(SPLITS):
        folder = root / "artefacts/codes" / split
        codes, manifest = load_codes(folder), read_json(folder / "manifest.json")
        loc = torch.randn(codes.loc.shape, generator=torch.Generator().manual_seed(seed))
        separated = replace(codes, loc=loc, scale=torch.full_like(loc, 0.01), labels=None, label_names=None)
        save_codes(folder, separated, {"autoencoder": manifest["autoencoder"], "data": manifest["data"]})
    changed = {"kde": {"bandwidth": 1.0}, "gmm": {"components": [1]}}
    params = params.model_copy(update={"density": {**params.density, **changed}})
    for name in ("gmm", "kde"):
        fit(name, params, root)
        generate(name, params, root)
        privacy(name, params, root)
    return root, params


@pytest.fixture
def copy(project: Project, tmp_path: Path) -> Project:
    """A copy of the project that a test may break."""
    shutil.copytree(project[0], tmp_path / "project")
    return tmp_path / "project", project[1]


def read(root: Path, name: str) -> dict[str, Any]:
    return read_json(root / f"results/privacy/{name}.json")


def test_every_space_has_every_test_with_its_interval(project: Project) -> None:
    found = read(project[0], "gmm")
    assert set(found["spaces"]) == SPACES
    for space, scores in found["spaces"].items():
        assert {*TESTS, "authenticity_fresh"} == set(scores), space
        for name in (*TESTS, "authenticity_fresh"):
            assert scores[name]["low"] <= scores[name]["value"] <= scores[name]["high"]
    assert set(found["flagged"]) <= set(found["detected"]) <= {*TESTS, "linkability"}
    assert "differential privacy" in found["caution"]
    counts = {"synthetic": 60, "held_out": 120, "train": 300, "drawn": 600}
    assert found["samples"] == counts | {"members": 300, "others": 120, "reference": 60}
    assert len(found["near_copies"]) <= LISTED
    for near in found["near_copies"]:
        assert set(near) == {"sample", "record", "space", "distance", "ratio"}
        assert near["record"].startswith("train-")


def test_modalities_of_single_people_are_linked_and_pixels_are_no_attributes(project: Project) -> None:
    """The attacker has the published samples and 120 held-out rows, fewer than the setting allows."""
    root, params = project
    attacks = read(root, "gmm")["attacks"]
    linked = attacks.pop("linkability")
    assert linked["low"] <= linked["value"] <= linked["high"]
    assert linked["attacks"] == min(params.privacy.attacks, 300)
    assert sorted(linked["files"]) == [["m0", "m2", "m4"], ["m1", "m3"]]
    assert {"main", "control", "naive"} <= set(linked)
    assert {"attribute_inference", "singling_out", "singling_out_univariate"} == set(attacks)
    assert all(missing["value"] is None and "no tables" in missing["why"] for missing in attacks.values())
    assert linked["high"] > 0


def test_a_density_that_repeats_its_codes_is_flagged_by_all_tests(project: Project) -> None:
    found = read(project[0], "kde")
    assert found["flagged"][: len(TESTS)] == found["detected"][: len(TESTS)] == list(TESTS)
    codes = found["spaces"]["codes"]
    assert codes["membership_auc"]["value"] >= 0.9
    assert codes["near_copies"]["value"] == 1
    assert codes["distance_ratio"]["high"] < 0.5
    assert codes["authenticity"]["high"] < 0.1
    assert found["near_copies"][0]["space"] == "codes"
    assert read(project[0], "gmm")["flagged"] == []


def test_samples_are_stored_with_their_closest_training_rows(project: Project) -> None:
    root, _ = project
    artefact = load_artefact(root / "artefacts/privacy/gmm", "privacy")
    train, samples = (Dataset.load(root / "artefacts" / name) for name in ("data/train", "synthetic/gmm"))
    scales = tuple(Scale.fit(train, m) for m in train.modalities)

    def values(data: Dataset) -> np.ndarray:
        rows = np.arange(len(data))
        return np.concatenate([part(rows).double() for part in points_of(data, scales).parts], 1)

    known, drawn = values(train), values(samples)
    distances = np.stack([np.linalg.norm(known - row, axis=1) for row in drawn])
    arrays = artefact.arrays
    assert arrays["distances"].shape == (SHOWN,)
    assert arrays["distances"][0] == pytest.approx(distances.min(), rel=1e-4)
    assert (np.diff(arrays["distances"]) >= 0).all()
    rows, records = arrays["samples"], distances[arrays["samples"]].argmin(1)
    np.testing.assert_allclose(arrays["distances"], distances[rows, records], rtol=1e-4)
    assert train.ids is not None
    assert arrays["ids"].tolist() == train.ids[records].tolist()
    for name in train.data:
        np.testing.assert_array_equal(arrays[f"synthetic.{name}"], samples.data[name][rows])
        np.testing.assert_array_equal(arrays[f"nearest.{name}"], train.data[name][records])
    assert artefact.manifest["density"] == samples.provenance["density"]


def test_near_copies_of_codes_are_the_published_rows(project: Project) -> None:
    """Codes are not stored but drawn again, so a listed sample must be the row decoded from the same code."""
    root, _ = project
    generator = Generator.load(root / "artefacts/densities/kde")
    synthetic = Dataset.load(root / "artefacts/synthetic/kde")
    codes = {split: load_codes(Layout(root).artefacts.codes / split) for split in SPLITS}
    real = RealSplits.fit(Layout(root).splits(), codes, 0)
    found = compare(real, generator, synthetic, 0)["codes"].samples
    ((_, kept, codes, noise),) = draw_codes(generator.density, SampleRequest(len(synthetic)))
    with torch.no_grad():
        decoded = generator.decode(codes.loc[:, 0], "mean", noise)
    for name, values in decoded.items():
        np.testing.assert_array_equal(values[:kept], synthetic.data[name])
    known, drawn = (real.whiten(z).double() for z in (real.splits["train"].z, codes.loc[:kept, 0]))
    distance, record = torch.cdist(drawn, known).min(1)
    np.testing.assert_array_equal(found.record, record)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-4)


def test_the_same_settings_give_the_same_bytes(copy: Project) -> None:
    root, params = copy
    files = [root / "results/privacy/gmm.json", *(root / "artefacts/privacy/gmm").iterdir()]
    before = {path: file_hash(path) for path in files}
    privacy("gmm", params, root)
    assert {path: file_hash(path) for path in files} == before


def test_rows_that_lack_modalities_and_have_no_ids(copy: Project) -> None:
    root, params = copy
    for split, some in (("train", slice(0, 60)), ("test", slice(0, 30)), ("validation", slice(0, 20))):
        folder = root / "artefacts/data" / split
        data = Dataset.load(folder)
        mask = np.ones((len(data), 5), bool)
        mask[some, 2] = False
        whole = data.select(np.arange(len(data)))
        replace(whole, mask=mask, ids=None, provenance=data.provenance).save(folder)
    encode(params, root)
    privacy("gmm", params, root)
    found = read(root, "gmm")
    assert set(found["spaces"]) == SPACES
    assert found["samples"]["held_out"] == 120  # rows with a code of every block
    assert all(isinstance(near["record"], int) for near in found["near_copies"])
    joint = [near["record"] for near in found["near_copies"] if near["space"] in ("joint", "m2")]
    assert all(record >= 60 for record in joint)
    assert load_artefact(root / "artefacts/privacy/gmm", "privacy").arrays["ids"].min() >= 60


def test_held_out_rows_that_lack_a_modality_are_decoded_and_compared(copy: Project) -> None:
    """Their codes have every block; only the attack, which reads the rows themselves, needs the modality."""
    root, params = copy
    folder = root / "artefacts/data/test"
    data = Dataset.load(folder).select(np.arange(120))
    replace(data, mask=np.ones((120, 5), bool) & [True] * 4 + [False]).save(folder)
    encode(params, root)
    privacy("gmm", params, root)
    found = read(root, "gmm")
    assert set(found["spaces"]) == SPACES
    for space in found["spaces"].values():
        assert space["distance_ratio"]["value"] > 0
        assert 0 <= space["near_copies"]["value"] <= 1
    pairs = [f"m{m} + m{n}" for m, n in combinations(range(4), 2)]
    assert found["pairs"] == {"membership_auc": pairs}  # the distances are those of complete training rows
    assert found["spaces"]["joint"]["membership_auc"]["low"] is not None
    assert found["spaces"]["m4"]["membership_auc"]["value"] is None
    assert found["spaces"]["m0"]["membership_auc"]["low"] is not None


def test_rows_of_which_none_is_complete_are_compared_in_pairs_of_modalities(copy: Project) -> None:
    root, params = copy
    for split in SPLITS:
        folder = root / "artefacts/data" / split
        data = Dataset.load(folder).select(np.arange(60))
        mask = np.eye(5, dtype=bool)[np.arange(60) % 4 + 1] | [True] + [False] * 4
        replace(data, mask=mask, provenance={}).save(folder)
        folder = root / "artefacts/codes" / split
        codes, manifest = load_codes(folder), read_json(folder / "manifest.json")
        origins = {key: manifest[key] for key in ("autoencoder", "data")}
        save_codes(folder, codes.select(torch.arange(60)), origins)
    privacy("kde", params, root)
    found = read(root, "kde")
    assert set(found["spaces"]) == SPACES
    pairs = ["m0 + m1", "m0 + m2", "m0 + m3", "m0 + m4"]
    assert found["pairs"] == dict.fromkeys((*PROXIMITY, "membership_auc"), pairs)
    for test in (*PROXIMITY, "membership_auc"):
        assert found["spaces"]["joint"][test]["low"] is not None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("density", "0" * 64, "run postprior generate"), ("labels", "a label a row", "counts of labels")],
)
def test_samples_of_another_density_are_refused(copy: Project, key: str, value: str, words: str) -> None:
    root, params = copy
    path = root / "artefacts/synthetic/gmm/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["provenance"][key] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=words):
        privacy("gmm", params, root)
