"""The whole product on data in memory: from data frames, AnnData, MuData or arrays to a generator in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from postprior.pipelines.api.choice.rules import settings as suited_settings
from postprior.pipelines.api.fitting import fit_density
from postprior.pipelines.api.generator import Generator
from postprior.pipelines.api.init import write_project
from postprior.pipelines.api.objects import in_python
from postprior.pipelines.artefacts.autoencoder import History, build, load_autoencoder, save_autoencoder
from postprior.pipelines.artefacts.codes import encoded, save_codes
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.formats import memory
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import SHARES, import_contents
from postprior.pipelines.data.sources.folders import read_folders
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.training import train_autoencoder
from postprior.pipelines.progress import hidden, progress
from postprior.pipelines.settings.checks import check_density, check_model, load_params
from postprior.pipelines.settings.params import Params
from postprior.pipelines.settings.round_trip import TEMPLATES
from postprior.stage1_vae.model import MultimodalVAE

DATA = "data"
"""The folder of the data in a project that is made from data in memory."""
SPLIT = "split"
"""The column that assigns rows to splits, if they are given."""
SETTINGS = {"model": "vae.model", "epochs": "train.epochs", "device": "train.device", "seed": "seed"}
"""Arguments of `synthesise` and the settings in params.yaml that they change."""


def synthesise(
    data: Any,
    label: Any = None,
    *,
    model: str | None = None,
    density: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str | None = None,
    ids: Any = None,
    roles: Roles | None = None,
    shares: tuple[float, float] = SHARES,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Generator:
    """Learn data in memory: train an autoencoder, fit a density to its codes, and return the generator.

    The data are read as `postprior import` reads files, and the settings are those of `postprior init`, apart from the
    arguments. The same data, arguments and seed give the same samples, byte for byte.

    Args:
        data: One object for each modality, {name: object}, or one object: a data frame of pandas, AnnData, MuData or an
            array (N, …) of vectors (X), images (H, W), (C, H, W) or (H, W, C), or volumes (C, D, H, W). The index of a
            data frame and the names of the cells of AnnData identify rows: rows of several objects are joined by them,
            and a row that an object does not have lacks its modality. NaN, None and NA are missing values. Or the
            datasets "train", "validation" and "test" by name, as a function in `SOURCES` returns them.
        label: The column of class labels; or labels by id, as a series or mapping; or one for each row of the first
            object, as an array.
        model: A name in `MODELS`; None: that of `postprior init`.
        density: An entry of `density` in params.yaml, such as "gmm", "flow" or "auto"; None: that of `postprior init`.
        epochs: Passes over the training rows; None: as many as suit the number of rows.
        seed: Seed of the split, of the initial weights and of the fit.
        device: "cpu", "cuda", "cuda:1", "mps" or "auto", for training.
        ids: Ids of the rows of arrays, for all or by name; by default those of the first data frame, AnnData or MuData.
        roles: Further roles of columns, such as Roles(group="family", skip=("note",), kinds={"stage": "categorical"}).
        shares: The shares of rows that are held out for validation and test.
        settings: Further settings by dotted key of params.yaml, such as {"vae.latent": 16}.
        progress: Whether the progress is shown on stderr.

    Raises:
        UserError: The data or an argument is invalid; the message says how to mend it.

    Example:
        >>> import numpy as np, pandas as pd
        >>> rng = np.random.default_rng(0)
        >>> labs = pd.DataFrame({"crp": rng.lognormal(size=60).round(1), "sex": rng.choice(["f", "m"], 60)})
        >>> generator = synthesise({"labs": labs}, epochs=1, density="gaussian", progress=False)
        >>> generator.sample(3).to_pandas().columns.tolist()
        ['crp', 'sex']
    """
    home = TemporaryDirectory(prefix="postprior-")
    root = Path(home.name)
    with in_python(), steps("synthesise", progress) as step:
        splits = imported(root, data, label, ids, roles, shares, seed)
        given = {"model": model, "epochs": epochs, "device": device, "seed": seed}
        chosen = {SETTINGS[key]: value for key, value in given.items() if value is not None} | dict(settings or {})
        params = new_project(root, splits, chosen, density)
        check_model(params, params.vae.model)
        learn(params, splits, root, _trained, step)
        generator = Generator.load(root)
    generator.home = home
    return generator


def imported(
    root: Path,
    data: Any,
    label: Any,
    ids: Any,
    roles: Roles | None,
    shares: tuple[float, float],
    seed: int,
    split: Sequence[str] | None = None,
) -> dict[str, Dataset]:
    """Import data in memory into a project and return its splits; see `synthesise` for the arguments.

    `split` assigns each row to a split; None: rows are split at random.
    """
    if isinstance(data, Mapping) and data and all(isinstance(rows, Dataset) for rows in data.values()):
        return saved(root, data, label, ids, roles)
    name = label if isinstance(label, str) else None if label is None else getattr(label, "name", None) or "label"
    roles = replace(roles or Roles(), label=name or (roles.label if roles else None), nan_is_missing=True)
    objects = memory.named(data)
    contents = memory.read(objects, roles, ids, None if isinstance(label, str) else label)
    files = dict.fromkeys(source.place.partition("/")[0] for source in contents)
    if split is not None:
        roles = replace(roles, split=SPLIT)
        contents.append(memory.column(SPLIT, split, contents, roles))
    import_contents(contents, list(files), root / DATA, roles, shares, seed)
    return read_folders(seed, root, DATA)


def saved(root: Path, splits: Mapping[str, Dataset], label: Any, ids: Any, roles: Roles | None) -> dict[str, Dataset]:
    """Save datasets by split as the data of a project and return them; they have their labels, ids and roles."""
    if splits.keys() != set(SPLITS):
        raise UserError(f"data: found datasets {', '.join(splits)}, expected {', '.join(SPLITS)}")
    if any(argument is not None for argument in (label, ids, roles)):
        raise UserError("data: found datasets with label, ids or roles, expected datasets alone, which have their own")
    for split, rows in splits.items():
        rows.save(root / DATA / split)
    return read_folders(0, root, DATA)


def new_project(root: Path, splits: Mapping[str, Dataset], chosen: Mapping[str, Any], density: str | None) -> Params:
    """Write the settings of a project for imported data, with `density` as its first density, and return them."""
    tree = {"profile": "quick", **suited_settings(splits, chosen.get("vae.model")), **chosen}
    if density is not None:
        tree["densities"] = [density, *(other for other in tree["densities"] if other != density)]
    write_project(root, DATA, tree)
    return load_params(root / TEMPLATES[0])


def learn(
    params: Params, splits: Mapping[str, Dataset], root: Path, trained: Callable[..., tuple[Any, History]], step: Any
) -> None:
    """Fit the first density to the codes of an autoencoder, and save both in a project.

    `trained` returns the autoencoder, for settings and training and validation rows, and the metrics of its epochs.
    """
    project, name = Project(root), params.densities[0]
    check_density(params, name)
    for split, rows in splits.items():
        rows.save(project.artefacts.data / split)
    splits = project.splits()
    step("data")
    train = splits["train"]
    model, history = trained(params, train, splits["validation"])
    save_autoencoder(project, model, params, train, train.hash, history)
    step("autoencoder")
    model, artefact = load_autoencoder(project.artefacts.autoencoder)
    for split, table in encoded(model, splits, params.encode.components, params.seed):
        save_codes(project.artefacts.codes / split, table, {"autoencoder": artefact.hash, "data": splits[split].hash})
    fit_density(name, params, project)
    step("density")


def _trained(params: Params, train: Dataset, validation: Dataset) -> tuple[MultimodalVAE, History]:
    model = build(params, train)
    return model, train_autoencoder(model, train, validation, params)


@contextmanager
def steps(title: str, shown: bool) -> Iterator[Any]:
    """Show the progress of the whole as one task, or none."""
    with nullcontext() if shown else hidden(), progress(title, 3) as step:
        yield step
