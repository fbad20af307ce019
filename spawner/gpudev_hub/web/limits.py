"""How often one caller may ask: token buckets, and a bound on open long polls."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import Millis

from .settings import Rate

REMEMBERED = 10_000
"""Callers remembered at once; the one longest unseen is forgotten first."""


def network(address: str) -> str:
    """Return what counts as one caller: an IPv4 address, or the /64 prefix of an IPv6 address.

    One machine can use every address of a /64. What is no address is returned as it is.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


class RateLimited(Refused):
    """Too many requests; ``retry_after`` seconds from now there is room again."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(Code.RATE_LIMITED, message, f"Wait {retry_after} s and try again.")
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
            f"Too many {self._what}: the limit is {self._rate.per_second:g} per second, with bursts of "
            f"{self._rate.burst}.",
            wait,
        )


class Polls:
    """How many long polls each caller has open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Count one long poll of ``caller``'s while it lasts; raises ``RateLimited`` above the bound."""
        if self._open[caller] >= self._most:
            raise RateLimited(f"You have {self._open[caller]} long polls open; the limit is {self._most}.", 1)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
