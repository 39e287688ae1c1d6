"""The command line, with one command per stage or application: each loads params.yaml and calls the function.

No slow module is imported here: every command imports what it runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from postprior.pipelines import ranks
from postprior.pipelines.commands import applications, data, environment, stages
from postprior.pipelines.errors import UserError, naming
from postprior.pipelines.settings.renames import COMMANDS
from postprior.pipelines.texts import OUTPUT, tell, tell_failure
from postprior.stage1_vae.imports import UserCodeError

BROKEN_PIPE = 141
"""The exit code that shells give programs which SIGPIPE ends: 128 + its number."""

SHARED = ("train", "encode", "generate", "impute", "detect", "represent")
"""Commands whose rows several ranks share."""


class OneLineErrors(TyperGroup):
    """Group of commands that reports errors as `in_one_line` does.

    These are errors of the user, errors of user-defined code, and errors of the system.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; the name of an earlier version raises an error with the current name."""
        if ctx.resilient_parsing:  # the completion of a shell asks, and shows no errors
            return super().resolve_command(ctx, args)
        if args and (new := COMMANDS.get(args[0])):
            raise UserError(
                f"found the command {args[0]}, the name of an earlier version, expected {new}; "
                "if dvc.yaml has it, run postprior upgrade"
            )
        if args and args[0] not in SHARED and ranks.size() > 1:
            raise UserError(
                f"{args[0]}: found {ranks.size()} processes, expected one, because only {', '.join(SHARED)} "
                "share their rows among processes; start it without torchrun"
            )
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the arguments; `--help` writes here."""
        with in_one_line(), naming(OUTPUT):
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with in_one_line():
            return super().invoke(ctx)


class NamedOutput(TyperCommand):
    """Command that names the standard output if its help cannot be written there."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the arguments; `--help` writes here."""
        with naming(OUTPUT):
            return super().make_context(*args, **kwargs)


@contextmanager
def in_one_line() -> Iterator[None]:
    """Report the errors of the block in one line on stderr and exit with code 1.

    If the reader of a pipe has ended, as in `postprior plan | head -1`, there is no line and the code is `BROKEN_PIPE`.
    """
    try:
        yield
        return
    except BrokenPipeError:
        raise typer.Exit(BROKEN_PIPE) from None
    except (UserError, UserCodeError) as error:
        message = str(error)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        message = f"{place}{error.strerror or error}"
    except MemoryError:
        message = "out of memory; use fewer rows or draws"
    tell_failure(f"postprior: error: {message}")
    raise typer.Exit(1)


def _tell_version(wanted: bool) -> None:
    """Print the version of the package and end."""
    if wanted:
        from importlib.metadata import version

        tell(f"postprior {version('postprior')}")
        raise typer.Exit


app = typer.Typer(
    cls=OneLineErrors,
    help="Generate synthetic multimodal data from a density fitted to the latent codes of an autoencoder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options that come before a command."""


for group in (data.app, stages.app, applications.app, environment.app):
    for command in group.registered_commands:
        command.cls = NamedOutput
    app.add_typer(group)
