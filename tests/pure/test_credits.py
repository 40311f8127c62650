"""The window of a link: a queue in front of a reader of some speed, on a fake clock."""

from __future__ import annotations

from collections import deque

import pytest

from streampiped.core.credits import WINDOW_MAX, Window

TARGET = 0.25


class Queue:
    """A writer that always has something, and a reader that takes `seconds` for a batch."""

    def __init__(self, seconds: float) -> None:
        self.window = Window(TARGET)
        self.now = 0.0
        self.seconds = seconds
        self.waiting: deque[float] = deque()
        self.longest = 0.0

    def run(self, batches: int) -> None:
        for _ in range(batches):
            while self.window.may_send():
                self.window.sent(self.now)
                self.waiting.append(self.now)
            self.now += self.seconds
            self.longest = self.now - self.waiting.popleft()
            self.window.returned(self.now)


@pytest.mark.parametrize("seconds", [0.3, 25.6, 3600.0])
def test_slow_reader_has_one_batch(seconds: float) -> None:
    """A reader that takes longer for a batch than the target has a single one in front of it."""
    queue = Queue(seconds)
    queue.run(20)
    assert queue.window.size == 1
    assert queue.longest == pytest.approx(seconds)


@pytest.mark.parametrize("seconds", [0.001, 0.01, 0.05])
def test_time_in_the_queue_stays_near_the_target(seconds: float) -> None:
    """Whatever the speed, what is sent is done within the target or little more; and the reader never waits."""
    queue = Queue(seconds)
    queue.run(5000)
    assert queue.longest <= 1.5 * TARGET
    assert queue.window.under_way >= 1


def test_fast_reader_gets_a_wide_window() -> None:
    """A link that is quick opens up to the limit within few round trips."""
    queue = Queue(1e-5)
    queue.run(2 * WINDOW_MAX)
    assert queue.window.size == WINDOW_MAX


def test_reader_that_becomes_slow() -> None:
    """A wide window closes when the reader becomes slow, and opens again afterwards."""
    queue = Queue(0.001)
    queue.run(1000)
    wide = queue.window.size
    queue.seconds = 1.0
    queue.run(2 * wide)
    assert queue.window.size == 1
    queue.seconds = 0.001
    queue.run(1000)
    assert queue.window.size > 30


def test_one_slow_moment_counts_once() -> None:
    """Batches that were under way together while the reader slept shrink the window once and not each, and it is wide
    again soon."""
    queue = Queue(0.001)
    queue.run(1000)
    wide = queue.window.size
    queue.now += 10.0
    queue.run(wide)
    assert queue.window.size >= wide * TARGET // 10.2
    queue.run(2 * wide)
    assert queue.window.size > wide // 2
