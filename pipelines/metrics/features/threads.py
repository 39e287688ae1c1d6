"""Independent trainings in parallel threads."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import torch


def exhaust(tasks: Sequence[Iterable[object]]) -> None:
    """Iterate over each task to its end, in one thread each and as many at a time as torch may use threads.

    Operations on small tensors are not faster on several threads, but independent ones can run side by side: torch
    releases the interpreter's lock. Threads that the tasks leave unused go to the operations inside the tasks. The
    tasks must not share a random generator or use the global one. After an error or a signal, every task stops at its
    next item.
    """
    available, stopped = torch.get_num_threads(), Event()
    parallel = max(1, min(available, len(tasks)))
    limit = partial(torch.set_num_threads, available // parallel)

    def run(task: Iterable[object]) -> None:
        for _ in task:
            if stopped.is_set():
                break

    limit()  # a thread of the pool sets its own limit, and the global one of MKL
    try:
        with ThreadPoolExecutor(parallel, initializer=limit) as pool:
            try:
                for done in [pool.submit(run, task) for task in tasks]:
                    done.result()
            except BaseException:
                stopped.set()
                raise
    finally:
        torch.set_num_threads(available)
