"""The console script `postprior`. It minds signals before it imports what takes time."""

import os
import warnings

from postprior.pipelines import signals


def main() -> None:
    """Run the command line; a signal ends it with one line."""
    try:
        signals.watch()
        # Torch's threads spin while they wait for one another, by GNU OpenMP's default for 300,000 turns: two trainings
        # side by side on two cores were then 25 times as slow as one alone. A thirtieth of that costs nothing alone.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
        from postprior.pipelines.commands.app import app
        from postprior.pipelines.texts import format_warning

        warnings.formatwarning = format_warning
        app()
    finally:
        signals.exit_if_ended()
