"""What stands on the disk: JSON, arrays and artefacts, with hashes to know them by."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

from postprior.pipelines.errors import UserError, as_user_error
from postprior.pipelines.publishing import publish, publish_file, write_text

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""The meaning of artefacts and dataset folders. It rises when that changes: not for a new file or key that may be
absent, but where an older version would misread a new folder, or this one an older folder. `check_format` then brings
the older one up to date, or refuses it in one sentence; tests/fixtures/formats has folders of every number."""
MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"
Read = TypeVar("Read")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in a JSON file: {value!r}")


def write_json(path: Path, value: Any, sort_keys: bool = True) -> None:
    """One JSON file, the same bytes for the same value; NaN and infinity are refused with a ValueError."""
    text = json.dumps(value, sort_keys=sort_keys, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; a UserError when it is missing, cut short or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; run the stage that makes it, or correct the path.") from None
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}); make it again.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: a {type(value).__name__} was found where a JSON object is expected.")
    return value


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


class ArrayWriter:
    """An .npy file of a known shape that is written in pieces, with no array in memory.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with ArrayWriter(Path(root, "a.npy"), (3, 2), np.float32) as writer:
    ...         writer.write(0, np.ones((2, 2)))
    ...         writer.write(2, np.zeros((1, 2)))
    ...     load_array(Path(root, "a.npy"), mmap=False).tolist()
    [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._file = open(path, "wb")  # noqa: SIM115 - closed by __exit__
        _write_header(self._file, shape, self.dtype)
        self._origin = self._file.tell()

    def write(self, start: int, rows: np.ndarray) -> None:
        """Put `rows` (n, *shape[1:]) at rows start … start + n."""
        rows = np.ascontiguousarray(rows, self.dtype)
        if rows.shape[1:] != self.shape[1:] or not 0 <= start <= self.shape[0] - len(rows):
            raise ValueError(f"rows {rows.shape} at {start} do not fit into an array of shape {self.shape}")
        self._file.seek(self._origin + start * self.dtype.itemsize * int(np.prod(self.shape[1:])))
        self._file.write(rows.data)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def save_array(path: Path, array: np.ndarray) -> None:
    """One .npy file in C order; a ValueError refuses an array of objects, which would need a pickle."""
    if array.dtype.hasobject:
        raise ValueError(f"{path}: an array of objects would need a pickle; give it a type of fixed size")
    with publish_file(path) as file:
        _write_header(file, array.shape, array.dtype)
        file.write(np.ascontiguousarray(array).data)  # not NumPy's tofile, which does not say what failed


def load_array(path: Path, mmap: bool = True) -> np.ndarray:
    """The array in an .npy file, read-only and memory-mapped unless `mmap` is false.

    A UserError tells of a missing file, a pickle or an array of objects, and a file that was cut short.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: this array is missing; make the folder again with all its files.") from None
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path}: not a whole .npy array ({error}); pickles and truncated files are refused, "
            "write it again with numpy.save(…, allow_pickle=False)."
        ) from None
    return array if mmap else np.array(array)


@dataclass(frozen=True)
class Artefact:
    """What a stage left in a folder: a manifest, named tensors, named arrays, and the hash of it all."""

    manifest: dict[str, Any]
    tensors: dict[str, Tensor]
    arrays: dict[str, np.ndarray]
    hash: str


def file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_consistently(folder: Path, read: Callable[[Path], Read]) -> Read:
    """What `read` finds in a published folder; read again where another one took its place meanwhile.

    Folders are published whole and never changed, so that what is read of one folder belongs together. While the folder
    is open the system gives its number to no other.
    """
    while True:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            return read(folder)
        try:
            found = read(folder)
            if _is_at(folder, descriptor):
                return found
        except (UserError, OSError):
            if _is_at(folder, descriptor):
                raise
        finally:
            os.close(descriptor)


def _is_at(folder: Path, descriptor: int) -> bool:
    """Whether a folder that is open still stands at its path."""
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
    """Publish manifest.json, tensors.safetensors and one .npy an array as one folder; see `load_artefact`.

    An artefact of the same kind is replaced; `inputs` are what was read for it.
    """
    with publish(folder, partial(files_of, kind=kind), inputs) as temporary:
        if tensors:
            import torch
            from safetensors.torch import save_file

            whole = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in tensors.items()
            }
            save_file(whole, temporary / TENSORS)
        for name, array in (arrays or {}).items():
            save_array(temporary / f"{name}.npy", array)
        files = {
            path.name: {"sha256": file_hash(path), "bytes": path.stat().st_size} for path in sorted(temporary.iterdir())
        }
        write_json(temporary / MANIFEST, {**manifest, "format": FORMAT, "kind": kind, "files": files})


