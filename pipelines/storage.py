"""Files and folders published whole or not at all, with hashes to know them by."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pipelines.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""The meaning of artefacts and dataset folders. It rises when that changes: not for a new file or key that may be
absent, but where an older version would misread a new folder, or this one an older folder. `check_format` then brings
the older one up to date, or refuses it in one sentence; tests/fixtures/formats has folders of every number."""
MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"


# ---- publishing ------------------------------------------------------------------------------------------


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a rename after it can never expose an empty one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        return True
    return True


def _partial(path: Path) -> Path:
    """A hidden sibling of `path`, `.<name>.<process>-<random>.partial`; those of dead processes are swept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for sibling in path.parent.iterdir():
        name = sibling.name
        if name.startswith(f".{path.name}.") and name.endswith(".partial"):
            process = name.removeprefix(f".{path.name}.").partition("-")[0]
            if process.isdigit() and not _alive(process):
                _remove(sibling)
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


@contextmanager
def publish(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well.

    Whatever happens in between (an exception, a full disk, a kill), `folder` is the old one or the new one,
    or for an instant none: never half of one. What a killed process left behind goes at the next publication.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with publish(Path(root, "greeting")) as folder:
    ...         _ = (folder / "word.txt").write_text("hello")
    ...     Path(root, "greeting", "word.txt").read_text()
    'hello'
    """
    folder = Path(os.path.abspath(folder))
    temporary, old = _partial(folder), _partial(folder)
    temporary.mkdir()
    try:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            _sync(path)
        with suppress(FileNotFoundError):
            folder.rename(old)
        temporary.rename(folder)
        _sync(folder.parent)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _remove(old)


@contextmanager
def _publish_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well; see `publish`."""
    temporary = _partial(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    with _publish_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


# ---- JSON ------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in a JSON file: {value!r}")


def write_json(path: Path, value: Any, sort_keys: bool = True) -> None:
    """One JSON file, the same bytes for the same value; NaN and infinity are refused with a ValueError."""
    text = json.dumps(
        value, sort_keys=sort_keys, indent=2, ensure_ascii=False, allow_nan=False, default=_plain
    )
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


# ---- arrays ----------------------------------------------------------------------------------------------


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
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
    with _publish_file(path) as file:
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


# ---- artefacts -------------------------------------------------------------------------------------------


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


def save_artefact(
    folder: Path,
    kind: str,
    manifest: dict[str, Any],
    tensors: dict[str, Tensor] | None = None,
    arrays: dict[str, np.ndarray] | None = None,
) -> None:
    """Publish manifest.json, tensors.safetensors and one .npy an array as one folder; see `load_artefact`."""
    with publish(folder) as temporary:
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
            path.name: {"sha256": file_hash(path), "bytes": path.stat().st_size}
            for path in sorted(temporary.iterdir())
        }
        write_json(temporary / MANIFEST, {**manifest, "format": FORMAT, "kind": kind, "files": files})


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
    manifest = read_json(folder / MANIFEST)
    check_format(folder / MANIFEST, manifest)
    if manifest.get("kind") != kind:
        raise UserError(
            f"{folder / MANIFEST}: kind {manifest.get('kind')!r} was found where {kind!r} is expected; correct the path"
        )
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise UserError(f"{folder / MANIFEST}: the table of files is missing; make the folder again.")
    for name, entry in files.items():
        _check_file(folder, name, entry)
    tensors: dict[str, Tensor] = {}
    if TENSORS in files:
        from safetensors.torch import load_file

        tensors = load_file(folder / TENSORS)
    arrays = {name.removesuffix(".npy"): load_array(folder / name) for name in files if name.endswith(".npy")}
    return Artefact(manifest, tensors, arrays, _canonical_hash(manifest))


@contextmanager
def rebuilding(folder: Path) -> Iterator[None]:
    """Errors of what is rebuilt from an artefact, as a UserError: another version wrote what this one cannot read."""
    try:
        yield
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        told = " ".join(str(error).split())
        raise UserError(
            f"{folder}: this was written by another version of postprior ({told}); make the folder again with "
            "this one, or update postprior"
        ) from None


def _check_file(folder: Path, name: str, entry: Any) -> None:
    path = folder / name
    if Path(name).name != name or not isinstance(entry, dict):
        raise UserError(f"{folder / MANIFEST}: files: {name!r} is no entry of this folder; make it again.")
    if not path.is_file():
        raise UserError(f"{path}: this file is missing; make the folder again with the stage that wrote it.")
    size = path.stat().st_size
    if size != entry.get("bytes"):
        raise UserError(
            f"{path}: {size} bytes were found where {entry.get('bytes')} were written, the file is truncated "
            "or changed; make the folder again with the stage that wrote it."
        )
    if file_hash(path) != entry.get("sha256"):
        raise UserError(
            f"{path}: its content is not what was written (sha256 differs); make the folder again."
        )


def folder_hash(folder: Path) -> str:
    """The identity of a published folder: an artefact's manifest, or the names and contents of all files."""
    manifest = read_json(folder / MANIFEST)
    if "files" in manifest:
        return _canonical_hash(manifest)
    return _canonical_hash(
        [(path.name, file_hash(path)) for path in sorted(folder.iterdir()) if path.is_file()]
    )
