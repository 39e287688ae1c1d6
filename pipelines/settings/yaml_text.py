"""Read untrusted YAML as DVC reads it, in bounded time and memory."""

import json
import math
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from postprior.pipelines.errors import UserError, naming

LONGEST = 1_000_000
"""Maximal number of characters of a text, and of its values with all aliases expanded; settings need a hundredth."""
DEEPEST = 100
"""Maximal nesting depth of lists and groups; settings need a tenth, and pydantic reads twice as much."""


def read_yaml(path: Path) -> Any:
    """Read a YAML file; see `parse_yaml`."""
    try:
        with naming(path):
            return parse_yaml(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; run in the project's folder, or pass --params") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: found bytes that are not UTF-8, expected a YAML file in UTF-8") from None


def parse_yaml(text: str, place: Path | str) -> Any:
    """Parse a YAML 1.2 text as DVC does (1e-3 is a number, `no` a text), and convert the values to those of JSON.

    Raises:
        UserError: the text is not valid YAML, has values that JSON cannot represent, or is too long or too deeply
            nested for settings.
    """
    if len(text) > LONGEST:
        raise UserError(f"{place}: found {len(text)} characters, expected settings of at most {LONGEST} characters")
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = _Bounded
    try:
        return json.loads(json.dumps(reader.load(text), default=str))
    except TypeError as error:
        raise UserError(f"{place}: found a key that is not a text ({error}), expected texts as keys") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = str(error.problem).splitlines()[0]
        if isinstance(error, _UnreadableScalarError):
            raise UserError(f"{place}{where}: found a value that cannot be read ({problem}); correct it") from None
        raise UserError(f"{place}{where}: this is not valid YAML ({problem})") from None
    except YAMLError as error:
        raise UserError(f"{place}: this is not valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise UserError(f"{place}: found lists, groups or aliases nested too deep, expected settings") from None
    except ValueError as error:  # a whole number of too many digits that is not written in decimals
        raise UserError(f"{place}: found a value that cannot be read ({str(error).partition(';')[0]})") from None


class _UnreadableScalarError(MarkedYAMLError):
    """A scalar that does not match its tag, such as a number of too many digits."""


class _Bounded(SafeConstructor):
    """Constructs the values of a document only if it stays small with all aliases expanded."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # a hexadecimal number can have more digits than are allowed
            return value
        except (ValueError, LookupError, ArithmeticError, AttributeError) as error:
            problem = str(error).partition(";")[0] or type(error).__name__
            raise _UnreadableScalarError(problem=problem, problem_mark=node.start_mark) from None

    def construct_document(self, node: Node) -> Any:
        length, depth = _extent(node, {})
        if length > LONGEST or depth > DEEPEST:
            raise RecursionError
        return super().construct_document(node)


def _extent(node: Node, extents: dict[int, tuple[float, float]]) -> tuple[float, float]:
    """Return the length and depth of a node with all aliases expanded; both are infinite if it contains itself."""
    if not isinstance(node, CollectionNode):
        return 1 + len(node.value), 0
    if id(node) not in extents:
        extents[id(node)] = math.inf, math.inf  # until its children are computed, of which it may be one
        is_mapping = isinstance(node, MappingNode)
        children = [child for pair in node.value for child in pair] if is_mapping else node.value
        nested = [_extent(child, extents) for child in children]
        length, depth = sum(length for length, _ in nested), max((depth for _, depth in nested), default=0)
        extents[id(node)] = 1 + length, 1 + depth
    return extents[id(node)]
