"""Read files from a project folder or from a git revision, without changing either."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from postprior.pipelines.artefacts.project import Project, earlier
from postprior.pipelines.errors import UserError
from postprior.pipelines.git import run_git
from postprior.pipelines.settings.params import leaves
from postprior.pipelines.settings.profiles import FULL, PROFILES, of_profile, values_by_profile
from postprior.pipelines.settings.renames import renamed
from postprior.pipelines.settings.yaml_text import parse_yaml
from postprior.pipelines.texts import as_text

SETTINGS = Path("params.yaml")
CHANGES = 3
"""Most changed settings that name an experiment."""
BY_MODALITY = ("modalities", "features", "spaces", "spread", "temperature", "drawn_anew")
"""Keys of results whose values are by modality."""


@dataclass(frozen=True)
class Source:
    """A project whose files are read by their paths from its root: from the folder, or from a git commit if given.

    `titles` are the names of modalities for readers, by key, where these differ.
    """

    root: Path
    commit: str = ""
    titles: Mapping[str, str] = field(default_factory=dict)

    def text(self, path: Path) -> str | None:
        """The content of a file, or None if there is no such file."""
        if self.commit:
            return _git(self.root, "show", f"{self.commit}:./{path.as_posix()}")
        file = self.root / path
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def place(self, path: Path) -> str:
        """The file's name for messages."""
        return f"{self.commit[:12]}:{path.as_posix()}" if self.commit else str(self.root / path)


def find_source(label: str, place: str, root: Path) -> Source:
    """Return the source at a folder, git revision or DVC experiment; raise a UserError if there is none."""
    folder = Path(place)
    source = Source(folder.resolve()) if folder.is_dir() else Source(root, _commit(label, place, root))
    if source.text(SETTINGS) is None:
        raise UserError(
            f"--with {label}: no params.yaml found in '{place}', expected the root of a project; correct the source"
        )
    return source


def experiments(root: Path) -> dict[str, str]:
    """Return the commits of the DVC experiments of the current commit, by what they change, such as `model=mopoe`.

    An experiment that changes no setting, or more than `CHANGES`, has its own name, and so has one of several that
    change the same. One with the settings and the results of the commit itself is left out.

    Raises:
        UserError: There are none.
    """

    def results(commit: str) -> str | None:
        return _git(root, "rev-parse", "--verify", "--quiet", f"{commit}:./{Project(Path()).results.home.as_posix()}")

    head = (_git(root, "rev-parse", "--verify", "--quiet", "HEAD") or "").strip()
    place = f"refs/exps/{head[:2]}/{head[2:]}"
    lines = (_git(root, "for-each-ref", "--format=%(objectname) %(refname)", place) or "").splitlines() if head else []
    before = dict(leaves(settings(Source(root, head)))) if lines else {}
    found: dict[str, str] = {}
    for commit, _, reference in (line.partition(" ") for line in lines):
        after = leaves(settings(Source(root, commit)))
        changed = [f"{key.rpartition('.')[2]}={as_text(value)}" for key, value in after if before.get(key) != value]
        if not changed and results(commit) == results(head):
            continue
        label = ", ".join(changed) if 0 < len(changed) <= CHANGES else ""
        found[label if label and label not in found else reference.rpartition("/")[2]] = commit
    if not found:
        raise UserError(
            "--experiments: found no DVC experiment of the current commit; make some, such as "
            "`dvc exp run --queue -S vae.model=mvtcae,mopoe` and `dvc exp run --run-all`, or name others by --with"
        )
    return found


def settings(source: Source) -> dict[str, Any]:
    """Return the settings in a source's params.yaml under their current names, with the values of its profile.

    They are not checked otherwise.
    """
    tree = parse_yaml(source.text(SETTINGS) or "", source.place(SETTINGS))
    names = tree.get("densities") if isinstance(tree, Mapping) else None
    if not isinstance(names, list) or not names:
        raise UserError(f"{source.place(SETTINGS)}: no densities found, expected a list of names")
    values = values_by_profile(tree, source.place(SETTINGS))
    profile = tree.get("profile")
    return renamed(of_profile(tree, profile if profile in PROFILES else FULL, values))


def content(source: Source, path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file of a source, or None if neither its path nor its earlier path exists.

    Modalities have their titles in place of their keys.
    """
    text, old_path = source.text(path), earlier(path)
    if text is None and old_path is not None:
        text = source.text(old_path)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(
            f"{source.place(path)}: not a JSON file ({error}); run the stage that writes it again"
        ) from None
    if not isinstance(value, dict):
        raise UserError(
            f"{source.place(path)}: expected a JSON object, found another value; run the stage that writes it again"
        )
    return titled(value, source.titles) if source.titles else value


def titled(tree: Any, titles: Mapping[str, str], inside: bool = False) -> Any:
    """Return results with titles of modalities in place of their keys, in texts and, if `inside`, as keys of a mapping.

    >>> titled({"mean": 1, "modalities": {"mean": {"why": "no rows with mean"}}}, {"mean": "平均"})
    {'mean': 1, 'modalities': {'平均': {'why': 'no rows with 平均'}}}
    """
    if isinstance(tree, dict):
        return {
            titles.get(key, key) if inside else key: titled(value, titles, key in BY_MODALITY)
            for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [titled(value, titles) for value in tree]
    if isinstance(tree, str):
        keys = "|".join(map(re.escape, titles))
        return re.sub(rf"(?<![\w-])({keys})(?![\w-])", lambda match: titles[match[0]], tree)
    return tree


def _commit(label: str, name: str, root: Path) -> str:
    """Return the commit of a git revision or of a DVC experiment."""
    if commit := _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"):
        return commit.strip()
    references = _git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or ""  # DVC's experiments
    commits = {line.split()[0] for line in references.splitlines() if line.endswith(f"/{name}")}
    if len(commits) > 1:
        raise UserError(
            f"--with {label}: found {len(commits)} experiments named '{name}', expected one; give its revision instead"
        )
    if not commits:
        raise UserError(
            f"--with {label}: found no folder, git revision or DVC experiment named '{name}'; correct the name "
            "(`git log` and `dvc exp list --all` list the names)"
        )
    return commits.pop()


def _git(root: Path, *arguments: str) -> str | None:
    """Return the output of a git command, or None if it fails."""
    try:
        answer = run_git(root, *arguments)
    except FileNotFoundError:
        raise UserError("--with: found no git, which is needed to read results of revisions; install git") from None
    return answer.stdout if answer.returncode == 0 else None
