"""How often one caller may ask: token buckets, fair turns, and a bound on open long polls."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import Millis

from .settings import Rate

REMEMBERED = 10_000
"""Callers remembered at once; the one longest unseen is forgotten first."""


class RateLimited(Refused):
    """Too many requests; ``retry_after`` seconds from now there is room again."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(Code.RATE_LIMITED, message, f"wait {retry_after} s and try again")
        self.retry_after = retry_after


class Limiter:
    """One token bucket per caller, all of the same rate."""

    def __init__(self, rate: Rate, now: Callable[[], Millis], what: str) -> None:
        self._rate = rate
        self._now = now
        self._what = what
        self._buckets: OrderedDict[str, tuple[float, Millis]] = OrderedDict()

    def spend(self, caller: str) -> None:
        """Take one token of ``caller``'s; raises ``RateLimited`` when none is left."""
        now = self._now()
        tokens = self._level(caller, now)
        if tokens < 1:
            self._refuse(tokens)
        self._remember(caller, tokens - 1, now)

    def check(self, caller: str) -> None:
        """Raise ``RateLimited`` when no token is left, without taking one."""
        tokens = self._level(caller, self._now())
        if tokens < 1:
            self._refuse(tokens)

    def _level(self, caller: str, now: Millis) -> float:
        tokens, since = self._buckets.get(caller, (float(self._rate.burst), now))
        return min(self._rate.burst, tokens + max(0, now - since) / 1000 * self._rate.per_second)

    def _remember(self, caller: str, tokens: float, now: Millis) -> None:
        self._buckets[caller] = (tokens, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)

    def _refuse(self, tokens: float) -> None:
        wait = max(1, math.ceil((1 - tokens) / self._rate.per_second))
        raise RateLimited(
            f"too many {self._what}: {self._rate.per_second:g} per second with bursts of "
            f"{self._rate.burst} are allowed",
            wait,
        )


class Turns:
    """A few places for work, given to those who wait for them in turn: one of each caller's, then the next.

    Whoever asks for much waits behind himself, and nobody is refused.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def one(self, caller: str) -> AsyncIterator[None]:
        """Hold a place; waits for one."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(caller, deque()).append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self._pass_on()
                raise
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            caller, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[caller] = turns
            if not turn.cancelled():
                turn.set_result(None)
                return
        self._free += 1


class Polls:
    """How many long polls each caller has open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Count one long poll of ``caller``'s while it lasts; raises ``RateLimited`` above the bound."""
        if self._open[caller] >= self._most:
            raise RateLimited(
                f"{self._open[caller]} long polls are open already, {self._most} are allowed", 1
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
