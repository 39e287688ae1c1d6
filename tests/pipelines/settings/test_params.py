"""Every mistake in params.yaml is reported in one sentence: the key, what was found and what was expected."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from support.project import REPOSITORY

from postprior.pipelines.data.sources import check_source
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.checks import check_density, check_model, check_rows, load_params, read_entry
from postprior.pipelines.settings.options import check_options
from postprior.pipelines.settings.params import Fitting, Params
from postprior.pipelines.settings.yaml_text import parse_yaml
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.training import Settings
from postprior.stage2_latent import DENSITIES

DEFAULTS = REPOSITORY / "params.yaml"


@pytest.fixture
def tree() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(DEFAULTS.read_text())
    return content


def put(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    *path, last = key.split(".")
    for part in path:
        tree = tree[part]
    tree[last] = value
    return tree


def load(tree: Any, folder: Path) -> Params:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(tree, default_style='"'))  # texts that look like numbers stay texts
    return load_params(path)


def test_the_defaults_of_the_repository_pass_every_check() -> None:
    params = load_params(DEFAULTS)
    check_source(params)
    check_model(params, params.vae.model)
    for name in params.densities:
        check_density(params, name)
    assert params.data.options == {"train": 5000, "validation": 500, "test": 2000} | params.data.options
    assert params.vae.chosen == params.vae.options[params.vae.model]


def defaults(of: Any) -> dict[str, Any]:
    parameters = inspect.signature(of).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def assert_equal(written: dict[str, Any], default: dict[str, Any]) -> None:
    """Compare values as YAML writes them: a tuple as a list, no options as {}, and 5/6 as 0.833333333333."""
    assert written.keys() == default.keys()
    for name, expected in default.items():
        if isinstance(expected, float):
            expected = pytest.approx(expected, rel=1e-9, abs=0)
        elif isinstance(expected, tuple):
            expected = list(expected)
        assert written[name] == expected or (written[name] == {} and expected is None), name


OF_THE_DEMO: dict[str, dict[str, Any]] = {
    "flow_matching": {"network": "blocks", "hidden": 480, "steps": 1500},
    "gmm": {"components": [1, 2, 4]},
    "vae": {"latent": 24},
}
"""What params.yaml changes for the five codes of 24 dimensions of the demo's model."""


@pytest.mark.parametrize(
    ("section", "table"), [("vae.options", MODELS), ("density", DENSITIES)], ids=["models", "densities"]
)
def test_options_have_the_defaults_of_their_class(
    tree: dict[str, Any], section: str, table: Mapping[str, type[Any]]
) -> None:
    for key in section.split("."):
        tree = tree[key]
    assert tree.keys() == set(table)
    for name, kind in table.items():
        assert_equal(tree[name], defaults(kind) | OF_THE_DEMO.get(name, {}))


@pytest.mark.parametrize(
    ("section", "of"), [("vae", MultimodalVAE), ("train", Settings), ("encode", MultimodalVAE.encode)]
)
def test_settings_are_written_as_what_takes_them_has_them(tree: dict[str, Any], section: str, of: Any) -> None:
    found = defaults(of) | OF_THE_DEMO.get(section, {})
    written = {name: value for name, value in tree[section].items() if name not in ("model", "options")}
    assert written.keys() <= found.keys()
    assert_equal(written, {name: found[name] for name in written})


