"""Tables of codes: joined from blocks of rows in files, and loaded without a copy in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.latent import labelled

from postprior.pipelines.artefacts.codes import joined, load_codes, save_codes
from postprior.stage1_vae.distributions import Laplace, Mixture


def test_rows_of_blocks_with_different_numbers_of_components_keep_their_densities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Large tables lie in files; components of weight 0 change no density."""
    monkeypatch.setattr("postprior.pipelines.data.arrays.LARGE", 1)
    rng, mixtures, blocks = np.random.default_rng(0), [], []
    for start, count in ((0, 2), (4, 1), (8, 3), (12, 2)):
        loc, scale = rng.normal(size=(4, count, 2)), rng.uniform(0.5, 2, (4, count, 2))
        weights = rng.dirichlet(np.ones(count), 4)
        mixtures.append(Mixture(torch.from_numpy(weights), Laplace(torch.from_numpy(loc), torch.from_numpy(scale))))
        family = np.frombuffer(b"laplace", np.uint8)
        blocks.append((start, {"weights": weights, "loc": loc, "scale": scale, "family": family}))
    columns, family = joined(blocks, 16)
    assert family == "laplace"
    assert all(isinstance(column, np.memmap) for column in columns.values())
    weights, loc, scale = (torch.from_numpy(columns[name]) for name in ("weights", "loc", "scale"))
    z = torch.from_numpy(rng.normal(size=(16, 2)))
    expected = torch.cat([q.log_prob(part) for q, part in zip(mixtures, z.split(4), strict=True)])
    torch.testing.assert_close(Mixture(weights, Laplace(loc, scale)).log_prob(z), expected)


def test_loaded_codes_are_mapped_and_what_is_written_to_them_stays_in_memory(tmp_path: Path) -> None:
    codes, _ = labelled(40, seed=0)
    save_codes(tmp_path / "codes", codes, {})
    before = (tmp_path / "codes/loc.npy").read_bytes()
    loaded = load_codes(tmp_path / "codes")
    assert f"{tmp_path}/codes/loc.npy" in Path("/proc/self/maps").read_text()
    assert torch.equal(loaded.loc, codes.loc)
    loaded.loc.add_(1)
    assert (tmp_path / "codes/loc.npy").read_bytes() == before
