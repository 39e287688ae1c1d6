"""The command line, one command a stage or use: load params.yaml, call, turn errors into one line.

Nothing heavy is imported here: a command imports what it runs.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from postprior.pipelines.commands import data, stages, uses
from postprior.pipelines.commands.running import told_in_one_line


class Told(TyperGroup):
    """The commands; whatever ends one of them is told in one line."""

    def invoke(self, ctx: Any) -> Any:
        with told_in_one_line():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Told,
    help="Multimodal synthetic data from a latent prior that is fitted after the autoencoder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (data.app, stages.app, uses.app):
    app.add_typer(part)
