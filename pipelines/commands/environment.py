"""The command `doctor`, which checks the environment of all other commands."""

from pathlib import Path
from typing import Annotated

import typer

from postprior.pipelines.texts import tell

app = typer.Typer()


@app.command()
def doctor(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="The folder of the project, or of work.")] = Path(),
) -> None:
    """Tell versions, devices and what is wrong, and how to mend it.

    The exit code is 1 if something stops work.
    """
    from postprior.pipelines.api.doctor import doctor, is_stopped, told

    findings = doctor(project)
    tell(*told(findings))
    if is_stopped(findings):
        raise typer.Exit(1)
