"""Usage: sums of the history by UTC day, person, pool and size.

A pure projection: history entries in, sums out, independent of ``decide``. Days are UTC days, so a change of
daylight saving time matters nowhere. GPU time is in GPU-milliseconds.

- *Reserved*: what was asked for, on the day of the request, and what extensions added, on their day.
- *Held*: from the admission until the slots were free, split at midnight.
- *Wait*: from the request (or the return to the queue) to the admission, on the day of the admission.
- *Start*: the server was ready for the first time in a stay.
- *Early release*: released by its owner; given back is the time from then to the planned end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from enum import StrEnum
from typing import TypeVar

from gpudev_hub.core.commit import Change
from gpudev_hub.core.live_state import ClaimKey
from gpudev_hub.core.model import Claim, Millis, Outcome, Reservation, State
from gpudev_hub.core.usage import (
    Day,
    Key,
    OpenClaim,
    OpenRequest,
    Sums,
    UsageDay,
    UsageHead,
    by_day,
    day_number,
    day_of,
    month_of,
)

Kind = tuple[str, int]
"""(pool, GPUs of all nodes)."""
_K = TypeVar("_K")
Group = str | int
"""Value of the field that sums are grouped by."""


class By(StrEnum):
    """What sums are grouped by."""

    PERSON = "person"
    TEAM = "team"
    POOL = "pool"
    SIZE = "size"
    DAY = "day"


class Usage:
    """The sums in memory. ``apply`` every commit in order; ask with ``sums``."""

    def __init__(self) -> None:
        self.n = 0
        self.at: Millis = 0
        self.requests: dict[str, OpenRequest] = {}
        self.claims: dict[ClaimKey, OpenClaim] = {}
        self.logins: dict[str, str] = {}
        self.totals: dict[Kind, Sums] = {}
        """Sums of all days, by pool and size."""
        self._days: dict[Day, dict[Key, Sums]] = {}
        self._months: dict[str, dict[str, Sums]] = {}
        """By month and subject, so that questions about people need not add thousands of rows."""
        self._everyone: dict[Day, dict[Kind, Sums]] = {}
        self._unsaved: set[Day] = set()
        self._ahead: dict[Day, int] = {}
        """Days that were loaded with later commits than the head."""

    # Folding

    def apply(self, n: int, at: Millis, changes: Iterable[Change]) -> None:
        """Account for the next commit."""
        self.n, self.at = n, at
        for change in changes:
            match change.record:
                case Reservation() as reservation:
                    self._reservation(reservation, at, gone=change.gone)
                case Claim() as claim:
                    self._claim(claim, at, gone=change.gone)

    def reached(self, n: int) -> None:
        """Record that commits up to ``n`` changed nothing more."""
        self.n = max(self.n, n)

    def _reservation(self, record: Reservation, at: Millis, *, gone: bool) -> None:
        gpus = record.request.shape.total_gpus
        subject, today = record.owner.subject, day_of(at)
        key = (subject, record.request.pool, gpus)
        self.logins[subject] = record.owner.login
        before = self.requests.get(record.id)
        if before is None:
            asked = record.request.hold - record.extended
            self._add(key, today, Sums(requests=1, reserved=gpus * asked))
            before = OpenRequest(at, 0, None, ready=False)
        if record.extended != before.extended:
            self._add(key, today, Sums(reserved=gpus * (record.extended - before.extended)))
        since = before.queued_since
        if record.state is State.QUEUED:
            since = at if since is None else since
        elif since is not None:
            if record.live:
                wait = at - since
                self._add(key, today, Sums(waits=1, waited=wait, longest_wait=wait))
            since = None
        ready = record.ready_at is not None
        if ready and not before.ready:
            self._add(key, today, Sums(starts=1))
        ends = before.planned_end
        if record.state in (State.STARTING, State.READY):
            ends = record.hard_end
        elif record.state is State.QUEUED:
            ends = None
        if not gone:
            self.requests[record.id] = OpenRequest(since, record.extended, ends, ready)
            return
        self.requests.pop(record.id, None)
        ended = Sums(outcomes={str(record.outcome): 1})
        if record.outcome is Outcome.RELEASED and ends is not None and ends > at:
            ended.early_releases, ended.given_back = 1, gpus * (ends - at)
        self._add(key, today, ended)

    def _claim(self, claim: Claim, at: Millis, *, gone: bool) -> None:
        if not gone:
            self.claims.setdefault(claim.key, OpenClaim((claim.subject, claim.pool, claim.gpus), at))
            return
        held = self.claims.pop(claim.key, None)
        if held is not None:
            for day, length in by_day(held.since, at):
                self._add(held.key, day, Sums(held=held.key[2] * length))

    def _add(self, key: Key, day: Day, sums: Sums) -> None:
        if self.n <= self._ahead.get(day, 0):
            return
        self._unsaved.add(day)
        _add(self._days.setdefault(day, {}), key, sums)
        _add(self._months.setdefault(month_of(day), {}), key[0], sums)
        _add(self._everyone.setdefault(day, {}), key[1:], sums)
        _add(self.totals, key[1:], sums)

    # Keeping

    def load(self, head: UsageHead) -> None:
        """Continue from a saved projection; ``load_day`` adds its sums."""
        self.n, self.at = head.n, head.at
        self.requests, self.claims = dict(head.requests), dict(head.claims)
        self.logins = dict(head.logins)

    def load_day(self, saved: UsageDay) -> None:
        """Add the sums of a saved day; its rows belong to these sums from now on."""
        if saved.n > self.n:
            self._ahead[saved.day] = saved.n
        month = self._months.setdefault(month_of(saved.day), {})
        everyone: dict[Kind, Sums] = {}
        for (subject, pool, gpus), sums in saved.rows.items():
            _add(month, subject, sums)
            _add(everyone, (pool, gpus), sums)
        for kind, sums in everyone.items():
            _add(self.totals, kind, sums)
        self._days[saved.day], self._everyone[saved.day] = dict(saved.rows), everyone

    @property
    def unsaved(self) -> int:
        """How many days have changed since the last ``save``."""
        return len(self._unsaved)

    def save(self) -> tuple[UsageHead, list[UsageDay]]:
        """Return the head, and the days that changed since the last call.

        The days are the sums themselves, not copies: encode them before the next commit is applied.
        """
        days = [
            UsageDay(day, max(self.n, self._ahead.get(day, 0)), self._days[day])
            for day in sorted(self._unsaved)
        ]
        self._unsaved = set()
        head = UsageHead(
            self.n,
            self.at,
            min(self._days, default=0),
            max(self._days, default=-1),
            dict(self.requests),
            dict(self.claims),
            dict(self.logins),
        )
        return head, days

    def not_saved(self, days: Iterable[UsageDay]) -> None:
        """Save these days again with the next ``save``, since the store failed."""
        self._unsaved.update(saved.day for saved in days)

    # Asking

    def sums(
        self, by: By, first: Day, last: Day, now: Millis, subject: str | None = None
    ) -> dict[Group, Sums]:
        """Return totals of the days from ``first`` to ``last`` by group; running claims count until ``now``.

        ``subject``: only this person; ``None``: everybody.
        """
        found: dict[Group, Sums] = {}
        if subject is not None:
            for day in self._between(first, last):
                rows = self._days[day]
                for pool, gpus in self.totals:
                    if (row := rows.get((subject, pool, gpus))) is not None:
                        _into(found, by, day, (subject, pool, gpus), row)
        elif by is By.PERSON:
            self._by_person(found, first, last)
        else:
            for day in self._between(first, last):
                for (pool, gpus), row in self._everyone[day].items():
                    _into(found, by, day, ("", pool, gpus), row)
        for claim in self.claims.values():
            if subject in (None, claim.key[0]):
                for day, length in by_day(claim.since, now):
                    if first <= day <= last:
                        _into(found, by, day, claim.key, Sums(held=claim.key[2] * length))
        return found

    def held_by_kind(self, now: Millis) -> dict[Kind, Millis]:
        """Return GPU-milliseconds held since the first day, with running claims, by pool and size."""
        held = {kind: sums.held for kind, sums in self.totals.items()}
        for claim in self.claims.values():
            kind = claim.key[1:]
            held[kind] = held.get(kind, 0) + claim.key[2] * max(0, now - claim.since)
        return held

    def _between(self, first: Day, last: Day) -> list[Day]:
        return sorted(day for day in self._days if first <= day <= last)

    def _by_person(self, found: dict[Group, Sums], first: Day, last: Day) -> None:
        """Add up whole months, and the days of months that are only partly asked for."""
        whole = [month for month in self._months if _is_within(month, first, last)]
        for month in whole:
            for subject, row in self._months[month].items():
                _add(found, subject, row)
        for day in self._between(first, last):
            if month_of(day) not in whole:
                for key, row in self._days[day].items():
                    _add(found, key[0], row)


def _is_within(month: str, first: Day, last: Day) -> bool:
    """Return whether these days include the whole month."""
    start = date.fromisoformat(f"{month}-01")
    following = (start.replace(day=28) + timedelta(days=4)).replace(day=1)
    return first <= day_number(start) and day_number(following) - 1 <= last


def _into(found: dict[Group, Sums], by: By, day: Day, key: Key, sums: Sums) -> None:
    group: Group
    match by:
        case By.PERSON:
            group = key[0]
        case By.POOL:
            group = key[1]
        case By.SIZE:
            group = key[2]
        case By.DAY:
            group = day
        case By.TEAM:
            raise ValueError("the sums know no teams: group by person, then use by_team")
    _add(found, group, sums)


def _add(found: dict[_K, Sums], key: _K, sums: Sums) -> None:
    row = found.get(key)
    if row is None:
        row = found[key] = Sums()
    row.add(sums)


def by_team(people: Mapping[Group, Sums], teams: Mapping[str, tuple[str, ...]]) -> dict[Group, Sums]:
    """Return sums by team. A person counts in each of their teams; without teams, in ``""``."""
    found: dict[Group, Sums] = {}
    for subject, sums in people.items():
        for team in teams.get(str(subject), ()) or ("",):
            _add(found, team, sums)
    return found
