"""Settings that record which of their values are read."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel


class Recorded:
    """A section of settings that adds the dotted key of every value that is read to `read`.

    Properties and methods of the class of the section run on this object, so that what they read is recorded too.
    Values that `model_copy` replaces no longer come from the settings and are not recorded.
    """

    def __init__(self, section: BaseModel, read: set[str], prefix: str = "", replaced: frozenset[str] = frozenset()):
        self._section, self._read, self._prefix, self._replaced = section, read, prefix, replaced

    def __getattr__(self, name: str) -> Any:
        kind = type(self._section)
        if name in kind.model_fields:
            value = getattr(self._section, name)
            if name in self._replaced:
                return value
            return value if isinstance(value, Recorded) else _recorded(value, self._read, self._prefix + name)
        if name == "__pydantic_extra__":
            return Entries(self._section.__pydantic_extra__ or {}, self._read, self._prefix)
        if name in kind.__private_attributes__:
            return getattr(self._section, name)
        member = inspect.getattr_static(kind, name)
        if isinstance(member, property):
            return member.fget(self)
        return partial(member, self)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Return the section as a dictionary; every value counts as read."""
        dumped = self._section.model_dump(**options)
        for name in dumped.keys() - self._replaced:
            inner = getattr(self._section, name)
            self._read |= inner._read if isinstance(inner, Recorded) else set(_keys(dumped[name], self._prefix + name))
        return dumped

    def model_dump_json(self) -> str:
        """Return the section as JSON; every value counts as read."""
        self.model_dump()
        return self._section.model_dump_json()

    def model_copy(self, update: Mapping[str, Any]) -> Recorded:
        """Return a copy with other values, which records to the same set."""
        copy = self._section.model_copy(update=dict(update))
        return Recorded(copy, self._read, self._prefix, self._replaced | update.keys())


class Entries(dict[str, Any]):
    """Options by name; an option counts as read when it is looked up."""

    def __init__(self, entries: Mapping[str, Any], read: set[str], prefix: str):
        super().__init__(entries)
        self._read, self._prefix = read, prefix

    def __getitem__(self, name: str) -> Any:
        self._read |= set(_keys(super().__getitem__(name), self._prefix + name))
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """One of the entries."""
        return super().get(name, default) if name not in self else self[name]


def _recorded(value: Any, read: set[str], key: str) -> Any:
    if isinstance(value, BaseModel):
        return Recorded(value, read, f"{key}.")
    if isinstance(value, dict) and value and all(isinstance(inner, dict) for inner in value.values()):
        return Entries(value, read, f"{key}.")
    read |= set(_keys(value, key))
    return value


def _keys(value: Any, key: str) -> Iterator[str]:
    """The dotted keys of all values beneath one; an empty mapping is a value."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _keys(inner, f"{key}.{name}")
    else:
        yield key
