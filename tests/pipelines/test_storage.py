"""Files and artefacts come back as they were written, broken ones are refused, and hashes follow the content."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import (
    ArrayWriter,
    check_tensors,
    folder_hash,
    load_array,
    load_artefact,
    read_json,
    save_array,
    save_artefact,
    write_json,
)


def test_json_bytes_are_stable_and_plain(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": np.float64(0.5), "a": np.arange(2), "c": "é"})
    assert (tmp_path / "a.json").read_text() == ('{\n  "a": [\n    0,\n    1\n  ],\n  "b": 0.5,\n  "c": "é"\n}\n')
    assert read_json(tmp_path / "a.json") == {"a": [0, 1], "b": 0.5, "c": "é"}


@pytest.mark.parametrize(("value", "error"), [({"a": float("nan")}, ValueError), ({"a": {1, 2}}, TypeError)])
def test_json_refuses_other_values(tmp_path: Path, value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        write_json(tmp_path / "a.json", value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [None, '{"a": ', "[1]", b"\xff\xfe", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"],
    ids=["missing", "cut", "list", "bytes", "deep", "long"],
)
def test_json_that_cannot_be_read(tmp_path: Path, text: str | bytes | None) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"a\.json: "):
        read_json(path)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 4), (5, 2, 3)])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "<U5"])
def test_arrays_come_back(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    save_array(tmp_path / "a.npy", array)
    for mmap_mode in ("r", "c", None):
        loaded = load_array(tmp_path / "a.npy", mmap_mode)
        assert loaded.dtype == array.dtype
        np.testing.assert_array_equal(loaded, array)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), array)


def test_a_loaded_array_is_mapped_and_read_only(tmp_path: Path) -> None:
    save_array(tmp_path / "a.npy", np.ones(3))
    array = load_array(tmp_path / "a.npy")
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2


def test_the_memory_layout_does_not_change_the_bytes(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    save_array(tmp_path / "c.npy", array)
    save_array(tmp_path / "f.npy", np.asfortranarray(array))
    assert (tmp_path / "c.npy").read_bytes() == (tmp_path / "f.npy").read_bytes()


def objects(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(np.ones(3)))


def truncated(path: Path) -> None:
    save_array(path, np.ones(1000))
    path.write_bytes(path.read_bytes()[:-8])


def no_header(path: Path) -> None:
    save_array(path, np.ones(1000))
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def archive(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), np.ones(3))
    path.with_suffix(".npz").rename(path)


@pytest.mark.parametrize("spoil", [objects, a_pickle, truncated, no_header, empty, archive, lambda path: None])
def test_arrays_that_cannot_be_read(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = tmp_path / "a.npy"
    spoil(path)
    with pytest.raises(UserError, match=r"a\.npy: ") as error:
        load_array(path)
    assert "\n" not in str(error.value)


def test_objects_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.npy: an array of objects"):
        save_array(tmp_path / "a.npy", np.array([{}], dtype=object))
    assert not list(tmp_path.iterdir())


def test_an_array_in_pieces_has_the_bytes_of_one_at_once(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((7, 3)).astype(np.float32)
    save_array(tmp_path / "whole.npy", array)
    writer = ArrayWriter(tmp_path / "pieces.npy", array.shape, np.float32)
    writer.write(4, array[4:])
    writer.write(0, array[:4].astype(np.float64))
    assert (tmp_path / "pieces.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize(("start", "rows"), [(-1, (1, 3)), (6, (2, 3)), (0, (2, 4))])
def test_pieces_that_do_not_fit(tmp_path: Path, start: int, rows: tuple[int, int]) -> None:
    writer = ArrayWriter(tmp_path / "a.npy", (7, 3), np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        writer.write(start, np.zeros(rows))


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"weight": shared.T, "same": shared, "count": torch.tensor(3)}
    arrays = {"features.real": np.arange(4), "ids": np.array(["a", "b"])}
    save_artefact(tmp_path / "thing", "thing", {"name": "x"}, tensors, arrays)
    return tmp_path / "thing"


def test_artefacts_come_back(artefact: Path) -> None:
    loaded = load_artefact(artefact, "thing")
    assert loaded.manifest["name"] == "x"
    torch.testing.assert_close(loaded.tensors["weight"], torch.arange(6.0).reshape(2, 3).T)
    assert loaded.tensors["count"].item() == 3
    np.testing.assert_array_equal(loaded.arrays["features.real"], np.arange(4))
    assert loaded.arrays["ids"].tolist() == ["a", "b"]
    assert loaded.hash == folder_hash(artefact)


def test_an_artefact_may_be_a_manifest_alone(tmp_path: Path) -> None:
    save_artefact(tmp_path / "thing", "thing", {"name": "x"})
    loaded = load_artefact(tmp_path / "thing", "thing")
    assert (loaded.tensors, loaded.arrays) == ({}, {})


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    hashes = []
    for number, value in enumerate((1.0, 1.0, 2.0)):
        save_artefact(tmp_path / str(number), "thing", {}, {"a": torch.tensor(value)})
        hashes.append(folder_hash(tmp_path / str(number)))
    assert hashes[0] == hashes[1] != hashes[2]


def change(field: str, value: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, field: value}))

    return spoil


def cut(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flip(folder: Path) -> None:
    path = folder / "features.real.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


def tensors_of(content: bytes) -> Callable[[Path], None]:
    """Other tensors, whose hash is in the manifest."""

    def spoil(folder: Path) -> None:
        (folder / "tensors.safetensors").write_bytes(content)
        files = json.loads((folder / "manifest.json").read_text())["files"]
        files["tensors.safetensors"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        change("files", files)(folder)

    return spoil


NO_TENSORS = r"tensors\.safetensors: not a file of tensors \(Error while deserializing: .*\); make the folder again"
OVERFLOW = json.dumps({"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}).encode()
SPOILED = {
    "no tensors": (tensors_of(b""), NO_TENSORS),
    "a long header": (tensors_of(b"\xff" * 100), NO_TENSORS),
    "a shape that overflows": (tensors_of(len(OVERFLOW).to_bytes(8, "little") + OVERFLOW + b"1234"), NO_TENSORS),
    "a format that is no number": (change("format", True), "found format True, expected 1"),
    "another format": (change("format", 2), "found format 2, expected 1"),
    "another kind": (change("kind", "density"), "found kind 'density', expected 'thing'"),
    "no table": (change("files", None), "table of files"),
    "a path outside": (change("files", {"../x.npy": {}}), "not a valid entry of this folder"),
    "a bad entry": (change("files", {"ids.npy": 3}), "not a valid entry of this folder"),
    "truncated": (cut, r"tensors\.safetensors: .* truncated"),
    "changed": (flip, r"features\.real\.npy: .*sha256"),
    "missing": (lambda folder: (folder / "ids.npy").unlink(), r"ids\.npy: this file is missing"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), r"manifest\.json: no such file"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_artefacts_that_cannot_be_read(artefact: Path, case: str) -> None:
    spoil, sentence = SPOILED[case]
    spoil(artefact)
    with pytest.raises(UserError, match=sentence):
        load_artefact(artefact, "thing")


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"a": torch.ones(2), "b": torch.ones(2)}, "unknown tensor b"),
        ({"a": torch.ones(3)}, "tensor a has another type or shape"),
        ({"a": torch.ones(2).double()}, "tensor a has another type or shape"),
        ({"a": torch.tensor([1.0, math.nan])}, "tensor a holds NaN"),
    ],
)
def test_tensors_that_are_no_state(found: dict[str, torch.Tensor], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_tensors(found, {"a": torch.zeros(2)})


def test_an_object_may_know_tensors_that_an_older_artefact_lacks() -> None:
    check_tensors({"a": torch.tensor([-math.inf, 0.0])}, {"a": torch.zeros(2), "later": torch.zeros(1)})


@contextmanager
def small_files() -> Iterator[None]:
    """No file may have more than 100 bytes; the log of the tests may, so no fixture lasts that long."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_names_the_result_and_leaves_nothing(tmp_path: Path) -> None:
    large = torch.zeros(1000)
    with (
        small_files(),
        pytest.raises(UserError, match=r"thing: cannot be written .*File too large.*; free space on the disk"),
    ):
        save_artefact(tmp_path / "thing", "thing", {}, {"a": large})
    for write, name in (
        (lambda path: save_artefact(path, "thing", {}, arrays={"a": large.numpy()}), "arrays"),
        (lambda path: save_array(path, large.numpy()), "a.npy"),
        (lambda path: write_json(path, {"a": [0] * 1000}), "a.json"),
    ):
        with small_files(), pytest.raises(OSError, match="File too large") as error:
            write(tmp_path / name)
        assert error.value.filename == str(tmp_path / name)
    assert not list(tmp_path.iterdir())
