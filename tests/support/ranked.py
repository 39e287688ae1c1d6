"""Functions and commands that run in several ranks at once: processes of a server that has torch already."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

from support.forked import LIMIT, SERVER, Command

STORES: list[TCPStore] = []
"""The stores of all jobs, which outlive their ranks, as that of torchrun does."""


def variables(size: int) -> list[dict[str, str]]:
    """The variables that torchrun sets for each rank of a job."""
    STORES.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(STORES[-1].port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    counts = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), **counts, **place} for rank in range(size)]


def on_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function with its `Ranks` and the arguments in each of some ranks; all of them must succeed."""
    processes = [SERVER.Process(target=_rank, args=(each, function, arguments)) for each in variables(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * size


def commands(root: Path, words: str, size: int = 2) -> list[Command]:
    """The ranks of a command of the command line, which run from now on."""
    return [Command(root, words, each) for each in variables(size)]


def _rank(environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    from postprior.pipelines.ranks import meet

    torch.set_num_threads(1)
    os.environ.update(environment)
    function(meet(), *arguments)
