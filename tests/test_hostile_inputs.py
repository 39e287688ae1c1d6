"""Fuzzing: whatever a file holds, the answer is a UserError, or the right values."""

from __future__ import annotations

import io
import json
import math
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import BaseModel
from safetensors.torch import save
from support.project import small

from postprior.pipelines.artefacts.density import KIND, load_density
from postprior.pipelines.artefacts.exchange import read_codes
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import drawn_codes
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.settings.checks import parse_params
from postprior.pipelines.settings.params import Params
from postprior.pipelines.settings.yaml_text import parse_yaml
from postprior.pipelines.storage import MANIFEST, TENSORS, file_hash, load_artefact

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

EXAMPLES = pytest.mark.parametrize("examples", [15, pytest.param(250, marks=pytest.mark.slow)])
NUMBERS = st.sampled_from([0, -1, 2**31, 2**63, 10**30, 10**400, 0.5, 1e308, -1e308, math.nan, math.inf, True])
SCALARS = st.none() | NUMBERS | st.integers(0, 40) | st.floats() | st.text(max_size=9) | st.just("x" * 10_000)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def fuzz(examples: int, check: Callable[..., None], *strategies: Any) -> None:
    """Call `check` with that many draws of the strategies, the same in every run; it may raise a UserError."""

    @hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=hypothesis.HealthCheck,
    )
    @hypothesis.given(st.tuples(*strategies))
    def run(arguments: tuple[Any, ...]) -> None:
        with suppress(UserError):
            check(*arguments)

    run()


def plain(tree: Any) -> Any:
    """A tree as JSON has it, with texts for NaN and infinity, so that trees can be compared."""
    return json.loads(json.dumps(tree), parse_constant=str)


