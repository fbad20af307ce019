"""The clock never runs backwards, whatever the machine's does."""

from __future__ import annotations

import asyncio

import pytest

from gpudev_hub.clock import Clock, ClockBehind
from gpudev_hub.core.model import MINUTE


class Hands:
    """Two clocks that a test moves."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.monotonic = 50.0

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.monotonic)


def test_time_goes_on_with_the_monotonic_clock_only() -> None:
    hands = Hands()
    clock = hands.clock()
    assert clock.now() == 1_000_000_000
    hands.wall -= 3600
    hands.monotonic += 1.5
    assert clock.now() == 1_000_001_500


def test_what_the_machines_clock_shows_after_it_was_set() -> None:
    """Or after the machine slept, which the monotonic clock does not count."""
    hands = Hands()
    clock = hands.clock()
    end = clock.now() + 10 * MINUTE
    hands.monotonic += 60
    hands.wall += 60
    assert clock.on_machine(end) == end
    hands.wall += 8 * 3600
    assert clock.on_machine(end) == end + 8 * 60 * MINUTE


def test_a_start_is_never_earlier_than_the_last_commit() -> None:
    """A gap is made up for, and said."""
    clock = Hands().clock()
    assert clock.start_after(999_999_000) == 0
    assert clock.now() == 1_000_000_000
    assert clock.start_after(1_000_000_000 + 10 * MINUTE) == 10 * MINUTE
    assert clock.now() == 1_000_000_000 + 10 * MINUTE


def test_a_gap_beyond_ten_minutes_is_refused_with_both_numbers() -> None:
    clock = Hands().clock()
    with pytest.raises(ClockBehind, match=r"601 s behind the last commit; the limit is 600 s"):
        clock.start_after(1_000_000_000 + 10 * MINUTE + 1_000)
    assert clock.now() == 1_000_000_000


async def test_waiting_ends_with_the_event_or_at_the_instant() -> None:
    clock, event = Clock(), asyncio.Event()
    begun = clock.precise()
    await clock.wait(event, clock.now() - 5)
    await clock.wait(event, clock.now() + 20)
    assert 0.018 < clock.precise() - begun < 5
    asyncio.get_running_loop().call_soon(event.set)
    await clock.wait(event, clock.now() + 60_000)
    await clock.wait(event, None)
    assert clock.precise() - begun < 30
