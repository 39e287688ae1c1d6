"""Codes of other libraries: the content of .npz files, and an error of one sentence for every mistake."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.equations import seeded
from support.latent import labelled

from postprior.pipelines.artefacts.exchange import read_codes, write_codes
from postprior.pipelines.errors import UserError
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Block
from postprior.stage2_latent.layouts import split_blocks

RNG = np.random.default_rng(0)
LOC, SCALE = RNG.normal(size=(20, 3)), RNG.uniform(0.1, 1, size=(20, 3))
MIXED = RNG.normal(size=(20, 2, 3))


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "codes.npz"
    np.savez(path, **arrays)
    return path


def test_means_and_scales_are_one_block_of_posteriors(tmp_path: Path) -> None:
    codes = read_codes(saved(tmp_path, loc=LOC, scale=SCALE, labels=np.arange(20) % 4))
    assert codes.layout == (Block("z", (3,)),)
    assert codes.family == "normal"
    torch.testing.assert_close(codes.loc[:, 0], torch.from_numpy(LOC).float())
    torch.testing.assert_close(codes.scale[:, 0], torch.from_numpy(SCALE).float())
    assert codes.labels.tolist() == [0, 1, 2, 3] * 5
    assert codes.label_names is None
    standard = torch.distributions.Normal(0.0, 1.0).log_prob(torch.ones(2, 3)).sum(-1)
    torch.testing.assert_close(codes.prior.log_prob(torch.ones(2, 3)), standard)


def test_other_names_and_other_families(tmp_path: Path) -> None:
    path = saved(tmp_path, means=LOC, scales=SCALE, mask=np.ones(20, bool), family="laplace")
    codes = read_codes(path)
    assert codes.family == "laplace"
    assert codes.complete.all()
    torch.testing.assert_close(codes.posterior().variance, torch.from_numpy(2 * SCALE**2).float())


def test_codes_without_scales_are_draws(tmp_path: Path) -> None:
    codes = read_codes(saved(tmp_path, loc=np.arange(40).reshape(20, 2), label_names=["a", "b"]))
    assert (codes.family, codes.scale) == ("empirical", None)
    assert torch.equal(codes.draw(seeded()), torch.arange(40.0).reshape(20, 2))


def test_mixtures_have_components_and_weights(tmp_path: Path) -> None:
    equal = read_codes(saved(tmp_path, loc=MIXED, scale=np.exp(MIXED)))
    assert equal.loc.shape == (20, 2, 3)
    assert torch.equal(equal.weights, torch.full((20, 2), 0.5))
    weights = np.tile([1.0, 0.0], (20, 1))
    chosen = read_codes(saved(tmp_path, loc=MIXED, scale=np.exp(MIXED), weights=weights))
    torch.testing.assert_close(chosen.mean, torch.from_numpy(MIXED[:, 0]).float())


def test_blocks_are_concatenated_in_their_order(tmp_path: Path) -> None:
    observed = np.ones((20, 2), bool)
    observed[:5, 1] = False
    w = np.where(observed[:, 1:], LOC[:, :2], np.nan)
    arrays = {"z.loc": LOC, "z.scale": SCALE, "w.loc": w, "w.scale": SCALE[:, :2], "observed": observed}
    codes = read_codes(saved(tmp_path, **arrays))
    assert codes.layout == (Block("z", (3,)), Block("w", (2,)))
    assert codes.complete.tolist() == [False] * 5 + [True] * 15
    torch.testing.assert_close(split_blocks(codes.layout, codes.mean)["w"][5:], torch.from_numpy(LOC[5:, :2]).float())


def test_what_is_written_is_read_and_has_the_same_bytes(tmp_path: Path) -> None:
    codes, _ = labelled(300, seed=0)
    drawn = DENSITIES["gmm"](components=1, passes=5).fit(codes, generator=seeded()).sample(40, seeded())
    for name in ("one.npz", "two.npz"):
        write_codes(tmp_path / name, drawn)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    again = read_codes(tmp_path / "one.npz")
    assert torch.equal(again.loc, drawn.loc)
    assert torch.equal(again.labels, drawn.labels)
    assert again.label_names == drawn.label_names
    assert [(block.name, block.size) for block in again.layout] == [("z", 2), ("w", 2)]


def test_posteriors_are_read_back_with_all_their_fields(tmp_path: Path) -> None:
    observed = np.ones((20, 2), bool)
    observed[:5, 1] = False
    parts = {
        "z.loc": MIXED,
        "z.scale": np.exp(MIXED),
        "w.loc": MIXED[..., :1],
        "w.scale": np.exp(MIXED[..., :1]),
    }
    weights = np.tile([0.25, 0.75], (20, 1))
    known = {"ids": [f"row{n}" for n in range(20)], "labels": np.arange(20) % 2, "label_names": ["a", "b"]}
    codes = read_codes(saved(tmp_path, **parts, weights=weights, observed=observed, family="laplace", **known))
    write_codes(tmp_path / "again.npz", codes)
    again = read_codes(tmp_path / "again.npz")
    for field in ("layout", "family", "label_names", "ids"):
        assert getattr(again, field) == getattr(codes, field)
    for field in ("weights", "observed", "labels"):
        assert torch.equal(getattr(again, field), getattr(codes, field))
    torch.testing.assert_close(again.mean, codes.mean, rtol=0, atol=0, equal_nan=True)
    assert again.loc[:5, :, 3].isnan().all()


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"scale": SCALE}, "found no loc, expected loc (or means), or <block>.loc for each block"),
        (
            {"z.loc": LOC, "w.scale": SCALE},
            "block w has no loc, expected loc for every block or for none",
        ),
        ({"labels": np.arange(3)}, "found no loc, expected loc (or means), or <block>.loc for each block"),
        (
            {"lco": LOC},
            "lco is not a known name (did you mean loc?); known: family, ids, label_names, labels, loc",
        ),
        ({"w.labels": LOC}, "w.labels is not a known name"),
        ({"loc": LOC, "means": LOC}, "means: found loc twice under two names, expected it once"),
        ({"loc": LOC[0]}, "loc of block z has shape (3,), expected (N, D) or (N, C, D)"),
        ({"loc": LOC.astype(str)}, "loc: found an array of type <U32, expected numbers"),
        ({"loc": LOC.astype(complex)}, "loc: found an array of type complex128, expected numbers"),
        ({"loc": LOC, "scale": SCALE[:, :2]}, "scale of block z has shape (20, 2), expected (20, 3) as loc"),
        ({"loc": LOC, "scale": -SCALE}, "scale holds numbers that are not positive and finite"),
        ({"loc": LOC * np.nan}, "loc holds NaN or infinity, expected finite numbers"),
        ({"loc": LOC * 1e300}, "loc holds NaN or infinity, expected finite numbers"),
        ({"loc": LOC[:0]}, "loc has shape (0, 1, 3), expected (N, C, D), none of them 0"),
        (
            {"z.loc": LOC, "w.loc": LOC[:9]},
            "loc of block w has shape (9, 3), expected (N, D) or (N, C, D), with N and C of all other blocks",
        ),
        (
            {"z.loc": LOC, "w.loc": LOC, "z.scale": SCALE},
            "block w has no scale, expected scale for every block or for none",
        ),
        ({"loc": LOC, "weights": np.ones((20, 2))}, "weights has shape (20, 2), expected (20, 1)"),
        ({"loc": MIXED, "weights": np.ones((20, 2))}, "weights must be probabilities that sum to 1"),
        (
            {"loc": LOC, "labels": np.ones(20)},
            "labels: found an array of type float64, expected whole numbers",
        ),
        ({"loc": LOC, "labels": np.arange(19)}, "labels has shape (19,), expected (20,)"),
        ({"loc": LOC, "labels": np.arange(20) - 2}, "labels run from -2 to 17, expected 0 to 17"),
        (
            {"loc": LOC, "labels": np.arange(20), "label_names": ["a"]},
            "labels run from 0 to 19, expected 0 to 0",
        ),
        ({"loc": LOC, "observed": np.ones((20, 2), bool)}, "observed has shape (20, 2), expected (20, 1)"),
        ({"loc": LOC, "ids": np.arange(20)}, "ids: found an array of type int64, expected texts"),
        ({"loc": LOC, "ids": ["a"]}, "found 1 ids, expected 20, one per row"),
        ({"loc": LOC, "observed": LOC}, "observed: found an array of type float64, expected true and false"),
        (
            {"loc": LOC, "scale": SCALE, "family": "cauchy"},
            "family is 'cauchy', expected one of normal, laplace",
        ),
        ({"loc": LOC, "family": "normal"}, "family: found no scale, expected a scale as well"),
        (
            {"loc": np.array([None, {}], object)},
            "loc: no array of numbers or texts found (Object arrays cannot be loaded",
        ),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, arrays: dict[str, Any], sentence: str) -> None:
    path = saved(tmp_path, **arrays)
    with pytest.raises(UserError, match=re.escape(f"{path}: {sentence}")) as error:
        read_codes(path)
    assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no such file or folder, expected a code folder or an \.npz"):
        read_codes(tmp_path / "codes.npz")
    np.save(tmp_path / "codes.npy", LOC)
    whole = saved(tmp_path, loc=LOC, scale=SCALE)
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:-50])
    (tmp_path / "text.npz").write_text("1, 2, 3")
    for name in ("codes.npy", "cut.npz", "text.npz"):
        with pytest.raises(UserError, match=r"this is not an \.npz file, .* as numpy\.savez writes it"):
            read_codes(tmp_path / name)
    content = bytearray(whole.read_bytes())
    content[200] ^= 1
    (tmp_path / "flipped.npz").write_bytes(content)
    with pytest.raises(UserError, match="loc: no array of numbers or texts found"):
        read_codes(tmp_path / "flipped.npz")


def test_differences_that_single_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    """A column that is constant but for rounding, or whose posteriors are wide, is read."""
    far = 1e4 + 1e-4 * LOC
    with pytest.raises(UserError, match=r"column 0 differ by 0\.0001 around 1e\+04, .* subtract"):
        read_codes(saved(tmp_path, loc=far))
    assert read_codes(saved(tmp_path, loc=far, scale=SCALE)).loc.isfinite().all()
    assert read_codes(saved(tmp_path, loc=np.full((20, 3), 0.3) + 1e-17 * LOC)).loc.isfinite().all()


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_precisions_are_read_as_single_precision(tmp_path: Path, kind: type) -> None:
    loc = LOC.astype(kind)
    codes = read_codes(saved(tmp_path, loc=loc))
    assert torch.equal(codes.loc[:, 0], torch.from_numpy(loc.astype(np.float32)))
