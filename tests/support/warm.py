"""The console script in forked processes: their libraries are imported once, so that a command takes little more than
its own work. Run as a script, this file is the server that forks; it imports none of our modules.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import site
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

LIBRARIES = (
    *("torch", "normflows", "safetensors.torch", "scipy.stats", "threadpoolctl", "PIL.Image", "pandas"),
    *(f"sklearn.{part}" for part in ("datasets", "linear_model", "mixture", "neighbors", "preprocessing")),
    *("matplotlib.pyplot", "jinja2", "pydantic", "ruamel.yaml", "rich.console", "typer"),
)
"""What stages import of others and takes long."""
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(4) or 1))
"""


@contextmanager
def console_script(folder: Path) -> Iterator[Path]:
    """Write a script `postprior` to a folder, which works until the context ends.

    It hands its arguments, folder, environment and streams to the server, and ends with the exit code of the command.
    """
    with TemporaryDirectory() as short:  # the path of a socket has at most 100 bytes or so
        address, script = f"{short}/server", folder / "postprior"
        script.write_text(CLIENT.format(python=sys.executable, address=address))
        script.chmod(0o755)
        command = [sys.executable, __file__, address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield folder  # then stdin is closed, which ends the server


def serve(address: str) -> None:
    """Answer the requests at a socket, each in its own process, until stdin is closed."""
    for name in LIBRARIES:
        import_module(name)
    gc.freeze()  # no fork looks through the libraries for garbage, which would copy their memory
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                answer(connection)
                os._exit(0)
            connection.close()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:  # those that have ended
                    pass


def answer(connection: socket.socket) -> None:
    """Run the command of a request in a new process, and send its exit code."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile().read())
    if process := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        connection.sendall(str(code & 0xFF).encode())
    else:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        leave(lambda: be_the_console_script(*request))


def be_the_console_script(arguments: Sequence[str], folder: str, environment: Mapping[str, str]) -> NoReturn:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["postprior", *arguments]
    sys.modules.pop("sitecustomize", None)  # that of the distribution, which the server has imported
    site.execsitecustomize()
    from postprior.pipelines.commands import main

    sys.exit(main())


def leave(command: Callable[[], object]) -> NoReturn:
    """Run a command that ends as a process does, but let the system free its memory: Python would take the libraries
    apart module by module, which takes longer than most commands.
    """
    code: object = 1
    try:
        command()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


if __name__ == "__main__":
    serve(sys.argv[1])
