"""The soak finds leaks of memory and descriptors in the samples of processes."""

import random
from collections.abc import Callable

from tests.chaos.rig import Finding, Sample
from tests.chaos.scenarios.soak import take_figures

MINUTES = 30


def samples(
    *, worker: bool = True, leak: float = 0, descriptors: Callable[[float], int] = lambda _: 14
) -> list[Sample]:
    """Returns half an hour of one process, whose memory leaks `leak` MB an hour and jumps up and down."""
    rng = random.Random(7)
    return [
        Sample(
            second,
            (2 if worker else 1, 0.0),
            worker,
            90 + rng.choice((0, 0.5, 0, 3)) + leak * second / 3600,
            descriptors(second / 60),
            2,
        )
        for second in range(0, MINUTES * 60, 2)
    ]


def figures(*lives: list[Sample]) -> dict[str, float]:
    finding = Finding()
    take_figures(finding, sorted((s for life in lives for s in life), key=lambda sample: sample.moment))
    assert finding.complaints == []
    return {figure.name: figure.value for figure in finding.figures if figure.value > figure.limit}


def test_memory_that_jumps_up_and_down_is_no_leak() -> None:
    assert figures(samples(worker=False), samples()) == {}


def test_a_leak_of_a_worker_is_found() -> None:
    assert figures(samples(worker=False), samples(leak=10)).keys() == {"a worker's memory"}


def test_a_leak_of_the_daemon_is_found() -> None:
    assert figures(samples(worker=False, leak=3), samples()).keys() == {"the daemon's memory"}


def test_a_descriptor_that_is_left_open_is_found() -> None:
    late = samples(descriptors=lambda minute: 14 + (minute > 22))
    assert figures(samples(worker=False), late) == {"a worker's additional descriptors": 1}


def test_workers_cannot_be_measured_if_all_died() -> None:
    half = [sample for sample in samples() if sample.moment < MINUTES * 30]
    finding = Finding()
    take_figures(finding, sorted([*half, *samples(worker=False)], key=lambda sample: sample.moment))
    assert finding.complaints == ["no worker lived long enough to be measured"]
