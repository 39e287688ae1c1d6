"""YAML that others wrote, read as DVC reads it, in bounded time and memory."""

import json
import math
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from postprior.pipelines.errors import UserError

LONGEST = 1_000_000
"""Characters of a text, and of its values once aliases are written out; settings take a hundredth."""
DEEPEST = 100
"""Lists and groups within one another; settings take a tenth, and pydantic reads twice as many."""


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; see `parse_yaml`."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; run in the project's folder, or pass --params") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected a YAML file in UTF-8, found other bytes") from None


def parse_yaml(text: str, place: Path | str) -> Any:
    """The content of a YAML 1.2 text, read as DVC reads it: 1e-3 is a number, `no` a text; then as JSON has it.

    A UserError tells of no YAML, of what JSON cannot have, and of what is too long or too deep for settings.
    """
    if len(text) > LONGEST:
        raise UserError(f"{place}: found {len(text)} characters, expected settings, {LONGEST} characters at most")
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = _Bounded
    try:
        return json.loads(json.dumps(reader.load(text), default=str))
    except TypeError as error:
        raise UserError(f"{place}: expected keys that are text, found another kind ({error})") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{place}{where}: this is not valid YAML ({str(error.problem).splitlines()[0]})") from None
    except YAMLError as error:
        raise UserError(f"{place}: this is not valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise UserError(f"{place}: found lists, groups or aliases nested too deep, expected settings") from None
    except (ValueError, LookupError, ArithmeticError, AttributeError) as error:
        reason = str(error).partition(";")[0]  # scalars that are not what their tag says
        raise UserError(f"{place}: found a value that cannot be read ({reason}); correct it") from None


class _Bounded(SafeConstructor):
    """Values of a document that stays small when its aliases are written out."""

    def construct_document(self, node: Node) -> Any:
        length, depth = _extent(node, {})
        if length > LONGEST or depth > DEEPEST:
            raise RecursionError
        return super().construct_document(node)


def _extent(node: Node, known: dict[int, tuple[float, float]]) -> tuple[float, float]:
    """Characters and depth of a node with its aliases written out: infinite where it holds itself."""
    if not isinstance(node, CollectionNode):
        return 1 + len(node.value), 0
    if id(node) not in known:
        known[id(node)] = math.inf, math.inf  # until its parts are known, of which it may be one
        pairs = isinstance(node, MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        extents = [_extent(part, known) for part in parts]
        length, depth = sum(length for length, _ in extents), max((depth for _, depth in extents), default=0)
        known[id(node)] = 1 + length, 1 + depth
    return known[id(node)]
