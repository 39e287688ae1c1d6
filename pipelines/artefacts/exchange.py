"""Read codes of other libraries from .npz files, and write codes to .npz files.

    loc (or means)       (N, D), or (N, C, D) for posteriors that are mixtures of C components
    scale (or scales)    standard deviations, shaped like loc; without scale, loc holds draws
    family               normal (the default), or laplace, whose scale is the parameter b
    weights              (N, C), weights of the components; equal by default
    labels               (N,) whole numbers from 0, −1 for rows without a label; label_names (K,) are their names
    observed (or mask)   (N, blocks), false where a block of a row has no posterior; all true by default
    ids                  (N,) texts

A code vector of several blocks has `<block>.loc` and `<block>.scale` for each block, in the order of the columns of
`observed`.
"""

import warnings
from pathlib import Path

import numpy as np
import torch

from postprior.pipelines.data.arrays import read_arrays
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import publish_file
from postprior.pipelines.settings.names import hint, listed
from postprior.stage1_vae.distributions import Block, Mixture, Normal
from postprior.stage2_latent.codes import EMPIRICAL, Codes
from postprior.stage2_latent.layouts import split_blocks

OTHER_NAMES = {"means": "loc", "scales": "scale", "mask": "observed"}
OF_BLOCKS = ("loc", "scale")
FIELDS: dict[
    str, tuple[str, str, type]
] = {  # allowed kinds of NumPy types, their description, and the type after reading
    "loc": ("fiu", "numbers", np.float64),
    "scale": ("fiu", "numbers", np.float64),
    "weights": ("fiu", "numbers", np.float32),
    "labels": ("iu", "whole numbers", np.int64),
    "label_names": ("U", "texts", np.str_),
    "observed": ("b", "true and false", np.bool_),
    "family": ("U", "a text", np.str_),
    "ids": ("U", "texts", np.str_),
}
ONLY = "z"  # name of the block if the file does not name blocks
Arrays = dict[str, np.ndarray]


def read_codes(path: Path) -> Codes:
    """Read the codes in an .npz file and set their prior to N(0, I); raise a UserError if the file is invalid."""
    if not path.is_file():
        raise UserError(f"{path}: found no such file or folder, expected a code folder or an .npz file")
    blocks, shared = _group_arrays(read_arrays(path), path)
    loc, scale = _join_blocks(blocks, "loc", path), _join_blocks(blocks, "scale", path)
    assert loc is not None
    exact = loc, scale
    with np.errstate(over="ignore"):  # values beyond the range become infinite, which is an error later
        loc, scale = loc.astype(np.float32), None if scale is None else scale.astype(np.float32)
    N, C, D = loc.shape
    if scale is None and "family" in shared:
        raise UserError(f"{path}: family: found no scale, expected a scale as well, or loc without family for draws")
    if len(blocks) == 1 and "observed" in shared and shared["observed"].shape == (N,):
        shared["observed"] = shared["observed"][:, None]
    tensors = {name: torch.from_numpy(array) for name, array in shared.items() if array.dtype.kind != "U"}
    names, ids = shared.get("label_names"), shared.get("ids")
    try:
        codes = Codes(
            layout=tuple(Block(name, arrays["loc"].shape[-1:]) for name, arrays in blocks.items()),
            family=EMPIRICAL if scale is None else str(shared.get("family", "normal")),
            loc=torch.from_numpy(loc),
            scale=None if scale is None else torch.from_numpy(scale),
            weights=tensors.get("weights", torch.full((N, C), 1 / C)),
            observed=tensors.get("observed", torch.ones(N, len(blocks), dtype=torch.bool)),
            prior=Mixture.single(Normal(torch.zeros(D), torch.ones(D))),
            labels=tensors.get("labels"),
            ids=None if ids is None else ids.tolist(),
            label_names=None if names is None else tuple(names.tolist()),
        )
    except ValueError as error:
        message = str(error).removeprefix("codes: ").removesuffix(": encode the data again")
        raise UserError(f"{path}: {message}") from None
    _check_precision(*exact, path)
    return codes


