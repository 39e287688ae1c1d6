"""Codes of other libraries: an .npz file in, an .npz file out.

    loc (or means)       (N, D), or (N, C, D) for posteriors that are mixtures of C components
    scale (or scales)    like loc: standard deviations; without it, loc holds draws
    family               normal, if not given, or laplace, whose scale is the parameter b
    weights              (N, C), of the components; equal if not given
    labels               (N,) whole numbers from 0, and label_names (K,), what they are called
    observed (or mask)   (N, blocks), false where a block of a row has no posterior; all true if not given
    ids                  (N,) texts

A code vector of several blocks has `<block>.loc` and `<block>.scale` of each, ordered as the columns of `observed`.
"""

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
FIELDS: dict[str, tuple[str, str, type]] = {  # kinds of NumPy's types, in words, and what they become
    "loc": ("fiu", "numbers", np.float32),
    "scale": ("fiu", "numbers", np.float32),
    "weights": ("fiu", "numbers", np.float32),
    "labels": ("iu", "whole numbers", np.int64),
    "label_names": ("U", "texts", np.str_),
    "observed": ("b", "true and false", np.bool_),
    "family": ("U", "a text", np.str_),
    "ids": ("U", "texts", np.str_),
}
ONLY = "z"  # the name of a block that the file gives none
Arrays = dict[str, np.ndarray]


def read_codes(path: Path) -> Codes:
    """The codes in an .npz file, whose prior is taken to be N(0, I); whatever is wrong with it is a UserError."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file or folder; expected a code folder or an .npz file")
    blocks, others = _sorted(read_arrays(path), path)
    loc, scale = _joined(blocks, "loc", path), _joined(blocks, "scale", path)
    assert loc is not None
    N, C, D = loc.shape
    if scale is None and "family" in others:
        raise UserError(f"{path}: family: found without a scale, expected scale too, or loc alone for draws")
    if len(blocks) == 1 and "observed" in others and others["observed"].shape == (N,):
        others["observed"] = others["observed"][:, None]
    given = {name: torch.from_numpy(array) for name, array in others.items() if array.dtype.kind != "U"}
    names, ids = others.get("label_names"), others.get("ids")
    try:
        return Codes(
            layout=tuple(Block(name, parts["loc"].shape[-1:]) for name, parts in blocks.items()),
            family=EMPIRICAL if scale is None else str(others.get("family", "normal")),
            loc=torch.from_numpy(loc),
            scale=None if scale is None else torch.from_numpy(scale),
            weights=given.get("weights", torch.full((N, C), 1 / C)),
            observed=given.get("observed", torch.ones(N, len(blocks), dtype=torch.bool)),
            prior=Mixture.single(Normal(torch.zeros(D), torch.ones(D))),
            labels=given.get("labels"),
            ids=None if ids is None else ids.tolist(),
            label_names=None if names is None else tuple(names.tolist()),
        )
    except ValueError as error:
        told = str(error).removeprefix("codes: ").removesuffix(": encode the data again")
        raise UserError(f"{path}: {told}") from None


def write_codes(path: Path, codes: Codes) -> None:
    """Publish codes as an .npz file; what `read_codes` takes for granted is left out.

    Blocks of several axes are flattened, and hold NaN in rows where they have no posterior.
    """
    arrays: Arrays = {}
    unknown = ~codes.known().unsqueeze(1)  # (N, 1, D)
    for field, whole in (("loc", codes.loc), ("scale", codes.scale)):
        if whole is not None:
            for name, part in split_blocks(codes.layout, whole.masked_fill(unknown, np.nan)).items():
                key = f"{name}.{field}" if len(codes.layout) > 1 else field
                arrays[key] = (part[:, 0].flatten(1) if part.shape[1] == 1 else part.flatten(2)).numpy()
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


def _sorted(arrays: dict[str, np.ndarray], path: Path) -> tuple[dict[str, Arrays], Arrays]:
    """The arrays of each block, and those of all."""
    blocks: dict[str, Arrays] = {}
    others: Arrays = {}
    for key, array in arrays.items():
        name, _, field = key.rpartition(".")
        field = OTHER_NAMES.get(field, field)
        of_block = field in OF_BLOCKS
        if field not in FIELDS or (name and not of_block):
            known = [*FIELDS, *OTHER_NAMES]
            raise UserError(f"{path}: {key} is not a known name{hint(key, known)}; known: {listed(known)}")
        kinds, words, kind = FIELDS[field]
        if array.dtype.kind not in kinds:
            raise UserError(f"{path}: {key}: found an array of type {array.dtype}, expected {words}")
        group = blocks.setdefault(name or ONLY, {}) if of_block else others
        if field in group:
            raise UserError(f"{path}: {key}: found {field} twice under two names, expected it once")
        with np.errstate(over="ignore"):  # beyond the range it is infinite, and refused as such
            group[field] = array.astype(kind)
    return blocks, others


def _joined(blocks: dict[str, Arrays], field: str, path: Path) -> np.ndarray | None:
    """One array (N, C, D) of the blocks side by side; None where none of them has it."""
    having = [name for name, parts in blocks.items() if field in parts]
    if field == "scale" and not having:
        return None
    if not having:
        raise UserError(f"{path}: found no loc, expected loc (or means), or <block>.loc of each block")
    for name, parts in blocks.items():
        array, first = parts.get(field), parts.get("loc")
        if array is None or first is None:
            lacking = "loc" if first is None else field
            raise UserError(f"{path}: block {name} has no {lacking}, expected {lacking} of every block or of none")
        like = first if field == "scale" else blocks[having[0]]["loc"]
        shape = like.shape if field == "scale" else (*like.shape[:-1], *array.shape[-1:])
        if array.ndim not in (2, 3) or array.shape != shape:
            expected = f"{shape} as loc" if field == "scale" else "(N, D) or (N, C, D), N and C those of all blocks"
            raise UserError(f"{path}: {field} of block {name} has shape {array.shape}, expected {expected}")
    joined = np.concatenate([parts[field] for parts in blocks.values()], axis=-1)
    return joined if joined.ndim == 3 else joined[:, None]
