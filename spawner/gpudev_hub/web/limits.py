"""Rate limits per caller with token buckets, and the limit on open long polls."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, IPv6Network

from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import Millis

from .forwarded import address_of
from .settings import Rate

REMEMBERED = 10_000
"""Most callers remembered; the least recent caller is forgotten first."""


def network(address: str) -> str:
    """Return what counts as one caller: an IPv4 address, or the /64 prefix of an IPv6 address.

    One machine can use all addresses of a /64 prefix. Other text is returned unchanged.
    """
    found = address_of(address)
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found) >> 64 << 64, 64)))
    return address if found is None else str(found)


class RateLimited(Refused):
    """Too many requests: the caller can try again in ``retry_after`` seconds."""

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
        """Take one of the caller's tokens. Raises ``RateLimited`` if none is left."""
        self._buckets[caller] = (self.check(caller) - 1, self._now())
        self._buckets.move_to_end(caller)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)

    def check(self, caller: str) -> float:
        """Return the number of tokens left, without taking one. Raises ``RateLimited`` if none is left."""
        rate, now = self._rate, self._now()
        tokens, since = self._buckets.get(caller, (float(rate.burst), now))
        tokens = min(rate.burst, tokens + max(0, now - since) / 1000 * rate.per_second)
        if tokens < 1:
            raise RateLimited(
                f"Too many {self._what}: the limit is {rate.per_second:g} per second, with bursts of "
                f"{rate.burst}.",
                max(1, math.ceil((1 - tokens) / rate.per_second)),
            )
        return tokens


class Polls:
    """Counts the open long polls of each caller."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Count a long poll while it is open. Raises ``RateLimited`` above the limit."""
        if self._open[caller] >= self._most:
            raise RateLimited(f"You have {self._open[caller]} long polls open; the limit is {self._most}.", 1)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
