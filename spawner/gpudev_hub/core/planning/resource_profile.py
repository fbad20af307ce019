"""A load over time: how many GPUs are taken at every instant.

One profile describes one node, or one owner in one pool. It is a step function kept in two parallel lists:
``loads[i]`` holds from ``times[i]`` until ``times[i + 1]``, the last one for ever. Neighbouring steps differ.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from gpudev_hub.core.model import Millis

FOREVER: Final[Millis] = 1 << 62
"""An end that is not known. It is later than every real instant, and safe to add a length to."""
_BEGINNING: Final[Millis] = -FOREVER


class Profile:
    """GPUs taken, as a step function of time. Intervals are half open: the instant ``end`` is free again."""

    __slots__ = ("loads", "times")

    def __init__(self) -> None:
        self.times: list[Millis] = [_BEGINNING]
        self.loads: list[int] = [0]

    @classmethod
    def of(cls, loads: Iterable[tuple[Millis, Millis, int]]) -> "Profile":
        """Return the profile of all these (start, end, GPUs), made in one sweep. All start after 1970."""
        changes: dict[Millis, int] = {}
        for start, end, gpus in loads:
            if start < end:
                changes[start] = changes.get(start, 0) + gpus
                if end < FOREVER:
                    changes[end] = changes.get(end, 0) - gpus
        profile, load = cls(), 0
        for instant in sorted(changes):
            if changes[instant]:
                load += changes[instant]
                profile.times.append(instant)
                profile.loads.append(load)
        return profile

    def add(self, start: Millis, end: Millis, gpus: int) -> None:
        """Take ``gpus`` during [start, end); a negative number gives them back."""
        times, loads = self.times, self.loads
        if start < times[0]:
            start = times[0]  # earlier steps were trimmed
        if start >= end:
            return
        first = self._cut(start)
        last = len(times) if end >= FOREVER else self._cut(end)
        for i in range(first, last):
            loads[i] += gpus
        if last < len(times) and loads[last] == loads[last - 1]:
            del times[last], loads[last]
        if first > 0 and loads[first] == loads[first - 1]:
            del times[first], loads[first]

    def _cut(self, instant: Millis) -> int:
        """Return the index of the step that begins at ``instant``, split off if needed."""
        i = bisect_right(self.times, instant)
        if self.times[i - 1] == instant:
            return i - 1
        self.times.insert(i, instant)
        self.loads.insert(i, self.loads[i - 1])
        return i

    def at(self, instant: Millis) -> int:
        """Return the GPUs taken at ``instant``."""
        return self.loads[max(0, bisect_right(self.times, instant) - 1)]

    def peak(self, start: Millis, end: Millis) -> int:
        """Return the most GPUs taken at any instant of [start, end); 0 for an empty interval."""
        times, loads = self.times, self.loads
        if start >= end:
            return 0
        i = max(0, bisect_right(times, start) - 1)
        most = loads[i]
        i += 1
        while i < len(times) and times[i] < end:
            if loads[i] > most:
                most = loads[i]
            i += 1
        return most

    def earliest(self, start: Millis, length: Millis, most: int, stop: Millis) -> Millis:
        """Return the first t >= start with at most ``most`` GPUs taken all through [t, t + length).

        If there is none up to ``stop``, the result is an instant after ``stop``. It is a lower bound for a
        later ``stop``, too.
        """
        times, loads = self.times, self.loads
        count = len(times)
        i = bisect_right(times, start) - 1
        if i < 0:
            i = 0
        t = start
        while True:
            end = t + length
            while loads[i] <= most:
                i += 1
                if i == count or times[i] >= end:
                    return t
            while loads[i] > most:
                i += 1
                if i == count:
                    return FOREVER
            t = times[i]
            if t > stop:
                return t

    def first_above(self, start: Millis, end: Millis, most: int) -> Millis | None:
        """Return the first instant of [start, end) with more than ``most`` GPUs taken."""
        times, loads = self.times, self.loads
        if start >= end:
            return None
        i = max(0, bisect_right(times, start) - 1)
        while i < len(times) and times[i] < end:
            if loads[i] > most:
                return max(start, times[i])
            i += 1
        return None

    def last_above(self, start: Millis, end: Millis, most: int) -> Millis | None:
        """Return the end of the last stretch of [start, end) with more than ``most`` GPUs taken."""
        times, loads = self.times, self.loads
        found: Millis | None = None
        if start >= end:
            return None
        i = max(0, bisect_right(times, start) - 1)
        while i < len(times) and times[i] < end:
            if loads[i] > most:
                found = min(end, times[i + 1] if i + 1 < len(times) else FOREVER)
            i += 1
        return found

    def idle_from(self, instant: Millis) -> Millis:
        """Return the first instant from ``instant`` on with nothing taken; ``FOREVER`` if there is none."""
        times, loads = self.times, self.loads
        i = max(0, bisect_right(times, instant) - 1)
        while loads[i] > 0:
            i += 1
            if i == len(times):
                return FOREVER
        return max(instant, times[i])

    def trim(self, now: Millis) -> None:
        """Forget the steps that lie entirely before ``now``."""
        i = bisect_right(self.times, now) - 1
        if i > 0:
            del self.times[:i], self.loads[:i]
