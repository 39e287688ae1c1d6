"""Tasks in parallel threads: all end, errors stop the others, and the limits of threads are as before."""

import threading
from collections.abc import Iterator

import pytest
import torch

from postprior.pipelines.metrics.features.threads import exhaust


def test_tasks_run_side_by_side_with_their_share_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(torch, "set_num_threads", limits.append)
    barrier, ended = threading.Barrier(3, timeout=10), []

    def task(number: int) -> Iterator[None]:
        barrier.wait()  # passes only if all three wait at the same time
        yield
        ended.append(number)

    exhaust([task(number) for number in range(3)])
    assert sorted(ended) == [0, 1, 2]
    assert limits == [2] * 4 + [6]


def test_an_error_stops_the_other_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)

    def failing() -> Iterator[None]:
        yield
        raise ValueError("no")

    def endless() -> Iterator[None]:
        while True:
            yield

    with pytest.raises(ValueError, match="no"):
        exhaust([failing(), endless(), endless()])
