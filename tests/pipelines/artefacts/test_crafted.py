"""Artefacts whose hashes are right and whose content is not: one sentence from loading, and no memory is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import formats
from torch import Tensor

from postprior.pipelines.artefacts import autoencoder, density
from postprior.pipelines.artefacts.autoencoder import autoencoder_of
from postprior.pipelines.artefacts.density import density_of
from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import Artefact, load_artefact
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES

HOME = formats.FOLDER / "1"
FOLDERS = formats.autoencoders(HOME) | {path.name: path for path in HOME.glob("project/artefacts/densities/*")}
BUILDERS: dict[str, Callable[[Artefact, Path], object]] = {density.KIND: density_of, autoencoder.KIND: autoencoder_of}
HUGE = 10**12


def loaded(name: str) -> Artefact:
    return load_artefact(FOLDERS[name], density.KIND if name in DENSITIES else autoencoder.KIND)


def refuse(artefact: Artefact, name: str) -> str:
    """Build the object of an artefact that cannot be right, and return the sentence that says so."""
    with pytest.raises(UserError) as error:
        BUILDERS[artefact.manifest["kind"]](artefact, FOLDERS[name])
    assert str(error.value).startswith(f"{FOLDERS[name]}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


def spoilt(tensors: Mapping[str, Tensor], name: str) -> Iterator[Mapping[str, Tensor]]:
    """Yield the tensors with changes of one: its type, its shape, and without it."""
    tensor = tensors[name]
    others = [tensor.to(torch.int8), tensor.to(torch.float16), tensor.unsqueeze(-1)]
    if tensor.dim():
        others += [torch.cat([tensor, tensor[:1]]), tensor[:-1]]
    for other in others:
        if (other.shape, other.dtype) != (tensor.shape, tensor.dtype):
            yield {**tensors, name: other}
    yield {key: value for key, value in tensors.items() if key != name}


def test_every_class_is_here() -> None:
    assert FOLDERS.keys() == {*MODELS, *DENSITIES}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "every"])
@pytest.mark.parametrize("name", [*DENSITIES, *MODELS])
def test_another_tensor_is_refused(name: str, every: bool) -> None:
    """Of networks, which are rebuilt with each change, one tensor stands for all in the quick test."""
    artefact = loaded(name)
    BUILDERS[artefact.manifest["kind"]](artefact, FOLDERS[name])
    names = [key for key in sorted(artefact.tensors) if every or not key.startswith(("layers.", "network."))]
    for key in names if every or name in DENSITIES else names[:1]:
        for tensors in spoilt(artefact.tensors, key):
            refuse(replace(artefact, tensors=tensors), name)
    refuse(replace(artefact, tensors=artefact.tensors | {"other": torch.zeros(2)}), name)


SIZES = {"latent", "width", "private", "clusters", "hidden", "bins", "dcca"}
"""Options that set the size of a network."""


@pytest.mark.parametrize("name", [*DENSITIES, *MODELS])
def test_huge_sizes_are_refused_before_memory_is_taken(name: str) -> None:
    artefact = loaded(name)
    capped = {"latent"} if name in MODELS and not MODELS[name].shares else set()  # by the values of each modality
    for option in (SIZES & artefact.manifest["options"].keys()) - capped:
        manifest: dict[str, Any] = deepcopy(artefact.manifest)
        manifest["options"][option] = HUGE
        assert "expected at most" in refuse(replace(artefact, manifest=manifest), name), option
