"""Change YAML files in place; comments, order and quotes stay."""

import re
from importlib.resources import files
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

TEMPLATES = ("params.yaml", "dvc.yaml")
"""Files of every project for which the package has a template."""


def template(name: str) -> str:
    """Return the text of one of the `TEMPLATES`, or of another file of a project that the package has."""
    return (files("postprior.pipelines.settings") / "templates" / name).read_text(encoding="utf-8")


def read_tree(text: str) -> Any:
    """Parse a YAML text to a tree that keeps its comments."""
    return _yaml().load(text)


def yaml_text(tree: Any, like: str) -> str:
    """Write a tree as YAML, with lists indented as in the text `like`."""
    yaml, stream = _yaml(), StringIO()
    if re.search(r"^( *)\S.*:\n\1  - ", like, re.MULTILINE):
        yaml.indent(sequence=4, offset=2)
    yaml.dump(tree, stream)
    return stream.getvalue()


def in_flow_style(value: Any) -> Any:
    """Return the value in a form that is written on one line."""
    if isinstance(value, list | dict):
        value = CommentedSeq(value) if isinstance(value, list) else CommentedMap(value)
        value.fa.set_flow_style()
    return value


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # no line is wrapped
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml
