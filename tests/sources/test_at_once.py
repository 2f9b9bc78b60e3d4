"""Steps at once: all are taken, in threads, and none goes on after the answer."""

from threading import Barrier, Event, Lock

import pytest

from sources.at_once import AtOnce


def test_the_results_are_in_the_order_of_the_items() -> None:
    assert AtOnce(4)(lambda n: n * n, range(100)) == [n * n for n in range(100)]
    assert AtOnce(4)(lambda n: n, []) == []


def test_the_steps_are_under_way_at_the_same_time() -> None:
    all_there = Barrier(4, timeout=20)
    AtOnce(4)(lambda _: all_there.wait(), range(4))


def test_an_error_is_raised_once_nothing_is_under_way_and_no_more_is_begun() -> None:
    begun, ended, lock = set(), set(), Lock()
    failed = Event()

    def step(n: int) -> None:
        with lock:
            begun.add(n)
        if n == 1:
            failed.set()
            raise ValueError(n)
        assert failed.wait(20)
        with lock:
            ended.add(n)

    with pytest.raises(ValueError, match="1"):
        AtOnce(2)(step, range(100))
    assert begun == ended | {1} and len(begun) < 100
