"""What stands in the place of a score that cannot be computed."""

from dataclasses import dataclass
from typing import Any

Written = dict[str, Any]  # an estimate in a file


@dataclass(frozen=True)
class Missing:
    """A score that cannot be computed, and why, in one clause."""

    why: str

    @property
    def written(self) -> Written:
        """What stands in the place of the score's estimate."""
        return {"value": None, "why": self.why}
