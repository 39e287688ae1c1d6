"""Trained autoencoders of the user or of another library: wrap, try and rebuild them.

An artefact holds their tensors and how to build them again: an import path, or the digest of an object that only this
process has. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError, naming
from postprior.pipelines.publishing import write_bytes
from postprior.pipelines.settings.adaptation import adaptation
from postprior.pipelines.settings.params import Params
from postprior.stage1_vae.adapted import Adapted, Units
from postprior.stage1_vae.adapters import adaptable
from postprior.stage1_vae.distributions import LOG_SCALE
from postprior.stage1_vae.imports import UserCodeError, import_object, running
from postprior.stage1_vae.modalities import Batch

LIVE: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""Adapted objects of this process by digest, as long as something else keeps them."""
WEIGHTS = "weights.safetensors"
"""The weights in a project that was made from an autoencoder in memory."""
TRIED, FITTED = 2, 512
"""Rows that are tried, and rows that have a modality to which the scale of its likelihood is fitted, at most."""


def adapted_in(params: Params, data: Dataset, root: Path) -> Adapted:
    """Return the autoencoder that the model `adapted` of params.yaml names, with its weights, for training rows.

    Raises:
        UserError: it cannot be imported, or the weights are not its own.
        UserCodeError: a method fails, or returns what `Adaptable` does not describe.
    """
    settings = adaptation(params)
    model = built(settings.build, settings.options)
    if settings.weights is not None:
        _load_weights(model, root / settings.weights)
    return wrapped(model, data, {"build": settings.build, "options": settings.options})


def wrapped(model: Any, data: Dataset, origin: Mapping[str, Any] | None = None) -> Adapted:
    """Return a trained autoencoder for the training rows that it learned from.

    It is tried on two rows, and the scales of likelihoods that it gives by their locations are fitted.

    Args:
        model: a model of MultiVae, Pythae or scvi-tools, or an object with the methods of `Adaptable`.
        data: training rows.
        origin: how it is built again; None: it is known to this process alone, as long as something keeps the result.

    Raises:
        UserError: the object lacks methods, or has other modalities than the data.
        UserCodeError: a method fails, or returns what `Adaptable` does not describe.
    """
    try:
        source = adaptable(model, {m.name: m.shape for m in data.modalities})
        found = getattr(source, "modalities", None)
        names = [m.name for m in data.modalities]
        if found is not None and {*names} != {getattr(m, "name", m) for m in found}:
            given = ", ".join(str(getattr(m, "name", m)) for m in found)
            raise ValueError(f"model: found modalities {given}, expected those of the data, {', '.join(names)}")
        modalities = [replace(m, partial=m.name in data.cells) for m in data.modalities]
        adapted = Adapted(source, modalities, units=_units(data), origin=origin).eval()
    except ValueError as error:
        raise UserError(str(error)) from None
    if origin is None:
        digest = _digest(adapted)
        adapted.origin["object"] = digest
        LIVE[digest] = source
    rows = _observed_rows(data)
    adapted.tractable = _tried(adapted, _put_together(data, [np.resize(having, TRIED) for having in rows]))
    spread = [having[np.linspace(0, len(having) - 1, FITTED).astype(int)] for having in rows]
    adapted.fit_scales(data.batch(np.unique(np.concatenate(spread))))
    return adapted


def adapted_of(tensors: dict[str, Tensor], manifest: Mapping[str, Any]) -> Adapted:
    """Rebuild the autoencoder of an artefact.

    Raises:
        ValueError: its package cannot be imported, or it was an object of another process.
    """
    origin = manifest["adapted"]["origin"]
    if "build" in origin:
        shapes = {entry["name"]: tuple(entry["shape"]) for entry in manifest["modalities"]}
        return Adapted.from_state(adaptable(built(origin["build"], origin["options"]), shapes), tensors, manifest)
    if (source := LIVE.get(origin["object"])) is None:
        raise ValueError(
            "found an autoencoder that was an object of another process, expected one with an import path; adapt it "
            "again with build='package.module:function'"
        )
    return Adapted.from_state(source, tensors, manifest)


