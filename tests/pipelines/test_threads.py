"""Tasks in parallel threads: all end, errors stop the others, and the limits of threads are as before."""

import threading
from collections.abc import Iterator

import pytest
import torch

from postprior.pipelines.threads import FEW, available, exhaust, in_order, suited_to
from postprior.stage1_vae.modalities import Modality


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


def test_results_come_in_order_from_few_threads_in_the_mode_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", limits.append)
    barrier, begun = threading.Barrier(2, timeout=10), []

    def square(number: int) -> tuple[int, bool]:
        begun.append(number)
        barrier.wait()  # passes only if two wait at the same time
        return number**2, torch.is_grad_enabled()

    with torch.no_grad():
        results = in_order(square, range(6))
        assert next(results) == (0, False)
        assert len(begun) <= 4
        assert [*results] == [(number**2, False) for number in range(1, 6)]
    assert limits == [1] * 3 + [2]
    assert [*in_order(square, [])] == []


def test_an_error_of_a_result_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    begun: list[int] = []

    def failing(number: int) -> None:
        begun.append(number)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        [*in_order(failing, range(100))]
    assert len(begun) < 10


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_operations_on_tables_have_one_thread_and_computations_run_side_by_side() -> None:
    table, image = Modality("t", "vector", (FEW,), "normal"), Modality("x", "image", (1, 8, 8), "normal")
    barrier = threading.Barrier(2, timeout=10)

    def threads(_: int) -> int:
        barrier.wait()  # passes only if two wait at the same time
        return torch.get_num_threads()

    with suited_to([table]):
        assert (torch.get_num_threads(), available()) == (1, 2)
        assert [*in_order(threads, range(2))] == [1, 1]
        assert torch.get_num_threads() == 1
    for modalities in ([table, image], [table, Modality("more", "vector", (1,), "normal")]):
        with suited_to(modalities):
            assert torch.get_num_threads() == 2
    assert (torch.get_num_threads(), available()) == (2, 2)
