"""Everything after training for an autoencoder that is trained already, on data in memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from postprior.pipelines.api.generator import Generator
from postprior.pipelines.api.objects import in_python
from postprior.pipelines.api.synthesise import imported, learn, new_project, steps
from postprior.pipelines.artefacts.adapted import WEIGHTS, built, save_weights, wrapped
from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import SHARES
from postprior.pipelines.data.rows import Stored
from postprior.pipelines.data.shards import Shards
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.params import ADAPTED, Params
from postprior.stage1_vae.adapted import Adapted


def adapt(
    model: Any,
    data: Any,
    label: Any = None,
    *,
    held_out: Any = None,
    density: str | None = None,
    build: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    ids: Any = None,
    roles: Roles | None = None,
    shares: tuple[float, float] = SHARES,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Generator:
    """Fit a density to the codes of a trained autoencoder, and return the generator.

    The autoencoder is copied and never changed. It reads values as the data have them, with channels first; of data
    frames, it reads the columns as dataset folders hold them.

    Args:
        model: A model of MultiVae, Pythae or scvi-tools, or any object with the methods of `postprior.Adaptable`.
        data: The rows that it was trained on, as `synthesise` takes them; or a dataset of MultiVae, with its labels and
            masks. Tensors are arrays.
        label: As in `synthesise`.
        held_out: Rows that it was not trained on, for validation and test: arrays like those of `data`, or a pair of
            them and their labels, or a dataset of MultiVae. None: some of the rows of `data`; scores are then those of
            rows on which the autoencoder was trained.
        density: As in `synthesise`.
        build: The import path package.module:function of a function that returns the same autoencoder, untrained.
            `Generator.save` needs it: a saved folder holds tensors and this path, and no pickle.
        options: Keyword arguments of that function.
        seed: Seed of the split and of the fit.
        ids, roles, shares, settings, progress: As in `synthesise`; with `held_out`, there are no shares.

    Raises:
        UserError: The data, the autoencoder or an argument is invalid; the message says how to mend it.
        UserCodeError: A method of the autoencoder fails or returns what `Adaptable` does not describe.
    """
    home = TemporaryDirectory(prefix="postprior-")
    root = Path(home.name)
    entry: dict[str, Any] = {}
    if build is not None:
        entry = {"build": build, "weights": None, "options": dict(options or {})}
        model = _rebuilt(model, build, entry["options"])
        if isinstance(model, nn.Module):
            entry["weights"] = WEIGHTS
            save_weights(model, root / WEIGHTS)
    elif isinstance(model, nn.Module):
        model = copy.deepcopy(model).cpu()
    kept: list[Adapted] = []

    def trained(params: Params, train: Dataset, validation: Dataset) -> tuple[Adapted, list[dict[str, Any]]]:
        origin = None if build is None else {"build": build, "options": entry["options"]}
        kept.append(wrapped(model, train, origin))
        return kept[0], []

    with in_python(), steps("adapt", progress) as step:
        rows = _rows(data, label)
        split = None
        if held_out is not None:
            others = _rows(*held_out) if isinstance(held_out, tuple) else _rows(held_out, None)
            rows, split = _with_held_out(rows, others, seed)
        splits = imported(root, rows.data, rows.label, ids, roles, shares, seed, split)
        chosen = {"seed": seed, "vae.model": ADAPTED, f"vae.options.{ADAPTED}": entry, **dict(settings or {})}
        params = new_project(root, splits, chosen, density)
        learn(params, splits, root, trained, step)
        generator = Generator.load(root)
    generator.home = home
    return generator


class Rows(NamedTuple):
    """Data as `synthesise` takes them."""

    data: Any
    label: Any


def _rows(data: Any, label: Any) -> Rows:
    """Return data with tensors as arrays; a dataset of MultiVae brings its labels and masks."""
    if not isinstance(data, Mapping) and isinstance(getattr(data, "data", None), Mapping):
        found = getattr(data, "labels", None)
        masks = getattr(data, "masks", {})
        arrays = {name: _masked(_array(values), masks.get(name)) for name, values in data.data.items()}
        return Rows(arrays, _array(found) if label is None and found is not None else label)
    if isinstance(data, Mapping):
        return Rows({name: _array(values) for name, values in data.items()}, _array(label))
    return Rows(_array(data), _array(label))


def _array(value: Any) -> Any:
    if isinstance(value, Stored | Shards):
        return np.asarray(value)
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _masked(values: Values, mask: Any) -> Values:
    """Return values (N, …) that are NaN in the rows that a mask (N,) does not have."""
    if mask is None or (has := np.asarray(mask, bool)).all():
        return values
    return np.where(has.reshape(-1, *[1] * (values.ndim - 1)), values, np.float32(np.nan))


def _with_held_out(rows: Rows, held_out: Rows, seed: int) -> tuple[Rows, list[str]]:
    """Return all rows and the split of each: a third of the rows that are held out is for validation."""
    if not (isinstance(rows.data, Mapping) and all(isinstance(x, np.ndarray) for x in rows.data.values())):
        raise UserError("held_out: found data that are no arrays by name, expected {name: array} for both")
    if not isinstance(held_out.data, Mapping) or rows.data.keys() != held_out.data.keys():
        raise UserError(f"held_out: found other modalities than {', '.join(rows.data)}, expected the same")
    data = {name: np.concatenate([x, np.asarray(held_out.data[name])]) for name, x in rows.data.items()}
    few, count = (len(next(iter(part.data.values()))) for part in (rows, held_out))
    order = np.random.default_rng(seed).permutation(count)
    split = np.where(order < count // 3, SPLITS[1], SPLITS[2])
    if (rows.label is None) != (held_out.label is None):
        raise UserError("held_out: found labels of one part only, expected those of both: held_out=(data, labels)")
    label = None if rows.label is None else np.concatenate([np.asarray(x) for x in (rows.label, held_out.label)])
    return Rows(data, label), [*[SPLITS[0]] * few, *split.tolist()]


def _rebuilt(model: Any, path: str, options: Mapping[str, Any]) -> Any:
    """Build the autoencoder again and give it the tensors of the trained one."""
    again = built(path, options)
    if type(again) is not type(model):
        found = f"{path} returned {type(again).__name__}"
        raise UserError(f"build: found that {found}, expected {type(model).__name__}, as the model that is given")
    if isinstance(model, nn.Module):
        try:
            again.load_state_dict(model.state_dict())
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"build: {path} returned other tensors than the model has: {reason}") from None
    return again
