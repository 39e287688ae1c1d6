"""Independent computations in parallel threads.

Operations on small tensors are not faster on several threads, but independent ones can run side by side: torch releases
the interpreter's lock. Threads that the computations leave unused go to the operations inside them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from threading import Event
from typing import TypeVar

import torch

from postprior.stage1_vae.modalities import Modality

Item = TypeVar("Item")
Result = TypeVar("Result")
FEW = 256  # values of a row, up to which operations on batches are small
_side_by_side: ContextVar[int | None] = ContextVar("threads of computations side by side", default=None)


def available() -> int:
    """Return how many computations may run side by side: as many as torch may use threads, or might outside."""
    return _side_by_side.get() or torch.get_num_threads()


def suited_to(modalities: Iterable[Modality]) -> AbstractContextManager[None]:
    """Run the operations on tables and short vectors on one thread each inside the block.

    They are small: on two threads, training on a table takes as long as on one, and twice the processor time, and many
    fits and scores take longer. `in_order` and `exhaust` still run computations side by side.
    """
    modalities = list(modalities)
    small = all(m.tabular for m in modalities) and sum(m.shape[0] for m in modalities) <= FEW
    return _one_thread_each() if small else nullcontext()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    from threadpoolctl import threadpool_limits

    before, token = torch.get_num_threads(), _side_by_side.set(available())
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
        _side_by_side.reset(token)


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
    if min(available(), len(items)) < 2:
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
    before = torch.get_num_threads()
    parallel = max(1, min(available(), most))
    limit = partial(torch.set_num_threads, max(1, before // parallel))
    limit()  # a thread of the pool sets its own limit, and the global one of MKL
    try:
        with ThreadPoolExecutor(parallel, initializer=limit) as pool:
            yield pool, parallel
    finally:
        torch.set_num_threads(before)
