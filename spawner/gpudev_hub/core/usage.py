"""The records of usage: sums by UTC day, person, pool and size, and how far the history is summed.

``views/usage.py`` makes them from the history, and says what each number counts. GPU time is in
GPU-milliseconds. Days are UTC days, so changes of daylight saving time do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final

from .live_state import ClaimKey
from .model import HOUR, Millis

DAY: Final[Millis] = 24 * HOUR
_EPOCH: Final = date(1970, 1, 1)

Day = int
"""A UTC day: days since 1 January 1970."""
Key = tuple[str, str, int]
"""(subject, pool, GPUs of all nodes)."""


@dataclass(slots=True)
class Sums:
    """Totals over any number of reservations."""

    requests: int = 0
    reserved: Millis = 0
    held: Millis = 0
    waits: int = 0
    waited: Millis = 0
    longest_wait: Millis = 0
    starts: int = 0
    early_releases: int = 0
    given_back: Millis = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        self.requests += other.requests
        self.reserved += other.reserved
        self.held += other.held
        self.waits += other.waits
        self.waited += other.waited
        if other.longest_wait > self.longest_wait:
            self.longest_wait = other.longest_wait
        self.starts += other.starts
        self.early_releases += other.early_releases
        self.given_back += other.given_back
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What is needed of a live reservation to account for its next change."""

    queued_since: Millis | None
    extended: Millis
    planned_end: Millis | None
    """End of the stay, as it was before the stop."""
    ready: bool


@dataclass(frozen=True, slots=True)
class OpenClaim:
    """Slots that are held now."""

    key: Key
    since: Millis


@dataclass(frozen=True, slots=True)
class UsageHead:
    """How far the history is summed; with the sums by day, all that is needed to continue."""

    n: int
    """Number of the last commit in the sums."""
    at: Millis
    """Time of that commit, or of an earlier one without changes after it."""
    first: Day
    last: Day
    """First and last day with sums; ``last`` is before ``first`` if there are none."""
    requests: dict[str, OpenRequest]
    claims: dict[ClaimKey, OpenClaim]
    logins: dict[str, str]
    """The latest login of each subject."""


@dataclass(frozen=True, slots=True)
class UsageDay:
    """The sums of one day, as of commit ``n``."""

    day: Day
    n: int
    rows: Mapping[Key, Sums]


@dataclass(frozen=True, slots=True)
class SavedUsage:
    """What a store returns. Days may be newer than the head, since a crash can come between the two."""

    head: UsageHead
    days: tuple[UsageDay, ...]


def day_of(at: Millis) -> Day:
    """Return the UTC day of an instant."""
    return at // DAY


def day_number(day: date) -> Day:
    """Return the number of a calendar day."""
    return (day - _EPOCH).days


def calendar_day(day: Day) -> date:
    """Return the calendar day of a number."""
    return _EPOCH + timedelta(days=day)


def month_of(day: Day) -> str:
    """Return the month of a day, as ``2026-11``."""
    return f"{calendar_day(day):%Y-%m}"


def months(first: Day, last: Day) -> Iterator[str]:
    """Yield every month from one day to another, both included."""
    year, month = calendar_day(first).year, calendar_day(first).month
    end = calendar_day(last)
    while (year, month) <= (end.year, end.month):
        yield f"{year:04}-{month:02}"
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)


def by_day(start: Millis, end: Millis) -> Iterator[tuple[Day, Millis]]:
    """Split a time into UTC days: yield each day with the milliseconds on it."""
    while start < end:
        day = day_of(start)
        until = min(end, (day + 1) * DAY)
        yield day, until - start
        start = until


def today(now: Millis) -> date:
    """Return the UTC day of an instant as a calendar day."""
    return datetime.fromtimestamp(now / 1000, UTC).date()