def files_of(folder: Path, kind: str) -> Collection[Path]:
    """The files, relative to their folder, of an artefact of this kind; none where there is no such artefact."""
    manifest = manifest_in(folder)
    files = manifest.get("files")
    if manifest.get("kind") != kind or not isinstance(files, dict):
        return ()
    return {Path(name) for name in (MANIFEST, *files)}


def manifest_in(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, empty where there is none that can be read."""
    try:
        return read_json(folder / MANIFEST)
    except (UserError, OSError):
        return {}


def check_format(path: Path, manifest: dict[str, Any]) -> None:
    """Refuse the manifest of another format than `FORMAT`, in one sentence that says which side is to be renewed."""
    found = manifest.get("format")
    if found != FORMAT:
        later = isinstance(found, int) and found > FORMAT
        remedy = "update postprior" if later else "make the folder again with this version"
        raise UserError(f"{path}: format {found!r} was found where {FORMAT} is expected; {remedy}")


def load_artefact(folder: Path, kind: str) -> Artefact:
    """The artefact in a folder, every byte checked against its manifest.

    A UserError tells of another format version or kind, and of files that are missing, cut short or changed.
    """
    return read_consistently(folder, partial(_load_artefact, kind=kind))


def _load_artefact(folder: Path, kind: str) -> Artefact:
    manifest = read_json(folder / MANIFEST)
    check_format(folder / MANIFEST, manifest)
    if manifest.get("kind") != kind:
        raise UserError(
            f"{folder / MANIFEST}: kind {manifest.get('kind')!r} was found where {kind!r} is expected; correct the path"
        )
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise UserError(f"{folder / MANIFEST}: the table of files is missing; make the folder again.")
    tensors: dict[str, Tensor] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, entry in files.items():
        if Path(name).name != name or not isinstance(entry, dict):
            raise UserError(f"{folder / MANIFEST}: files: {name!r} is no entry of this folder; make it again.")
        with _opened(folder / name, entry) as file:
            content = file.read() if name == TENSORS else b""
            read = hashlib.sha256(content) if content else hashlib.file_digest(file, "sha256")
        if read.hexdigest() != entry.get("sha256"):
            raise UserError(
                f"{folder / name}: its content is not what was written (sha256 differs); make the folder again."
            )
        if name == TENSORS:
            from safetensors.torch import load

            tensors = load(content)  # not load_file, which opens the path again after the header
        if name.endswith(".npy"):
            arrays[name.removesuffix(".npy")] = load_array(folder / name)
    return Artefact(manifest, tensors, arrays, _canonical_hash(manifest))


def rebuilding(folder: Path) -> AbstractContextManager[None]:
    """Errors of what is rebuilt from an artefact, as a UserError: another version wrote what this one cannot read."""
    kinds = (KeyError, RuntimeError, TypeError, ValueError)
    found = f"{folder}: this was written by another version of postprior"
    return as_user_error(kinds, found, "make the folder again with this one, or update postprior")


def _opened(path: Path, entry: dict[str, Any]) -> BufferedReader:
    """A file of an artefact, open, once it has the size of its entry."""
    if not path.is_file():
        raise UserError(f"{path}: this file is missing; make the folder again with the stage that wrote it.")
    size = path.stat().st_size
    if size != entry.get("bytes"):
        raise UserError(
            f"{path}: {size} bytes were found where {entry.get('bytes')} were written, the file is truncated "
            "or changed; make the folder again with the stage that wrote it."
        )
    return open(path, "rb")


def folder_hash(folder: Path) -> str:
    """The identity of a published folder: an artefact's manifest, or the names and contents of all files."""
    return read_consistently(folder, _folder_hash)


def _folder_hash(folder: Path) -> str:
    manifest = read_json(folder / MANIFEST)
    if "files" in manifest:
        return _canonical_hash(manifest)
    return _canonical_hash([(path.name, file_hash(path)) for path in sorted(folder.iterdir()) if path.is_file()])
