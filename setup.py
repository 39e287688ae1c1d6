"""What pyproject.toml cannot hold: the README as metadata, with links that work where it is shown alone."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from setuptools import setup

HERE = Path(__file__).parent
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?://|mailto:)([^)\s]+)\)")
"""A Markdown link or image whose target is a file of this repository, or a heading of the README."""


def standalone(readme: str, project: Mapping[str, Any]) -> str:
    """Return the README with links to the files of this version in the repository of the project.

    `project` is the table of pyproject.toml. As long as its `urls` have no `Repository`, links become their texts, and
    images are left out.
    """
    version = project["version"]
    ref = "main" if "dev" in version else f"v{version}"
    repository = project.get("urls", {}).get("Repository", "").rstrip("/")

    def absolute(link: re.Match[str]) -> str:
        image, text, target = link.groups()
        if not repository:
            return "" if image else text
        place = f"README.md{target}" if target.startswith("#") else target
        return f"{image}[{text}]({repository}/{'raw' if image else 'blob'}/{ref}/{place})"

    return LINK.sub(absolute, readme)


if __name__ == "__main__":
    table = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(
        long_description=standalone((HERE / "README.md").read_text(encoding="utf-8"), table),
        long_description_content_type="text/markdown",
    )
