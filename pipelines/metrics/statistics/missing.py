"""The placeholder for a score that cannot be computed."""

from dataclasses import dataclass
from typing import Any

Written = dict[str, Any]  # an estimate as results files store it


@dataclass(frozen=True)
class Missing:
    """A score that cannot be computed, with the reason in one clause."""

    why: str

    @property
    def written(self) -> Written:
        """The entry that replaces the score's estimate in a results file."""
        return {"value": None, "why": self.why}