MISTAKES = [
    (
        "train.epoch",
        3,
        "train.epoch is not a known key (did you mean epochs?); known here: batch_size, compile, device, epochs",
    ),
    ("colour", 3, "colour is not a known key; known here:"),
    ("train.epochs", -1, "train.epochs: found -1, expected a whole number of at least 1"),
    ("train.epochs", 2.5, "train.epochs: found 2.5, expected a whole number of at least 1"),
    ("train.epochs", True, "train.epochs: found true, expected a whole number of at least 1"),
    ("train.epochs", None, "train.epochs: found null, expected a whole number of at least 1"),
    ("train.epochs", [20, 0], "train.epochs.1: found 0, expected a whole number of at least 1, or a list of them"),
    ("train.epochs", [], "train.epochs: found an empty list, expected a whole number of at least 1, or a list"),
    (
        "train.epochs",
        "40",
        "found the text '40', expected a whole number of at least 1, or a list of them, one for each phase; "
        "write 40 without quotes",
    ),
    (
        "train.learning_rate",
        "1e-3",
        "train.learning_rate: found the text '1e-3', expected a number above 0; write 1e-3 without quotes",
    ),
    ("train.learning_rate", "fast", "train.learning_rate: found the text 'fast', expected a number above 0"),
    ("train.learning_rate", 0, "train.learning_rate: found 0, expected a number above 0"),
    ("train.learning_rate", float("nan"), "train.learning_rate: found NaN, expected a number above 0"),
    ("train.precision", False, "train.precision: found false, expected no or bf16"),
    ("train.compile", True, "train.compile: found true, expected auto or no"),
    ("train.device", "gpu", "train.device: found the text 'gpu', expected auto, cpu, mps, cuda or cuda:1"),
    ("train", [1], "train: found a list, expected the keys batch_size, compile, device"),
    (
        "vae.model",
        "mopoee",
        "vae.model: found 'mopoee', which has no entry under `vae.options` (did you mean mopoe?)",
    ),
    ("vae.options.mvae", 3, "vae.options.mvae: found 3, expected names, each with its options"),
    (
        "densities",
        ["gmmm"],
        "densities: found 'gmmm', which has no entry under `density` (did you mean gmm?)",
    ),
    ("densities", [], "densities: found an empty list, expected a list of densities, at least one"),
    ("densities", "gmm", "densities: found the text 'gmm', expected a list of densities, at least one"),
    ("densities", ["gmm", 3], "densities.1: found 3, expected a list of densities, at least one"),
    ("densities", ["gmm", "gmm"], "densities: found a name twice in gmm, gmm, expected each name once"),
    ("densities", ["normal"], "densities: found 'normal', which is always scored; leave it out"),
    (
        "density",
        {"a/b": {}},
        "density.a/b: found the text 'a/b', expected names of letters, digits, - and _, each with its options",
    ),
    (
        "density.real",
        {"kind": "gmm"},
        "density: found 'real', which names other results, expected a different",
    ),
    ("density.baselines", {"kind": "gmm"}, "density: found 'baselines', which names other results"),
    ("density.gmm", 3, "density.gmm: found 3, expected names of letters, digits, - and _, each with its"),
    (
        "data.source",
        "digitz",
        "data.source: found 'digitz', which has no entry under `data` (did you mean digits?)",
    ),
    ("data.digits", 7, "data.digits: found 7, expected"),
    ("generate.values", "mode", "generate.values: found the text 'mode', expected auto or mean or draws"),
    (
        "generate.balance",
        {7: -1},
        "generate.balance.7: found -1, expected null, or label names with their shares",
    ),
    (
        "generate.balance",
        {"7": 0},
        "generate.balance: found no share above 0, expected at least one, or null",
    ),
    ("generate.temperature", 0, "generate.temperature: found 0, expected a number above 0 and at most 1"),
    ("generate.temperature", 1.5, "generate.temperature: found 1.5, expected a number above 0 and at most 1"),
    ("generate.truncation", 1, "generate.truncation: found 1, expected a number of at least 0 and below 1"),
    (
        "generate.truncation",
        -0.1,
        "generate.truncation: found -0.1, expected a number of at least 0 and below 1",
    ),
    ("seed", -1, "seed: found -1, expected a whole number from 0 to 4294967295"),
    ("seed", 2**40, "seed: found 1099511627776, expected a whole number from 0 to 4294967295"),
]


@pytest.mark.parametrize(("key", "value", "sentence"), MISTAKES, ids=[f"{key}={value}" for key, value, _ in MISTAKES])
def test_a_mistake_is_one_sentence(tree: dict[str, Any], tmp_path: Path, key: str, value: Any, sentence: str) -> None:
    put(tree, key, value)
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        load(tree, tmp_path)
    assert str(error.value).startswith("params.yaml: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["seed", "train", "train.epochs", "vae.options", "data.source"])
def test_a_missing_key_is_named(tree: dict[str, Any], tmp_path: Path, key: str) -> None:
    del put(tree, key, None)[key.split(".")[-1]]
    with pytest.raises(UserError, match=rf"params.yaml: {re.escape(key)} is missing; expected .+"):
        load(tree, tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"seed: [1", "params.yaml, line 1, column 9: this is not valid YAML"),
        (b"\xff\xfe\x00", "params.yaml: found bytes that are not UTF-8, expected a YAML file in UTF-8"),
        (b"a: \x00", "params.yaml: this is not valid YAML"),
        (b"2026-01-01: 3", "params.yaml: found a key that is not a text"),
        (b"", "params.yaml: found null, expected the keys"),
        (b"- 1", "params.yaml: found a list, expected the keys"),
    ],
)
def test_a_file_that_holds_no_settings(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_params(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("learning_rate", "1e-5", 1e-5),
        ("learning_rate", "1E+2", 100.0),
        ("learning_rate", ".5", 0.5),
        ("learning_rate", "1.0e-3", 1e-3),
        ("precision", "no", "no"),
        ("precision", "'no'", "no"),
        ("epochs", "3", 3),
        ("epochs", "[3, 4]", (3, 4)),
    ],
)
def test_yaml_is_read_as_dvc_writes_it(tmp_path: Path, key: str, written: str, value: Any) -> None:
    """`dvc exp run -S train.learning_rate=1e-5` writes 1e-05, and every `no` without its quotes."""
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(rf"(\ntrain:\n(?:  .*\n)*?  {key}: ).*", rf"\g<1>{written}", DEFAULTS.read_text()))
    assert getattr(load_params(path).train, key) == value


BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 60))
MERGED = BOMB.replace("[x]", "{x: 1}").replace(" [", " {<<: [").replace("]\n", "]}\n")
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 150))
DEEP = ": found lists, groups or aliases nested too deep, expected settings"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BOMB, DEEP),
        (MERGED, DEEP),
        (CHAIN, DEEP),
        ("x: &x [*x]", DEEP),
        ("x: &x {y: *x}", DEEP),
        (f"x: {'[' * 150}{']' * 150}", DEEP),
        (f"x: {'{y: ' * 3000}1{'}' * 3000}", DEEP),
        (f"x: {'9' * 5000}", ", line 1, column 4: found a value that cannot be read (Exceeds the limit (4300 digits)"),
        (
            f"x: 0x{'f' * 5000}",
            ", line 1, column 4: found a value that cannot be read (Exceeds the limit (4300 digits)",
        ),
        ("x: !!bool maybe", ", line 1, column 4: found a value that cannot be read ('maybe'); correct it"),
        ("x: 2026-13-01", ", line 1, column 4: found a value that cannot be read (month must be in 1..12); correct it"),
        ("x" * 1_000_001, ": found 1000001 characters, expected settings of at most 1000000 characters"),
    ],
    ids=range(12),
)
def test_yaml_that_cannot_be_settings_is_refused_quickly(text: str, sentence: str) -> None:
    start = time.perf_counter()
    with pytest.raises(UserError, match=f"^params{re.escape(sentence)}") as error:
        parse_yaml(text, "params")
    assert "\n" not in str(error.value)
    assert time.perf_counter() - start < 5  # 1 s on a quiet machine


def test_aliases_and_merges_of_a_usual_size_are_expanded() -> None:
    text = "a: &a {b: 1, c: [1, 2]}\nd: {<<: *a, b: 3}\ne: [*a, *a]"
    a = {"b": 1, "c": [1, 2]}
    assert parse_yaml(text, "params") == {"a": a, "d": {**a, "b": 3}, "e": [a, a]}


def test_a_long_value_is_shown_in_part(tree: dict[str, Any], tmp_path: Path) -> None:
    put(tree, "train.device", "x" * 10_000)
    with pytest.raises(UserError, match=r"train\.device: found the text 'x{199}…', expected auto"):
        load(tree, tmp_path)


def test_settings_cannot_be_changed() -> None:
    params = load_params(DEFAULTS)
    with pytest.raises(ValueError, match="frozen"):
        params.train.epochs = 3


class Thing:
    """A constructor to check options against."""

    def __init__(
        self,
        size: int,
        *,
        scale: float | None = None,
        kind: Literal["full", "diagonal"] = "full",
        steps: tuple[int, ...] = (),
        weights: dict[str, float] | None = None,
        counts: int | Sequence[int] = 1,
        seed: int = 0,
    ) -> None: ...


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"betta": 1},
            "thing.betta is not a known key; known here: counts, kind, scale, size, steps, weights",
        ),
        ({}, "thing.size is missing; expected a whole number"),
        ({"size": "3"}, "thing.size: found the text '3', expected a whole number; write 3 without quotes"),
        (
            {"size": 3, "scale": "1e2"},
            "thing.scale: found the text '1e2', expected a number or null; write 1e2 without quotes",
        ),
        ({"size": 3, "kind": "tied"}, "thing.kind: found the text 'tied', expected full or diagonal"),
        (
            {"size": 3, "steps": [1, "a"]},
            "thing.steps.1: found the text 'a', expected a list (each item a whole number)",
        ),
        ({"size": 3, "weights": 2}, "thing.weights: found 2, expected names with values or null"),
        (
            {"size": 3, "counts": [1, "2"]},
            "thing.counts.1: found the text '2', expected a whole number or a list (each item a whole number)",
        ),
        ({"size": 3, "seed": 1}, "thing.seed is not a known key"),
    ],
)
def test_options_are_checked_against_the_signature(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        check_options(Thing, options, "thing", given={"seed"})


def test_options_that_the_signature_takes() -> None:
    check_options(
        Thing,
        {"size": 3, "scale": 2, "kind": "diagonal", "steps": [1, 2], "counts": [4, 8]},
        "thing",
        given={"seed"},
    )


def test_unknown_options_and_names_of_the_real_tables(tree: dict[str, Any], tmp_path: Path) -> None:
    put(tree, "vae.options.mvtcae", {"betta": 1.0})
    with pytest.raises(UserError, match=r"vae\.options\.mvtcae\.betta is not a known key \(did you mean beta\?\)"):
        check_model(load(tree, tmp_path), "mvtcae")
    tree["vae"]["options"]["nexuss"], tree["vae"]["model"] = {}, "nexuss"
    with pytest.raises(UserError, match=r"which is not a known model \(did you mean nexus\?\); known: .*mvtcae"):
        check_model(load(tree, tmp_path), "nexuss")
    put(tree, "data.digits", {"trian": 10})
    with pytest.raises(UserError, match=r"data\.digits\.trian is not a known key \(did you mean train\?\)"):
        check_source(load(tree, tmp_path))
    put(tree, "density.gmm", {"componets": 10})
    with pytest.raises(UserError, match=r"density\.gmm\.componets is not a known key \(did you mean components\?\)"):
        check_density(load(tree, tmp_path), "gmm")
    with pytest.raises(UserError, match=r"density: found 'spline', which is not a known density; known: .*gmm"):
        check_density(load(tree, tmp_path), "spline")
    del tree["density"]["gmm"]
    tree["densities"] = ["flow"]
    with pytest.raises(UserError, match=r"density\.gmm is missing: add `gmm: \{\}` under `density`"):
        check_density(load(tree, tmp_path), "gmm")


def test_an_entry_names_its_kind_and_how_it_is_fitted() -> None:
    fitting, options = read_entry("gmm", {"components": 3})
    assert fitting.model_dump() == {"kind": "gmm", "independent": False, "rows": "all", "labels": True}
    assert options == {"components": 3}
    fitting, options = read_entry("apart", {"kind": "gmm", "independent": True, "labels": False, "passes": 20})
    assert fitting.model_dump() == {"kind": "gmm", "independent": True, "rows": "all", "labels": False}
    assert options == {"passes": 20}


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({}, "density: found 'mine', which is not a known density; known: "),
        (
            {"kind": "gmmm"},
            "density.mine.kind: found 'gmmm', which is not a known density (did you mean gmm?); known: ",
        ),
        ({"kind": None}, "density.mine.kind: found 'None', which is not a known density"),
        (
            {"kind": "gmm", "rows": "some"},
            "density.mine.rows: found the text 'some', expected all or complete",
        ),
        ({"kind": "gmm", "labels": "no"}, "density.mine.labels: found the text 'no', expected true or false"),
        ({"kind": "gmm", "independent": 1}, "density.mine.independent: found 1, expected true or false"),
        (
            {"kind": "gmm", "row": "all"},
            "density.mine.row is not a known key (did you mean rows?); known here: ",
        ),
        ({"kind": "gmm", "bins": 3}, "density.mine.bins is not a known key"),
        ({"kind": "gmm", "passes": "x"}, "density.mine.passes: found the text 'x', expected a whole number"),
    ],
)
def test_a_mistake_in_an_entry_is_one_sentence(written: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        read_entry("mine", written)
    assert "\n" not in str(error.value)


def test_no_density_has_an_option_with_the_name_of_a_common_setting() -> None:
    for density in DENSITIES.values():
        assert not set(Fitting.model_fields) & set(inspect.signature(density).parameters), density


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["gmm", "flov"], "NAME: found 'flov', which has no entry under `density` (did you mean flow?)"),
        (["real"], "NAME: found 'real', which is always scored; leave it out"),
        (["evaluators"], "NAME: found 'evaluators', which names other results, expected a different name"),
        (["gmm", "gmm"], "NAME: found a name twice in gmm, gmm, expected each name once"),
    ],
)
def test_rows_that_cannot_be_compared(names: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        check_rows(load_params(DEFAULTS), names, "NAME")
