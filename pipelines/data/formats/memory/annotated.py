"""AnnData and MuData: they are written to a file in memory and read as such a file, and made from an exported file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from postprior.pipelines.data.formats.contents import Roles, SourceContents
from postprior.pipelines.data.formats.files import optional
from postprior.pipelines.data.formats.omics.reading import read_group

SUFFIXES = {"AnnData": ".h5ad", "MuData": ".h5mu"}
"""Suffixes of the files by the name of the class."""


def suffix_of(value: Any) -> str | None:
    """Return the suffix of the files of an object; None if it is neither AnnData nor MuData."""
    kinds = {base.__name__: base.__module__.partition(".")[0] for base in type(value).__mro__}
    return next((suffix for name, suffix in SUFFIXES.items() if kinds.get(name) == name.lower()), None)


def read(name: str, value: Any, roles: Roles) -> list[SourceContents]:
    """Return the contents of AnnData or MuData; its `obs_names` identify the rows."""
    with _in_memory(value) as group:
        return read_group(Path(name + str(suffix_of(value))), group, roles)


@contextmanager
def _in_memory(value: Any) -> Iterator[Any]:
    """Yield a file in memory that holds an object in its published layout."""
    anndata, h5py = optional("anndata", "anndata", "AnnData"), optional("h5py", "omics", "AnnData")
    nullable = "allow_write_nullable_strings"  # the type of texts in pandas 3
    allowed = anndata.settings.override(**{nullable: True}) if hasattr(anndata.settings, nullable) else nullcontext()
    with allowed, h5py.File("memory", "w", driver="core", backing_store=False) as file:
        if suffix_of(value) == ".h5ad":
            anndata.io.write_elem(file, "/", value)
            _without_nothing(file)
        else:
            file.attrs["axis"] = value.axis
            modalities = file.create_group("mod")
            modalities.attrs["mod-order"] = list(value.mod)
            for name, part in value.mod.items():
                anndata.io.write_elem(modalities, name, part)
                _without_nothing(modalities[name])
            anndata.io.write_elem(file, "obs", value.obs)
            anndata.io.write_elem(file, "obsm", {name: value.obsm[name] for name in value.mod if name in value.obsm})
        yield file


def _without_nothing(group: Any) -> None:
    """Remove `raw` if it is None, which files leave out."""
    if "raw" in group and group["raw"].attrs.get("encoding-type") == "null":
        del group["raw"]


@contextmanager
def exported(suffix: str) -> Iterator[tuple[Path, Any]]:
    """Yield the path of a file to write, and the function that then reads it into memory."""
    module, reader = ("anndata", "read_h5ad") if suffix == ".h5ad" else ("mudata", "read_h5mu")
    read = getattr(optional(module, "anndata", f"to_{module}"), reader)
    with TemporaryDirectory(prefix="postprior-") as folder:
        yield Path(folder) / f"samples{suffix}", read
