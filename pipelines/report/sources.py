"""Where results lie: a project's folder, or a revision of git in which they are committed; neither is touched."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postprior.pipelines.artefacts.project import earlier
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.renames import renamed
from postprior.pipelines.settings.yaml_text import parse_yaml

SETTINGS = Path("params.yaml")


@dataclass(frozen=True)
class Source:
    """Files of a project, by their paths from its root: as they lie there, or as they were committed under any name."""

    root: Path
    commit: str = ""

    def text(self, path: Path) -> str | None:
        """The content of a file, None where there is none."""
        if self.commit:
            return _git(self.root, "show", f"{self.commit}:./{path.as_posix()}")
        file = self.root / path
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def place(self, path: Path) -> str:
        """The file's name for messages."""
        return f"{self.commit[:12]}:{path.as_posix()}" if self.commit else str(self.root / path)


def find_source(label: str, named: str, root: Path) -> Source:
    """The source that a user names: a folder, a revision of git, or an experiment of DVC; a UserError without one."""
    folder = Path(named)
    source = Source(folder.resolve()) if folder.is_dir() else Source(root, _commit(label, named, root))
    if source.text(SETTINGS) is None:
        raise UserError(
            f"--with {label}: no params.yaml found in '{named}', expected the root of a project; correct the source"
        )
    return source


def settings(source: Source) -> dict[str, Any]:
    """The settings of a source, as its params.yaml has them: another version may have had other keys."""
    tree = parse_yaml(source.text(SETTINGS) or "", source.place(SETTINGS))
    names = tree.get("densities") if isinstance(tree, Mapping) else None
    if not isinstance(names, list) or not names:
        raise UserError(f"{source.place(SETTINGS)}: no densities found, expected a list of their names")
    return renamed(tree)


def content(source: Source, path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of a source, None where there is no such file."""
    text, old = source.text(path), earlier(path)
    if text is None and old is not None:
        text = source.text(old)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source.place(path)}: not a JSON file ({error}); make it again.") from None
    if not isinstance(value, dict):
        raise UserError(f"{source.place(path)}: expected a JSON object, found another value; make it again.")
    return value


def _commit(label: str, named: str, root: Path) -> str:
    """The commit of a revision, or of the experiment with that name."""
    if found := _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{named}^{{commit}}"):
        return found.strip()
    references = _git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or ""  # DVC's experiments
    commits = {line.split()[0] for line in references.splitlines() if line.endswith(f"/{named}")}
    if len(commits) > 1:
        raise UserError(
            f"--with {label}: found {len(commits)} experiments named '{named}', expected one; give its revision"
        )
    if not commits:
        raise UserError(
            f"--with {label}: found no folder, revision of git or experiment of DVC named '{named}'; correct it "
            "(`git log` and `dvc exp list --all` name them)"
        )
    return commits.pop()


def _git(root: Path, *arguments: str) -> str | None:
    """What git says, None where it fails."""
    try:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("--with: git was not found, which reads results of revisions; install it") from None
    return answer.stdout.decode() if answer.returncode == 0 else None
