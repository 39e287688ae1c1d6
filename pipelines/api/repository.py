"""The repository of a new project: git and DVC, as `init` sets them up.

A project in a git repository uses that repository, and its files are staged there, as `dvc init` stages its own. Other
projects get a repository of their own, with a first commit: `dvc exp run` needs one.
"""

import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from postprior.pipelines.errors import UserError, as_user_error
from postprior.pipelines.git import run_git
from postprior.pipelines.publishing import write_text
from postprior.pipelines.settings.round_trip import template
from postprior.pipelines.texts import shell_quoted

DVC_IGNORE = Path(".dvc/.gitignore")
DVC_IGNORED = "/config.local\n/tmp\n/cache\n"
"""What `dvc init` writes to `DVC_IGNORE`: what DVC keeps beside its configuration is not for git."""
DVC_CONFIG = Path(".dvc/config")
PLOTS_PAGE = Path(".dvc/plots/page.html")
"""The page into which `dvc plots` writes the plots: DVC's own loads Vega from a server, this one contains it."""
OF_DVC = (str(DVC_CONFIG), str(DVC_IGNORE), str(PLOTS_PAGE))
MESSAGE = "Create the project with postprior init"
IDENTIFY = 'git config --global user.name "YOUR NAME"', "git config --global user.email YOUR@EMAIL"


@dataclass(frozen=True)
class Repository:
    """The git repository of a project.

    Args:
        project: The folder of the project, which need not exist.
        top: The top folder of the repository; None: without git.
        why: Why there is no git, for the user.
    """

    project: Path
    top: Path | None
    why: str = ""

    @classmethod
    def around(cls, project: Path, git: bool) -> "Repository":
        """Return the repository that the project lies in, or else its own one; nothing is written.

        A repository that ignores the project cannot hold its versions.

        Raises:
            UserError: git refuses the repository, for example because its folder belongs to another user.
        """
        if not git:
            return cls(project, None)
        if shutil.which("git") is None:
            return cls(project, None, "git is not installed")
        place = project.resolve()
        folder = next(path for path in (place, *place.parents) if path.is_dir())
        answer = run_git(folder, "rev-parse", "--show-toplevel")
        if answer.returncode:
            if "not a git repository" not in answer.stderr:
                raise UserError(
                    f"{project}: git refuses the repository in which it lies ({_reason(answer)}), expected one "
                    "that git accepts; follow git's advice, or pass --no-git"
                )
            return cls(project, place)
        files = (str(place / name) for name in ("dvc.yaml", "params.yaml", *OF_DVC))
        ignored = run_git(folder, "check-ignore", "--", *files).stdout
        return cls(project, place if ignored else Path(answer.stdout.rstrip("\n")))

    def set_up(self) -> bool:
        """Make the repositories of git and DVC that do not exist; return whether that of git is new.

        Raises:
            UserError: git or DVC refuses.
        """
        from dvc.exceptions import DvcException
        from dvc.logger import set_loggers_level
        from dvc.repo import Repo

        self.project.mkdir(parents=True, exist_ok=True)
        new = self.top is not None and not (self.top / ".git").exists()
        if new and (reason := self._refusal("init", "--quiet")):
            raise UserError(f"{self.project}: git init failed ({reason}); mend this, or pass --no-git")
        if not (self.project / ".dvc").exists():
            place = self.project.resolve()  # DVC would stage wrong paths through a symbolic link
            below = self.top is not None and self.top != place
            refused = as_user_error(DvcException, f"{self.project}: dvc init failed", "mend this, or pass --no-git")
            with refused, set_loggers_level(logging.WARNING):
                Repo.init(str(place), no_scm=self.top is None, subdir=below).close()
        if not (self.project / DVC_IGNORE).exists():
            write_text(self.project / DVC_IGNORE, DVC_IGNORED)
        for name, text in plots_page(self.project).items():
            write_text(self.project / name, text)
        return new

    def record(self, files: Sequence[str], new: bool) -> list[str]:
        """Stage the files of a project, and commit them if the repository is new; return lines for the user."""
        message = shell_quoted(MESSAGE)
        if self.top is None:
            steps = ("git init", "dvc config --unset core.no_scm", "git add .", f"git commit -m {message}")
            later = " && ".join((f"cd {shell_quoted(self.project)}", *steps))
            return [f"{self.why}, and dvc exp run needs it. After its installation: {later}"] if self.why else []
        commit = f"git -C {shell_quoted(self.project)} commit -m {message} ."
        if reason := self._refusal("add", "--", *files):
            return [f"git did not add the files of the project ({reason}), and dvc exp run needs them in git"]
        if not new:
            needs = " (dvc exp run needs a first commit)" if self._refusal("rev-parse", "--verify", "HEAD") else ""
            return [f"The files are staged in the git repository {self.top}. To commit them{needs}: {commit}"]
        if any(self._refusal("var", f"GIT_{role}_IDENT") for role in ("AUTHOR", "COMMITTER")):
            needs = "git does not know your name, so the project is not committed. dvc exp run needs a commit:"
            return [needs, *(f"  {command}" for command in (*IDENTIFY, commit))]
        if reason := self._refusal("commit", "--quiet", "-m", MESSAGE):
            return [f"git refused the first commit ({reason}), which dvc exp run needs: {commit}"]
        return ["The project is the first commit of a new git repository"]

    def exposed(self, data: Path) -> list[str]:
        """Return a line for the user if `git add` of everything would store the data."""
        place = data.resolve()
        if self.top is None or not place.is_relative_to(self.top):
            return []
        if not run_git(self.top, "ls-files", "--others", "--exclude-standard", "--", str(place)).stdout:
            return []
        pattern = shell_quoted(git_pattern(place.relative_to(self.top)))
        file = shell_quoted(self.top / ".gitignore")
        return [f"git does not ignore {data}, so git add would store the data. To ignore: echo {pattern} >> {file}"]

    def _refusal(self, *arguments: str) -> str:
        """Run git, which guesses no name of the user, and return why it failed; empty if it did not."""
        answer = run_git(self.project, "-c", "user.useConfigOnly=true", *arguments)
        return _reason(answer) if answer.returncode else ""


def plots_page(project: Path) -> dict[str, str]:
    """Return the files that give `dvc plots` our page, by path; none if the project's configuration names another."""
    path, setting = project / DVC_CONFIG, "html_template"
    config = path.read_text(encoding="utf-8") if path.exists() else ""
    line = f"    {setting} = {PLOTS_PAGE.relative_to('.dvc').as_posix()}\n"
    if not re.search(rf"^\s*{setting}\s*=", config, re.MULTILINE):
        section = "[plots]\n"
        head, _, rest = config.partition(section) if section in config else (config, "", "")
        config = f"{head}{section}{line}{rest}"
    return {str(DVC_CONFIG): config, str(PLOTS_PAGE): template("plots.html")} if line.strip() in config else {}


def git_pattern(folder: Path) -> str:
    r"""Return the line of .gitignore that matches one folder, given relative to that file.

    >>> print(git_pattern(Path("my data/[1]")))
    /my data/\[1]/
    """
    escaped = re.sub(r"([\\*?[])", r"\\\1", folder.as_posix())
    return f"/{escaped}/"


def _reason(answer: CompletedProcess[str]) -> str:
    """Return why git failed: what it said last."""
    return (answer.stderr or answer.stdout).strip().rpartition("\n")[2].removeprefix("fatal: ") or "no reason given"
