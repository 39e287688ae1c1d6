"""Read and write JSON files, arrays and artefacts, and compute the hashes that identify them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

import numpy as np

from postprior.pipelines.errors import UserError, as_user_error, naming
from postprior.pipelines.publishing import publish, publish_file, write_text

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Version of the format of artefacts and dataset folders. It rises when an older version would misread a new folder, or
this version an older one; it does not rise for a new file or key that may be absent. `check_format` then brings an
older folder up to date, or refuses it in one sentence; tests/fixtures/formats has folders of every version."""
MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"
Read = TypeVar("Read")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be written to a JSON file: {value!r}")


def write_json(path: Path, value: Any, sort_keys: bool = True) -> None:
    """Write a JSON file, with the same bytes for the same value; NaN and infinity raise a ValueError."""
    text = json.dumps(value, sort_keys=sort_keys, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file; a file that is missing, truncated or not an object raises a UserError."""
    try:
        with naming(path):
            value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; run the stage that makes it, or correct the path.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON file that can be read ({error}); make it again.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: found a {type(value).__name__}, expected a JSON object; make it again.")
    return value


PIECE = 1 << 24
"""Bytes of the pieces in which arrays are written that are not in memory."""


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


class ArrayWriter:
    """Write an .npy file of a known shape in pieces, without the whole array in memory.

    The file is open only while a piece is written, so that any number of files can be written side by side.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     writer = ArrayWriter(Path(root, "a.npy"), (3, 2), np.float32)
    ...     writer.write(0, np.ones((2, 2)))
    ...     writer.write(2, np.zeros((1, 2)))
    ...     load_array(Path(root, "a.npy")).tolist()
    [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        with naming(path), open(path, "wb") as file:
            _write_header(file, shape, self.dtype)
            self._origin = file.tell()

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write `rows` (n, *shape[1:]) to rows start … start + n."""
        rows = np.ascontiguousarray(rows, self.dtype)
        if rows.shape[1:] != self.shape[1:] or not 0 <= start <= self.shape[0] - len(rows):
            raise ValueError(f"rows {rows.shape} at {start} do not fit into an array of shape {self.shape}")
        with naming(self.path), open(self.path, "r+b") as file:
            file.seek(self._origin + start * self.dtype.itemsize * int(np.prod(self.shape[1:])))
            file.write(rows.data)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file in C order; an array of objects, which would need a pickle, raises a ValueError.

    Anything else that has a shape, a type and slices of rows is written in pieces.
    """
    if array.dtype.hasobject:
        raise ValueError(f"{path}: an array of objects would need a pickle; give it a dtype of fixed size")
    with publish_file(path) as file:
        _write_header(file, array.shape, array.dtype)
        for rows in _pieces(array):
            file.write(np.ascontiguousarray(rows).data)  # not NumPy's tofile, whose errors do not say what failed


def _pieces(array: Any) -> Iterator[np.ndarray]:
    if isinstance(array, np.ndarray):
        yield array
        return
    step = max(1, PIECE // (array.dtype.itemsize * int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), step):
        yield array[start : start + step]


def load_array(path: Path, mmap_mode: Literal["r", "c"] | None = "r") -> np.ndarray:
    """Read the array in an .npy file, memory-mapped: read-only, or with "c" such that changes stay in memory.

    If `mmap_mode` is None, the array is in memory.

    Raises:
        UserError: the file is missing, truncated, a pickle or an array of objects.
    """
    try:
        with naming(path):
            array = np.lib.format.open_memmap(path, mode=mmap_mode or "r")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: this array is missing; make the folder again with all its files.") from None
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path}: not a complete .npy array ({error}); pickles and truncated files are refused, "
            "write it again with numpy.save(…, allow_pickle=False)."
        ) from None
    return np.array(array) if mmap_mode is None else array


@dataclass(frozen=True)
class Artefact:
    """The output of a stage in a folder: a manifest, named tensors, named arrays, and the hash of all of these.

    Arrays are memory-mapped; changes of them stay in memory.
    """

    manifest: dict[str, Any]
    tensors: dict[str, Tensor]
    arrays: dict[str, np.ndarray]
    hash: str


def file_hash(path: Path) -> str:
    with naming(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_consistently(folder: Path, read: Callable[[Path], Read]) -> Read:
    """Return what `read` returns for a published folder; read again if the folder was replaced in the meantime.

    Folders are published atomically and never changed, so everything that is read from one folder belongs together.
    While the folder is open, the system does not give its inode number to another one.
    """
    while True:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            return read(folder)
        try:
            content = read(folder)
            if _is_at(folder, descriptor):
                return content
        except (UserError, OSError):
            if _is_at(folder, descriptor):
                raise
        finally:
            os.close(descriptor)


def _is_at(folder: Path, descriptor: int) -> bool:
    """Return whether an open folder is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except FileNotFoundError:
        return False


def save_artefact(
    folder: Path,
    kind: str,
    manifest: dict[str, Any],
    tensors: dict[str, Tensor] | None = None,
    arrays: dict[str, np.ndarray] | None = None,
    inputs: Iterable[Path] = (),
) -> None:
    """Publish manifest.json, tensors.safetensors and one .npy file per array as one folder; see `load_artefact`.

    An existing artefact of the same kind is replaced. `inputs` are the files and folders that were read for it.
    """
    with publish(folder, partial(files_of, kind=kind), inputs) as temporary:
        if tensors:
            import torch
            from safetensors import SafetensorError
            from safetensors.torch import save_file

            contiguous = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in tensors.items()
            }
            with as_user_error(SafetensorError, f"{folder}: cannot be written", "free space on the disk and try again"):
                save_file(contiguous, temporary / TENSORS)
        for name, array in (arrays or {}).items():
            save_array(temporary / f"{name}.npy", array)
        files = {
            path.name: {"sha256": file_hash(path), "bytes": path.stat().st_size} for path in sorted(temporary.iterdir())
        }
        write_json(temporary / MANIFEST, {**manifest, "format": FORMAT, "kind": kind, "files": files})


def files_of(folder: Path, kind: str) -> Collection[Path]:
    """Return the files of an artefact of this kind, relative to its folder; none if there is no such artefact."""
    manifest = manifest_in(folder)
    files = manifest.get("files")
    if manifest.get("kind") != kind or not isinstance(files, dict):
        return ()
    return {Path(name) for name in (MANIFEST, *files)}


def manifest_in(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder, or an empty dictionary if it has none or one that is not JSON.

    Raises:
        OSError: the disk or its permissions do not let it be read.
    """
    try:
        return read_json(folder / MANIFEST)
    except UserError:
        return {}


def check_format(path: Path, manifest: dict[str, Any]) -> None:
    """Raise a UserError if the format of a manifest is not `FORMAT`; the message names the side to renew."""
    found = manifest.get("format")
    if type(found) is not int or found != FORMAT:
        is_newer = isinstance(found, int) and found > FORMAT
        remedy = "update postprior" if is_newer else "make the folder again with this version"
        raise UserError(f"{path}: found format {found!r}, expected {FORMAT}; {remedy}")


def load_artefact(folder: Path, kind: str) -> Artefact:
    """Load the artefact in a folder and check every byte against its manifest.

    Raises:
        UserError: the format version or the kind differs, or a file is missing, truncated or changed.
    """
    return read_consistently(folder, partial(_load_artefact, kind=kind))


def _load_artefact(folder: Path, kind: str) -> Artefact:
    manifest = read_json(folder / MANIFEST)
    check_format(folder / MANIFEST, manifest)
    if manifest.get("kind") != kind:
        raise UserError(
            f"{folder / MANIFEST}: found kind {manifest.get('kind')!r}, expected {kind!r}; correct the path"
        )
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise UserError(f"{folder / MANIFEST}: the table of files is missing; make the folder again.")
    tensors: dict[str, Tensor] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, entry in files.items():
        if Path(name).name != name or not isinstance(entry, dict):
            raise UserError(f"{folder / MANIFEST}: files: {name!r} is not a valid entry of this folder; make it again")
        with naming(folder / name), _opened(folder / name, entry) as file:
            content = file.read() if name == TENSORS else b""
            digest = hashlib.sha256(content) if name == TENSORS else hashlib.file_digest(file, "sha256")
        if digest.hexdigest() != entry.get("sha256"):
            raise UserError(
                f"{folder / name}: its content has changed since it was written (sha256 differs); make the folder again"
            )
        if name == TENSORS:
            from safetensors import SafetensorError
            from safetensors.torch import load

            with as_user_error(SafetensorError, f"{folder / name}: not a file of tensors", "make the folder again"):
                tensors = load(content)  # not load_file, which opens the path a second time after the header
        if name.endswith(".npy"):
            arrays[name.removesuffix(".npy")] = load_array(folder / name, "c")
    return Artefact(manifest, tensors, arrays, _canonical_hash(manifest))


def rebuilding(folder: Path) -> AbstractContextManager[None]:
    """Turn errors raised while an object is rebuilt from an artefact into a UserError.

    Such an error means that another version wrote what this version cannot read.
    """
    kinds = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
    problem = f"{folder}: this was written by another version of postprior"
    return as_user_error(kinds, problem, "make the folder again with this one, or update postprior")


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless the tensors of an artefact can be the state of the object rebuilt from them.

    Each must be known to the object, have its type and shape, and hold no NaN; the object may know more tensors, which
    an earlier version did not write.
    """
    for name, tensor in found.items():
        if name not in expected:
            raise ValueError(f"unknown tensor {name}")
        if (tensor.dtype, tensor.shape) != (expected[name].dtype, expected[name].shape):
            raise ValueError(f"tensor {name} has another type or shape")
        if tensor.isnan().any():
            raise ValueError(f"tensor {name} holds NaN")


def _opened(path: Path, entry: dict[str, Any]) -> BufferedReader:
    """Open a file of an artefact after checking that it has the size of its entry."""
    if not path.is_file():
        raise UserError(f"{path}: this file is missing; make the folder again with the stage that wrote it.")
    size = path.stat().st_size
    if size != entry.get("bytes"):
        raise UserError(
            f"{path}: found {size} bytes, expected {entry.get('bytes')}, the file is truncated or changed; make the "
            "folder again with the stage that wrote it."
        )
    return open(path, "rb")


def folder_hash(folder: Path) -> str:
    """Return the hash of a published folder: of an artefact's manifest, or of the names and contents of all files."""
    return read_consistently(folder, _folder_hash)


def _folder_hash(folder: Path) -> str:
    manifest = read_json(folder / MANIFEST)
    if "files" in manifest:
        return _canonical_hash(manifest)
    return _canonical_hash([(path.name, file_hash(path)) for path in sorted(folder.iterdir()) if path.is_file()])
