"""Files and folders published whole or not at all, and never over what is not ours to replace."""

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from postprior.pipelines.errors import UserError
from postprior.pipelines.signals import defer_signals

Ours = Callable[[Path], Collection[Path]]
"""The files in a folder, relative to it, that the same command wrote before: all that may be replaced."""
LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that desktops leave in every folder that they show."""
AT_FDCWD = -100
RENAME_EXCHANGE = 2


def check_folder(folder: Path, ours: Ours = lambda _: (), inputs: Iterable[Path] = ()) -> None:
    """Refuse with a UserError a folder whose replacement would lose what the same command did not write.

    That is a file, the current folder, the home folder, one above these, and what holds an input or a file that is not
    `ours`; `inputs` are files and folders that are read for the result.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: found a file, expected a folder or nothing; give another name")
    place = _real(folder)
    for holder, words in ((".", "the current folder"), (os.path.expanduser("~"), "the home folder")):
        if _real(holder).is_relative_to(place):
            raise UserError(
                f"{folder}: found {words} or one above it, expected a folder that the result can replace; give another "
                "name, and look whether a variable of the shell is empty"
            )
    for source in inputs:
        if _real(source).is_relative_to(place):
            raise UserError(f"{folder}: {source} lies in it, expected a folder beside what is read; give another name")
    if (stranger := _stranger(folder, ours)) is not None:
        raise UserError(
            f"{folder}: found {stranger} there, which this command did not write, expected an empty folder, none, or "
            "an earlier result of this command; give another name or move it away"
        )


def check_file(path: Path, force: bool) -> None:
    """Refuse a folder, and a file that is there unless `force`, as the place of a result."""
    if path.is_dir():
        raise UserError(f"{path}: found a folder, expected a file or nothing; give another name")
    if path.exists() and not force:
        raise UserError(f"{path}: found a file, expected none; give another name, or replace it with --force")


def _real(path: Path | str) -> Path:
    """An absolute path without links; unlike Path.resolve it takes links that lead in a circle."""
    return Path(os.path.realpath(path))


def _stranger(folder: Path, ours: Ours) -> Path | None:
    """A file in a folder, relative to it, that is not `ours`."""
    if not folder.is_dir():
        return None
    known = set(ours(folder))
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    inside = (path.relative_to(folder) for path in files)
    return next((path for path in inside if path not in known and path.name not in LITTER), None)


@contextmanager
def publish(folder: Path, ours: Ours = lambda _: (), inputs: Iterable[Path] = ()) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well; see `check_folder`.

    Whatever happens in between (an exception, a full disk, a kill), `folder` is the old one or the new one, never half
    of one; where the system cannot swap two folders at once it is none for an instant. What a killed process left
    behind goes at the next publication. A link is followed: what it leads to is replaced.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with publish(Path(root, "greeting")) as folder:
    ...         _ = (folder / "word.txt").write_text("hello")
    ...     Path(root, "greeting", "word.txt").read_text()
    'hello'
    """
    inputs = tuple(inputs)
    check_folder(folder, ours, inputs)
    place = _real(folder)
    temporary = _partial(place)
    try:
        temporary.mkdir()
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            _sync(path)
        check_folder(folder, ours, inputs)
        with defer_signals():
            _put(temporary, place)
            _sync(place.parent)
    finally:
        with defer_signals():
            shutil.rmtree(temporary, ignore_errors=True)  # what is not finished, or what stood there before


def _put(new: Path, place: Path) -> None:
    """Move a folder to a place; what stood there is `new` afterwards."""
    try:
        new.rename(place)  # where there is nothing, or an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(new, place):
            _swap(new, place)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system or the disk cannot."""
    rename = _renameat2()
    if rename is None:
        return False
    failed = rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    if failed and (number := ctypes.get_errno()) not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        raise OSError(number, os.strerror(number), str(other))
    return not failed


@cache
def _renameat2() -> Callable[..., int] | None:
    """The system call of Linux, through a C library that has it."""
    found: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if found is not None:
        found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return found


def _swap(new: Path, place: Path) -> None:
    """Swap two folders in two steps; the old one comes back if the second fails."""
    old = _partial(place)
    try:
        place.rename(old)
        new.rename(place)
    except BaseException:
        if old.exists() and not place.exists():
            old.rename(place)
        raise
    old.rename(new)


@contextmanager
def publish_file(path: Path) -> Iterator[BinaryIO]:
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


@contextmanager
def publish_path(path: Path) -> Iterator[Path]:
    """Another path of the same ending, whose file takes the place of `path` when the block ends well."""
    with TemporaryDirectory() as folder:
        yield (made := Path(folder, f"made{path.suffix}"))
        write_bytes(path, made.read_bytes())


def write_bytes(path: Path, content: bytes) -> None:
    with publish_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def _partial(path: Path) -> Path:
    """A hidden sibling of `path`, `.<name>.<process>-<random>.partial`; those of dead processes are swept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for sibling in path.parent.iterdir():
        name = sibling.name
        if name.startswith(f".{path.name}.") and name.endswith(".partial"):
            process = name.removeprefix(f".{path.name}.").partition("-")[0]
            if not process.isdigit() or _alive(process):
                continue
            if sibling.is_dir() and not sibling.is_symlink():
                shutil.rmtree(sibling)
            else:
                sibling.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        pass  # it is another user's
    return True


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a rename after it can never expose an empty one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
