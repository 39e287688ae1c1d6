"""Files of codes: the content of each format, for complete and incomplete rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

from postprior.pipelines.api.represent import represent
from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.artefacts.exchange import read_codes
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.fitting import fit_density
from postprior.pipelines.storage import save_artefact
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.layouts import split_blocks

MODALITIES = (Modality("a", "vector", (3,), "normal"), Modality("b", "vector", (2,), "normal"))
OPTIONS = {"mvtcae": {}, "dmvae": {"private": {"a": 2, "b": 1}}, "mmvaeplus": {"private": 2}, "unimodal": {}}
N = 40
RNG = np.random.default_rng(0)
VALUES = {m.name: RNG.normal(size=(N, *m.shape)).astype(np.float32) for m in MODALITIES}
MASK = np.ones((N, 2), bool)
MASK[:10, 0], MASK[10:15, 1] = False, False
ROWS = Dataset(
    MODALITIES,
    VALUES,
    MASK,
    labels=(np.arange(N) % 3).astype(np.int32),  # as a dataset folder may hold them
    label_names=("x", "y", "z"),
    ids=np.array([f"row{n}" for n in range(N)]),
)


def saved(folder: Path, name: str) -> MultimodalVAE:
    """Save an untrained autoencoder; return it and its folder."""
    model = MODELS[name](MODALITIES, latent=4, width=2, **OPTIONS[name])
    tensors, description = model.state()
    save_artefact(folder / "autoencoder", "autoencoder", {"model": name, **description}, tensors)
    return model.eval()


def codes_of(model: MultimodalVAE, rows: Dataset) -> Codes:
    return posteriors(model, rows, 32, torch.Generator().manual_seed(0))


def written(folder: Path, rows: Dataset, ending: str) -> Path:
    rows.save(folder / "rows")
    represent(folder / "rows", folder / "autoencoder", folder / f"codes{ending}", force=True)
    return folder / f"codes{ending}"


@pytest.mark.parametrize("name", OPTIONS)
def test_npz_holds_full_posteriors(tmp_path: Path, name: str) -> None:
    model = saved(tmp_path, name)
    found, codes = read_codes(written(tmp_path, ROWS, ".npz")), codes_of(model, ROWS)
    assert [(b.name, b.size) for b in found.layout] == [(b.name, b.size) for b in model.layout]
    assert (found.family, found.label_names) == (codes.family, ROWS.label_names)
    assert found.ids == ROWS.ids.tolist()
    assert found.labels.tolist() == ROWS.labels.tolist()
    for field in ("weights", "observed", "labels"):
        assert torch.equal(getattr(found, field), getattr(codes, field))
    known = codes.known().unsqueeze(1).expand_as(codes.loc)
    assert bool(known.all()) == (name == "mvtcae")
    for field in ("loc", "scale"):
        assert torch.equal(getattr(found, field)[known], getattr(codes, field)[known])
        assert bool(getattr(found, field)[~known].isnan().all())


def test_a_density_of_the_file_is_that_of_the_codes(tmp_path: Path) -> None:
    model = saved(tmp_path, "dmvae")
    found, codes = read_codes(written(tmp_path, ROWS, ".npz")), codes_of(model, ROWS)
    options = {"components": 2, "passes": 5, "covariance": "full"}
    one, other = (fit_density("gmm", options, {"train": each}, 0)[0].state()[0] for each in (found, codes))
    assert sorted(one) == sorted(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_code_of_one_modality_is_that_of_its_expert(tmp_path: Path) -> None:
    model = saved(tmp_path, "mvtcae")
    found = read_codes(
        written(tmp_path, replace(ROWS, modalities=MODALITIES[1:], mask=None, data={"b": VALUES["b"]}), ".npz")
    )
    with torch.no_grad():
        loc, log_scale = model.encoders["b"](torch.from_numpy(VALUES["b"])).chunk(2, -1)
    torch.testing.assert_close(found.loc[:, 0], loc)
    torch.testing.assert_close(found.scale[:, 0], log_scale.exp())


@pytest.mark.parametrize("ending", [".npz", ".parquet", ".h5ad"])
def test_absent_is_missing_everywhere_in_any_order_and_bytes_repeat(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("h5py")
    saved(tmp_path, "dmvae")
    turned = replace(ROWS, modalities=MODALITIES[::-1], mask=MASK[:, ::-1])
    assert written(tmp_path, ROWS, ending).read_bytes() == written(tmp_path, turned, ending).read_bytes()
    alone = replace(ROWS, modalities=MODALITIES[:1], data={"a": VALUES["a"]}, mask=None)
    masked = replace(ROWS, mask=np.tile([True, False], (N, 1)))
    assert written(tmp_path, alone, ending).read_bytes() == written(tmp_path, masked, ending).read_bytes()


def test_parquet_is_a_table_of_means_with_nulls_where_there_is_none(tmp_path: Path) -> None:
    mean = codes_of(saved(tmp_path, "dmvae"), ROWS).mean.numpy()
    table = parquet.read_table(written(tmp_path, ROWS, ".parquet"))
    coordinates = ["z_0", "z_1", "z_2", "z_3", "w_a_0", "w_a_1", "w_b_0"]
    assert table.column_names == ["id", "label", *coordinates]
    assert table["id"].to_pylist() == list(ROWS.ids)
    assert table["label"].to_pylist() == ["xyz"[n % 3] for n in range(N)]
    assert {name: table[name].null_count for name in coordinates} == {
        **dict.fromkeys(coordinates[:4], 0),
        **{"w_a_0": 10, "w_a_1": 10, "w_b_0": 5},
    }
    found = np.stack([table[name].to_numpy(zero_copy_only=False) for name in coordinates], 1)
    np.testing.assert_array_equal(found, mean)  # NaN equals NaN here


def test_without_ids_and_labels_rows_are_numbered(tmp_path: Path) -> None:
    saved(tmp_path, "mvtcae")
    bare = replace(ROWS, ids=None, labels=None, label_names=None)
    table = parquet.read_table(written(tmp_path, bare, ".parquet"))
    assert table.column_names == ["id", "z_0", "z_1", "z_2", "z_3"]
    assert table["id"].to_pylist() == list(range(N))
    found = read_codes(written(tmp_path, bare, ".npz"))
    assert (found.labels, found.ids) == (None, None)


def test_anndata_has_the_shared_code_and_private_ones_beside_it(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    model = saved(tmp_path, "dmvae")
    codes, path = codes_of(model, ROWS), written(tmp_path, ROWS, ".h5ad")
    parts = split_blocks(codes.layout, codes.mean)
    with h5py.File(path) as file:
        assert file.attrs["encoding-type"] == "anndata"
        assert file["var/_index"].asstr()[:].tolist() == ["z_0", "z_1", "z_2", "z_3"]
        np.testing.assert_array_equal(file["X"], parts["z"])
        assert sorted(file["obsm"]) == ["w_a", "w_b"]
        for name in ("w_a", "w_b"):
            np.testing.assert_array_equal(file["obsm"][name], parts[name])
    import_data([path], tmp_path / "data", Roles(label="label"), (0.2, 0.2), 0)
    back = Dataset.load(tmp_path / "data/train")
    assert set(back.ids) < set(ROWS.ids)
    assert back.label_names == ROWS.label_names
    assert [back.label_names[label] for label in back.labels] == ["xyz"[int(i[3:]) % 3] for i in back.ids]


def test_anndata_has_all_codes_side_by_side_if_none_is_shared(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    codes = codes_of(saved(tmp_path, "unimodal"), ROWS)
    with h5py.File(written(tmp_path, ROWS, ".h5ad")) as file:
        assert file["var/_index"].asstr()[:].tolist() == ["w_a_0", "w_a_1", "w_a_2", "w_b_0", "w_b_1"]
        np.testing.assert_array_equal(file["X"], codes.mean)  # NaN equals NaN here
        assert sorted(file["obsm"]) == ["w_a", "w_b"]


def test_the_report_names_what_was_written(tmp_path: Path) -> None:
    saved(tmp_path, "dmvae")
    ROWS.save(tmp_path / "rows")
    told = represent(tmp_path / "rows", tmp_path / "autoencoder", tmp_path / "codes.npz")
    assert told == [
        f"{tmp_path / 'codes.npz'}: codes of 40 rows; blocks and their dimensions: z (4), w_a (2), w_b (1)",
        "  15 rows lack modalities; their codes are inferred from the observed ones",
    ]


def test_other_endings_and_other_modalities_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    saved(tmp_path, "mvtcae")
    out = tmp_path / "codes.csv"
    with pytest.raises(
        UserError, match=r"codes\.csv: found '\.csv', which is not a known ending .* known: \.h5ad, \.npz, \.parquet"
    ):
        represent(tmp_path / "rows", tmp_path / "autoencoder", out)
    strange = replace(ROWS, modalities=(Modality("c", "vector", (3,), "normal"),), data={"c": VALUES["a"]}, mask=None)
    before = written(tmp_path, ROWS, ".npz").read_bytes()
    with pytest.raises(UserError, match="modality c found, expected some of a, b") as error:
        written(tmp_path, strange, ".npz")
    assert "\n" not in str(error.value)
    assert (tmp_path / "codes.npz").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["autoencoder", "codes.npz", "rows"]
