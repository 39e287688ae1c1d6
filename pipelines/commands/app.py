"""The command line, one command a stage or use: load params.yaml, call, turn errors into one line.

Nothing heavy is imported here: a command imports what it runs.
"""

import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from postprior.pipelines.commands import applications, data, stages
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.renames import COMMANDS
from postprior.pipelines.texts import tell


class Told(TyperGroup):
    """The commands: what ends one of them is told in one sentence on stderr, with exit code 1.

    Mistakes, faults of the machine, and own code of the user that ends the program.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; an earlier name answers with the current one."""
        if args and (new := COMMANDS.get(args[0])):
            raise UserError(
                f"found the command {args[0]}, the name of an earlier version, expected {new}; "
                "if dvc.yaml has it, run postprior upgrade"
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            told = str(error)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            told = f"{place}{error.strerror or error}"
        except MemoryError:
            told = "more than the memory holds; give fewer rows or draws"
        except SystemExit as error:  # a network or an extractor of the user's own
            *_, (frame, line) = traceback.walk_tb(error.__traceback__)
            told = f"{frame.f_code.co_filename}, line {line}: the program was ended here; take that call out"
        tell(f"postprior: error: {told}", err=True)
        raise typer.Exit(1)


app = typer.Typer(
    cls=Told,
    help="Multimodal synthetic data from a latent prior that is fitted after the autoencoder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (data.app, stages.app, applications.app):
    app.add_typer(part)
