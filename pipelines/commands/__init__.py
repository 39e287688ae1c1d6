"""The console script `postprior`. It handles signals before it imports slow modules."""

import atexit
import gc
import os
import warnings

from postprior.pipelines import ranks, signals
from postprior.pipelines.commands import streams


def main() -> None:
    """Run the command line; a signal ends it with one line."""
    try:
        signals.watch()
        streams.prepare()
        atexit.register(gc.freeze)  # Python would look through torch for garbage, twice, before it ends
        # By default, threads of GNU OpenMP spin for 300,000 turns while they wait for one another: two trainings in
        # parallel on two cores were then 25 times as slow as one alone. A thirtieth of the turns has no cost for one.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
        if ranks.size() > 1:
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns at length when another rank has ended
        from postprior.pipelines.commands.app import app
        from postprior.pipelines.texts import format_warning

        warnings.formatwarning = format_warning
        app(prog_name="postprior")
    finally:
        streams.drop_unwritten()
        signals.exit_if_ended()