def built(path: str, options: Mapping[str, Any]) -> Any:
    """Call the user's function that returns the autoencoder."""
    if path.startswith("__main__:"):
        found = f"{path}, a function of the program that runs, which no other process can import"
        raise UserError(f"build: found {found}, expected one of a module: package.module:function")
    try:
        function = import_object(path)
    except ValueError as error:
        remedy = "install its package, or put its module into the folder of the project"
        raise UserError(f"the autoencoder {error}; {remedy}") from None
    with running(f"vae.options.adapted.build: {path}", f"an autoencoder for the options {dict(options)}"):
        return function(**options)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the tensors of a module to a safetensors file."""
    from safetensors.torch import save

    write_bytes(path, save({name: x.detach().cpu().clone().contiguous() for name, x in model.state_dict().items()}))


def _load_weights(model: Any, path: Path) -> None:
    """Load the tensors of a safetensors file into a module; tensors that share their memory may be there once."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not isinstance(model, nn.Module):
        found = f"{type(model).__name__} with weights {path.name}"
        raise UserError(f"vae.options.adapted: found {found}, expected a torch.nn.Module, or weights: null")
    try:
        with naming(path):
            tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error}); save the weights again") from None
    own = model.state_dict()
    places = {tensor.data_ptr() for name, tensor in own.items() if name in tensors}
    missing = [name for name, tensor in own.items() if name not in tensors and tensor.data_ptr() not in places]
    unknown = [name for name in tensors if name not in own]
    if missing or unknown:
        found = f"without {missing[0]}" if missing else f"with {unknown[0]}"
        raise UserError(f"{path}: found weights {found}, expected those of {type(model).__name__}; save them again")
    try:
        model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise UserError(f"{path}: {str(error).splitlines()[-1].strip()}; save the weights of this model") from None


def _observed_rows(data: Dataset) -> list[NDArray[np.int64]]:
    """Return the rows that have each modality; a UserError if none has one of them."""
    rows = [np.flatnonzero(has) for has in data.observed.T]
    for m, having in zip(data.modalities, rows, strict=True):
        if not len(having):
            raise UserError(f"data: found no training row with {m.title}, expected one on which the model can be tried")
    return rows


def _put_together(data: Dataset, rows: Sequence[NDArray[np.int64]]) -> Batch:
    """Return complete rows, with the values of each modality from rows that have it."""
    parts = {m.name: data.batch(chosen) for m, chosen in zip(data.modalities, rows, strict=True)}
    cells = {name: part.cells[name] for name, part in parts.items() if name in part.cells}
    everything = torch.ones(len(rows[0]), len(parts), dtype=torch.bool)
    return Batch({name: part.data[name] for name, part in parts.items()}, everything, cells)


def _units(data: Dataset) -> dict[str, Units]:
    """Return the units of the arrays of imported data; numbers of tables, and of other data, are their own values."""
    units = {}
    for name, entry in (data.conversion or {}).get("modalities", {}).items():
        if entry.get("kind", "").endswith("normalised_count"):
            expected = f"expected counts or kinds={{'{name}': 'numeric'}}"
            raise UserError(f"{name}: found normalised counts, which are read as counts, {expected}")
        if "offset" in entry:
            units[name] = Units(*(tuple(x) if isinstance(x, list) else x for x in (entry["offset"], entry["scale"])))
    return units


@torch.no_grad()
def _tried(model: Adapted, batch: Batch) -> bool:
    """Encode rows from all modalities and from each alone, and decode their codes.

    Returns whether log p(x) can be estimated.
    """
    every = torch.ones(1, len(model.modalities), dtype=torch.bool)
    q = model.posterior(batch, torch.cat([every, torch.eye(len(model.modalities), dtype=torch.bool)]))
    place = type(model.source).__name__
    for name, tensor in (("locations", q.components.loc), ("scales", q.components.scale)):
        if not bool(tensor.isfinite().all()) or (name == "scales" and not bool((tensor > 0).all())):
            raise UserCodeError(f"{place}.encode returned {name} that are not finite or not positive")
    for name, p in model.decode(q.mean[:, 0]).items():
        if not bool(p.mean.isfinite().all()):
            raise UserCodeError(f"{place}.decode returned values of {name} that are not finite")
    follow = not hasattr(model.source, "descend") and not hasattr(model.source, "candidates")
    return follow and float(q.components.scale.min()) > 1.01 * float(np.exp(LOG_SCALE[0]))


def _digest(model: Adapted) -> str:
    """Return a hash of the tensors and the class of an object, or of the object itself if it has no tensors."""
    tensors, _ = model.state()
    digest = hashlib.sha256(f"{type(model.source)} {'' if tensors else id(model.source)}".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
