"""Functions that run in several ranks at once: processes of a server that has torch already."""

import socket
from collections.abc import Callable
from typing import Any

from postprior.stage1_vae.ranks import Ranks
from support.forked import LIMIT, SERVER


def on_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function with `Ranks` and the arguments in each of some ranks; all of them must succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [SERVER.Process(target=_rank, args=(rank, size, port, function, arguments)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * size


def _rank(rank: int, size: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    function(Ranks(rank, size), *arguments)
    distributed.destroy_process_group()
