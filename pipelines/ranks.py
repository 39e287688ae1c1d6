"""Ranks of a command: its processes that torchrun, `accelerate launch` or srun started, which share its rows.

Launchers describe the job in the variables of torch.distributed: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE,
MASTER_ADDR and MASTER_PORT. Rank 0 alone writes results, logs and prints.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from postprior.pipelines.errors import UserError

if TYPE_CHECKING:
    from postprior.stage1_vae.ranks import Ranks

MEETING, TIMEOUT = timedelta(minutes=10), timedelta(hours=3)
"""Longest times for which a rank waits for another one: until they have met, and afterwards."""
_stores: list[Any] = []
"""What the ranks of this job have in common, once they have met."""


def size() -> int:
    """Return the number of ranks."""
    return _variable("WORLD_SIZE", 1)


def number() -> int:
    """Return the number of this rank; 0 if there is only one."""
    return _variable("RANK", 0) if size() > 1 else 0


@cache
def meet() -> Ranks:
    """Meet the other ranks, which call this function as well. On a host with accelerators each rank takes one."""
    from postprior.stage1_vae.ranks import ALONE, Ranks, brief

    if size() == 1:
        return ALONE
    import torch
    from torch import distributed

    accelerators = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if accelerators:
        torch.accelerator.set_device_index(_variable("LOCAL_RANK", 0) % accelerators)
    here = _variable("LOCAL_WORLD_SIZE", size())
    backend = None if 0 < here <= accelerators else "gloo"  # the other backends refuse to share an accelerator
    try:
        store, rank, count = next(distributed.rendezvous("env://", timeout=TIMEOUT))
        if here == count:  # then torchrun keeps its store when it starts the ranks again
            store = distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", ""), store)
        store.set(f"rank {rank}", "here")  # a rank that dies before they have met cannot be noticed
        store.wait([f"rank {each}" for each in range(count)], MEETING)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"ranks: {size()} processes cannot meet ({brief(error)}); start them with torchrun, or set RANK, "
            "WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each"
        ) from None
    _stores.append(store)
    return Ranks(rank, count)


def check_same(job: Ranks, command: str, key: str) -> None:
    """Raise a UserError unless all ranks call this with the same hash of their inputs."""
    if (first := job.from_first(key.encode()).decode()) != key:
        raise UserError(
            f"{command}: rank {job.rank} found other settings, data or code than rank 0, {key} instead of {first}, "
            "expected the same on all hosts; copy the project to all of them"
        )


def is_first_to_tell() -> bool:
    """Return whether this rank is the first one that asks, which then tells why the job ends."""
    if not _stores:
        return number() == 0
    with suppress(Exception):  # the store may have ended with its process
        return bool(_stores[0].add("told", 1) == 1)
    return True


def _variable(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
