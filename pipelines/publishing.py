"""Publish files and folders atomically, and never replace files that the same command did not write."""

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

from postprior.pipelines.errors import UserError, naming
from postprior.pipelines.signals import defer_signals

OwnFiles = Callable[[Path], Collection[Path]]
"""Returns the files in a folder, relative to it, that the same command wrote before. Only these may be replaced."""
DESKTOP_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that desktops create in every folder that they show. They may be replaced as well."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk, a quota or a file that is full."""
AT_FDCWD = -100
RENAME_EXCHANGE = 2


def check_folder(folder: Path, own_files: OwnFiles = lambda _: (), inputs: Iterable[Path] = ()) -> None:
    """Raise a UserError if replacing a folder would delete anything that the same command did not write.

    Refused are: a file; the current folder, the home folder and any folder above these; a folder that contains one of
    the `inputs` (files and folders that are read for the result); and a folder with a file that is not in `own_files`.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: found a file, expected a folder or nothing; give another name")
    place = _real(folder)
    for protected, description in ((".", "the current folder"), (os.path.expanduser("~"), "the home folder")):
        if _real(protected).is_relative_to(place):
            raise UserError(
                f"{folder}: found {description} or a folder above it, expected a folder that the result can "
                "replace; give another name, and check whether a shell variable is empty"
            )
    for source in inputs:
        if _real(source).is_relative_to(place):
            raise UserError(
                f"{folder}: found the input {source} in it, expected a folder that contains no input; give another name"
            )
    if (foreign := _foreign_file(folder, own_files)) is not None:
        raise UserError(
            f"{folder}: found {foreign} in it, which this command did not write, expected an empty folder, no folder "
            "or an earlier result of this command; give another name or move that file away"
        )


def check_file(path: Path, force: bool) -> None:
    """Raise a UserError if the path of a result is a folder, or an existing file unless `force` is set."""
    if path.is_dir():
        raise UserError(f"{path}: found a folder, expected a file or nothing; give another name")
    if path.exists() and not force:
        raise UserError(f"{path}: found a file, expected none; give another name, or pass --force to replace it")


def _real(path: Path | str) -> Path:
    """Return an absolute path without symbolic links; unlike Path.resolve, it accepts links that form a loop."""
    return Path(os.path.realpath(path))


def _foreign_file(folder: Path, own_files: OwnFiles) -> Path | None:
    """Return the first file in a folder, relative to it, that is not in `own_files`, or None."""
    if not folder.is_dir():
        return None
    allowed = set(own_files(folder))
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    relative = (path.relative_to(folder) for path in files)
    return next((path for path in relative if path not in allowed and path.name not in DESKTOP_FILES), None)


@contextmanager
def publish(folder: Path, own_files: OwnFiles = lambda _: (), inputs: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` when the block ends without an error; see `check_folder`.

    Whatever happens in between (an exception, a full disk, a kill), `folder` is either the old folder or the complete
    new one. Where the system cannot swap two folders in one step, it does not exist for an instant. The next
    publication removes what a killed process left behind. A symbolic link is followed, and its target is replaced.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with publish(Path(root, "greeting")) as folder:
    ...         _ = (folder / "word.txt").write_text("hello")
    ...     Path(root, "greeting", "word.txt").read_text()
    'hello'
    """
    inputs = tuple(inputs)
    check_folder(folder, own_files, inputs)
    place = _real(folder)
    temporary = _partial(place)
    try:
        temporary.mkdir()
        with _named(folder):
            yield temporary
        for path in (*temporary.rglob("*"), temporary):
            _sync(path)
        check_folder(folder, own_files, inputs)
        with defer_signals():
            _put(temporary, place)
            _sync(place.parent)
            shutil.rmtree(temporary, ignore_errors=True)  # the folder that was replaced
    finally:
        with defer_signals():
            shutil.rmtree(temporary, ignore_errors=True)  # the unfinished folder


def _put(new: Path, place: Path) -> None:
    """Move the folder `new` to `place`; a folder that was there before is at the path `new` afterwards."""
    try:
        new.rename(place)  # succeeds if `place` does not exist or is an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(new, place):
            _swap(new, place)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; return False if the system or the file system cannot."""
    rename = _renameat2()
    if rename is None:
        return False
    failed = rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    if failed and (number := ctypes.get_errno()) not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        raise OSError(number, os.strerror(number), str(other))
    return not failed


@cache
def _renameat2() -> Callable[..., int] | None:
    """Return the Linux system call if the C library has it, else None."""
    function: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function


def _swap(new: Path, place: Path) -> None:
    """Swap two folders in two steps; if the second step fails, the old folder is moved back."""
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
    """Yield a binary file that replaces `path` when the block ends without an error; see `publish`."""
    temporary = _partial(path)
    try:
        with _named(path), naming(path), open(temporary, "wb") as file:
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
    """Yield a temporary path with the same suffix; its file replaces `path` when the block ends without an error."""
    with TemporaryDirectory() as folder:
        yield (temporary := Path(folder, f"made{path.suffix}"))
        write_bytes(path, temporary.read_bytes())


def write_bytes(path: Path, content: bytes) -> None:
    with publish_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the result in an error of a full disk, which names no file or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            error.filename = str(path)
        raise


def _partial(path: Path) -> Path:
    """Return a hidden sibling path, `.<name>.<process>-<random>.partial`, and remove those that dead processes left."""
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
        pass  # the process of another user
    return True


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a later rename never exposes an empty one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