def write_codes(path: Path, codes: Codes) -> None:
    """Publish codes as an .npz file; arrays that equal the defaults of `read_codes` are left out.

    Blocks with several axes are flattened. They hold NaN in rows without a posterior of the block.
    """
    arrays: Arrays = {}
    unknown = ~codes.known().unsqueeze(1)  # (N, 1, D)
    for field, joined in (("loc", codes.loc), ("scale", codes.scale)):
        if joined is not None:
            for name, block in split_blocks(codes.layout, joined.masked_fill(unknown, np.nan)).items():
                key = f"{name}.{field}" if len(codes.layout) > 1 else field
                arrays[key] = (block[:, 0].flatten(1) if block.shape[1] == 1 else block.flatten(2)).numpy()
    if codes.scale is not None:
        arrays["family"] = np.array(codes.family)
    if codes.loc.shape[1] > 1:
        arrays["weights"] = codes.weights.numpy()
    if bool(unknown.any()):
        arrays["observed"] = codes.observed.numpy()
    if codes.labels is not None:
        arrays["labels"] = codes.labels.numpy()
    for field, texts in (("label_names", codes.label_names), ("ids", codes.ids)):
        if texts is not None:
            arrays[field] = np.array(texts)
    with publish_file(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def _group_arrays(arrays: dict[str, np.ndarray], path: Path) -> tuple[dict[str, Arrays], Arrays]:
    """Return the arrays of each block, and the arrays shared by all blocks."""
    blocks: dict[str, Arrays] = {}
    shared: Arrays = {}
    for key, array in arrays.items():
        name, _, field = key.rpartition(".")
        field = OTHER_NAMES.get(field, field)
        of_block = field in OF_BLOCKS
        if field not in FIELDS or (name and not of_block):
            names = [*FIELDS, *OTHER_NAMES]
            raise UserError(f"{path}: {key} is not a known name{hint(key, names)}; known: {listed(names)}")
        kinds, description, kind = FIELDS[field]
        if array.dtype.kind not in kinds:
            raise UserError(f"{path}: {key}: found an array of type {array.dtype}, expected {description}")
        group = blocks.setdefault(name or ONLY, {}) if of_block else shared
        if field in group:
            raise UserError(f"{path}: {key}: found {field} twice under two names, expected it once")
        group[field] = array.astype(kind)
    return blocks, shared


def _join_blocks(blocks: dict[str, Arrays], field: str, path: Path) -> np.ndarray | None:
    """Concatenate a field of all blocks to one array (N, C, D); return None if no block has a scale."""
    names = [name for name, arrays in blocks.items() if field in arrays]
    if field == "scale" and not names:
        return None
    if not names:
        raise UserError(f"{path}: found no loc, expected loc (or means), or <block>.loc for each block")
    for name, arrays in blocks.items():
        array, loc = arrays.get(field), arrays.get("loc")
        if array is None or loc is None:
            missing = "loc" if loc is None else field
            raise UserError(f"{path}: block {name} has no {missing}, expected {missing} for every block or for none")
        like = loc if field == "scale" else blocks[names[0]]["loc"]
        shape = like.shape if field == "scale" else (*like.shape[:-1], *array.shape[-1:])
        if array.ndim not in (2, 3) or array.shape != shape:
            expected = (
                f"{shape} as loc" if field == "scale" else "(N, D) or (N, C, D), with N and C of all other blocks"
            )
            raise UserError(f"{path}: {field} of block {name} has shape {array.shape}, expected {expected}")
    joined = np.concatenate([arrays[field] for arrays in blocks.values()], axis=-1)
    return joined if joined.ndim == 3 else joined[:, None]


def _check_precision(loc: np.ndarray, scale: np.ndarray | None, path: Path) -> None:
    """Raise a UserError if float32 cannot hold the differences between the values of a column of loc (N, C, D)."""
    with np.errstate(over="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns of which no row has a value
        variance = np.nanvar(loc, axis=(0, 1)) + (0 if scale is None else np.nanmean(scale**2, axis=(0, 1)))
        largest = np.nanmax(np.abs(loc), axis=(0, 1))
        spread, spacing = np.sqrt(variance), np.spacing(largest.astype(np.float32))
    for column in np.flatnonzero((spread > 1e-12 * largest) & (spread < spacing)):  # below, the column is constant
        raise UserError(
            f"{path}: loc: the values of column {column} differ by {spread[column]:.1g} around {largest[column]:.1g}, "
            "which single precision cannot hold, expected larger differences: subtract the mean of the column"
        )
