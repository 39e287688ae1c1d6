"""Independent computations in parallel threads.

Operations on small tensors are not faster on several threads, but independent ones can run side by side: torch releases
the interpreter's lock. Threads that the computations leave unused go to the operations inside them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def exhaust(tasks: Sequence[Iterable[object]]) -> None:
    """Iterate over each task to its end, in one thread each and as many at a time as torch may use threads.

    The tasks must not share a random generator or use the global one. After an error or a signal, every task stops at
    its next item.
    """
    stopped = Event()

    def run(task: Iterable[object]) -> None:
        for _ in task:
            if stopped.is_set():
                break

    with _threads(len(tasks)) as (pool, _):
        try:
            for done in [pool.submit(run, task) for task in tasks]:
                done.result()
        except BaseException:
            stopped.set()
            raise


def in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield the results of a function for each item, in order, as many computed at a time as torch may use threads.

    The calls must not share a random generator or use the global one. They are only a little ahead of the caller, so
    that few results are in memory. The caller's own operations use one share of the threads meanwhile. Gradients are
    computed if the caller computes them.
    """
    if min(torch.get_num_threads(), len(items)) < 2:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    gradients = torch.is_grad_enabled()  # a new thread would compute them

    def call(item: Item) -> Result:
        with torch.set_grad_enabled(gradients):
            return function(item)

    with _threads(len(items)) as (pool, parallel):
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) > parallel:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _threads(most: int) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Share the threads of torch among the threads of a pool, at most so many, and return the pool and their number."""
    available = torch.get_num_threads()
    parallel = max(1, min(available, most))
    limit = partial(torch.set_num_threads, available // parallel)
    limit()  # a thread of the pool sets its own limit, and the global one of MKL
    try:
        with ThreadPoolExecutor(parallel, initializer=limit) as pool:
            yield pool, parallel
    finally:
        torch.set_num_threads(available)