def replaced(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of a tree with another value, or with none for Ellipsis, at the place of a path."""
    head, *rest = path
    inner = tree.get(head)
    if rest and isinstance(inner, dict):
        value = replaced(inner, tuple(rest), value)
    return {key: old for key, old in tree.items() if key != head} | ({} if value is ... else {head: value})


def paths(tree: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all keys of a tree."""
    found = [(*prefix, key) for key in tree]
    return found + [path for key in tree if isinstance(tree[key], dict) for path in paths(tree[key], (*prefix, key))]


def with_defaults(content: dict[str, Any], schema: type[BaseModel]) -> dict[str, Any]:
    """Settings with those that may be left out."""
    content = {name: field.default for name, field in schema.model_fields.items() if not field.is_required()} | content
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            content[name] = with_defaults(content[name], field.annotation)
    return content


@EXAMPLES
def test_settings(examples: int) -> None:
    tree = plain(parse_params(small(), "params").model_dump())  # without settings by profile

    def check(path: tuple[str, ...], value: Any) -> None:
        if value is not ...:
            value = parse_yaml(yaml.safe_dump({"value": value}), "params")["value"]
        content = replaced(tree, path, value)
        assert plain(parse_params(content, "params").model_dump()) == plain(with_defaults(content, Params))

    fuzz(examples, check, st.sampled_from(paths(tree)), st.just(...) | VALUES)


@EXAMPLES
def test_yaml(examples: int) -> None:
    marks = st.sampled_from(
        ["a: ", "&x ", "*x", "[", "]", "{", "}", "<<: ", "!!int ", "- ", "\n", "  ", "|", "? ", "1", "é", "\t", "\0"]
    )
    texts = st.text() | st.lists(marks, max_size=30).map("".join)
    fuzz(examples, lambda text: json.dumps(parse_yaml(text, "params")), texts)


@pytest.fixture(scope="module")
def density(trained: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the fitted mixture."""
    return Path(shutil.copytree(trained[0] / "artefacts/densities/gmm", tmp_path_factory.mktemp("density") / "gmm"))


def drawn(folder: Path) -> torch.Tensor:
    return drawn_codes(load_density(folder), SampleRequest(8)).loc


@EXAMPLES
def test_manifests(examples: int, density: Path) -> None:
    """Keys that do not describe the density may hold anything; then the draws are the same."""
    manifest, expected = json.loads((density / MANIFEST).read_text()), drawn(density)

    def check(path: tuple[str, ...], value: Any) -> None:
        (density / MANIFEST).write_text(json.dumps(replaced(manifest, path, value)))
        try:
            draws = drawn(density)
            assert draws.isfinite().all()
            if path[0] in ("codes", "autoencoder", "rows", "log_likelihood"):
                torch.testing.assert_close(draws, expected, rtol=0, atol=0)
        finally:
            (density / MANIFEST).write_text(json.dumps(manifest))

    fuzz(examples, check, st.sampled_from(paths(manifest)), st.just(...) | VALUES)


@EXAMPLES
def test_tensors_with_changed_bytes(examples: int, density: Path) -> None:
    """The hash is that of the changed file; a header that is still valid gives the tensors that are in the file."""
    manifest, content = json.loads((density / MANIFEST).read_text()), (density / TENSORS).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")

    def check(at: int, piece: bytes) -> None:
        changed = content[:at] + piece + content[at + len(piece) :]
        (density / TENSORS).write_bytes(changed)
        entry = {"sha256": file_hash(density / TENSORS), "bytes": len(changed)}
        (density / MANIFEST).write_text(json.dumps(manifest | {"files": {TENSORS: entry}}))
        try:
            assert at < header or save(load_artefact(density, KIND).tensors) == changed
            load_density(density)
        finally:
            (density / TENSORS).write_bytes(content)
            (density / MANIFEST).write_text(json.dumps(manifest))

    places = st.integers(0, header - 1) | st.integers(header, len(content) - 9)
    fuzz(examples, check, places, st.binary(min_size=1, max_size=8))


@EXAMPLES
def test_codes_in_npz_files(examples: int, tmp_path: Path) -> None:
    types = st.sampled_from(
        ["float32", "float64", "float16", "int64", "uint8", "bool", "<U3", "complex64", "S2", "M8[s]"]
    )
    shapes = st.sampled_from([(6, 2), (6, 1, 2), (6,), (), (0, 2), (5, 2), (6, 0)])
    names = st.sampled_from(
        ["loc", "scale", "means", "weights", "labels", "ids", "observed", "family", "a.loc", "b.loc", "x"]
    )

    def check(contents: dict[str, tuple[str, tuple[int, ...], int]], cut: int) -> None:
        arrays = {name: np.full(shape, fill).astype(kind) for name, (kind, shape, fill) in contents.items()}
        file = io.BytesIO()
        np.savez(file, **arrays)
        path = tmp_path / "codes.npz"
        path.write_bytes(file.getvalue()[: len(file.getvalue()) - cut])
        codes = read_codes(path)
        assert cut == 0
        blocks = [array for name, array in arrays.items() if name in ("loc", "means") or name.endswith(".loc")]
        assert codes.loc.shape[2] == sum(block.shape[-1] for block in blocks)
        assert codes.loc.flatten().tolist() == [float(blocks[0].flat[0])] * codes.loc.numel() or len(blocks) > 1

    changes = st.dictionaries(names, st.tuples(types, shapes, st.integers(0, 2)), max_size=2)
    contents = changes.map(lambda changed: {"loc": ("float32", (6, 2), 1), **changed}) | changes
    fuzz(examples, check, contents, st.sampled_from([0, 0, 0, 0, 0, 1, 30, 200]))


@EXAMPLES
def test_archives_with_changed_bytes(examples: int, tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez(file, loc=np.arange(12.0).reshape(6, 2), labels=np.zeros(6, int))
    content, path = file.getvalue(), tmp_path / "codes.npz"

    def check(at: int, piece: bytes) -> None:
        path.write_bytes(content[:at] + piece + content[at + len(piece) :])
        if zipfile.is_zipfile(path):
            assert read_codes(path).loc.isfinite().all()

    fuzz(examples, check, st.integers(0, len(content) - 1), st.binary(min_size=1, max_size=4))


@EXAMPLES
def test_tables(examples: int, tmp_path: Path) -> None:
    """Some cells of a valid table change; if it is imported, every id is in one of the splits."""
    cells = ["1", "2.5", "u", "", "NA", '"', ",", "1e400", "é", "\0", "-0", "0x1", "inf", "1;2", "\n", "p3", "x" * 2000]
    table = [["id", "label", "x", "c"], *([f"p{n}", "ab"[n % 2], f"{n / 8}", "uv"[n // 2 % 2]] for n in range(60))]

    def check(changes: list[tuple[int, int, str]], end: bytes) -> None:
        rows = [list(row) for row in table]
        for row, column, cell in changes:
            rows[row][column] = cell
        path, folder = tmp_path / "table.csv", tmp_path / "data"
        path.write_bytes("\n".join(map(",".join, rows)).encode() + end)
        shutil.rmtree(folder, ignore_errors=True)
        import_data([path], folder, Roles(label="label"))
        ids = np.concatenate([Dataset.load(folder / split).ids for split in ("train", "validation", "test")])
        if all(column and cell not in '",\n' for _, column, cell in changes):  # no cell that breaks a line or the ids
            assert sorted(ids) == sorted(row[0] for row in table[1:])

    change = st.tuples(st.integers(0, 60), st.integers(0, 3), st.sampled_from(cells))
    fuzz(examples, check, st.lists(change, max_size=2), st.sampled_from([b"", b"\n", b"\r\n", b"\xff", b'"']))
