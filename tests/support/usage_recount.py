"""Counts usage from a whole history in an independent way: first the life of every record, then day by day.

It shares only the type of the result with `core/usage.py`. Days come from `datetime`, and every day is
intersected with every interval.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from gpudev_hub.core.commit import Change
from gpudev_hub.core.model import Claim, Reservation
from gpudev_hub.core.usage import Sums

Entry = tuple[int, int, Change]
"""(commit, time, change)."""
Key = tuple[date, str, str, int]
"""(UTC day, subject, pool, GPUs)."""
Rows = dict[Key, Sums]


@dataclass
class Counted:
    requests: int = 0
    reserved: int = 0
    held: int = 0
    waits: list[int] = field(default_factory=list)
    starts: int = 0
    given_back: list[int] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)


def _day(at: int) -> date:
    return datetime.fromtimestamp(at // 1000, UTC).date()


def _midnight(day: date) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def recount(history: Sequence[Entry], now: int) -> dict[Key, Counted]:
    """Return the usage until `now`, including GPUs that are still held."""
    found: dict[Key, Counted] = defaultdict(Counted)
    for versions in _lives(history, Reservation).values():
        _count_reservation(found, versions)
    for versions in _lives(history, Claim).values():
        first_at, first = versions[0]
        last_at, last = versions[-1]
        assert isinstance(first.record, Claim)
        end = last_at if last.gone else now
        gpus = len([index for part in first.record.allocation for index in part.slots])
        day = _day(first_at)
        while _midnight(day) < end:
            following = day + timedelta(days=1)
            overlap = min(end, _midnight(following)) - max(first_at, _midnight(day))
            found[day, first.record.subject, first.record.pool, gpus].held += gpus * overlap
            day = following
    return {key: counted for key, counted in found.items() if counted != Counted()}


def _lives(
    history: Sequence[Entry], kind: type[Reservation | Claim]
) -> dict[object, list[tuple[int, Change]]]:
    lives: dict[object, list[tuple[int, Change]]] = defaultdict(list)
    for _, at, change in history:
        record = change.record
        if isinstance(record, kind):
            lives[record.id if isinstance(record, Reservation) else record.key].append((at, change))
    return lives


def _count_reservation(found: dict[Key, Counted], versions: list[tuple[int, Change]]) -> None:
    records = [(at, change.record) for at, change in versions]
    assert all(isinstance(record, Reservation) for _, record in records)
    first = records[0][1]
    assert isinstance(first, Reservation)
    shape = first.request.shape
    gpus = shape.gpus * shape.nodes

    def on(at: int) -> Counted:
        return found[_day(at), first.owner.subject, first.request.pool, gpus]

    on(first.created_at).requests += 1
    on(first.created_at).reserved += gpus * first.request.hold
    entered = first.created_at
    for (_, before), (at, after) in pairwise(records):
        assert isinstance(before, Reservation)
        assert isinstance(after, Reservation)
        on(at).reserved += gpus * (after.request.hold - before.request.hold)
        if (before.state, after.state) == ("queued", "starting"):
            assert after.admitted_at == at
            on(at).waits.append(at - entered)
        if after.state == "queued" and before.state != "queued":
            entered = at
        if before.ready_at is None and after.ready_at is not None:
            on(after.ready_at).starts += 1
    end, last = records[-1]
    assert isinstance(last, Reservation)
    if last.state != "ended":
        return
    assert last.outcome is not None
    assert last.ended_at == end
    on(end).outcomes.append(last.outcome.value)
    running = [r for _, r in records if isinstance(r, Reservation) and r.state in ("starting", "ready")]
    if last.outcome.value == "released" and running and running[-1].hard_end is not None:
        left = running[-1].hard_end - end
        if left > 0:
            on(end).given_back.append(gpus * left)


def in_sums(counted: Counted) -> Sums:
    outcomes = {outcome: counted.outcomes.count(outcome) for outcome in set(counted.outcomes)}
    return Sums(
        requests=counted.requests,
        reserved=counted.reserved,
        held=counted.held,
        waits=len(counted.waits),
        waited=sum(counted.waits),
        longest_wait=max(counted.waits, default=0),
        starts=counted.starts,
        early_releases=len(counted.given_back),
        given_back=sum(counted.given_back),
        outcomes=outcomes,
    )


def expected(history: Sequence[Entry], now: int) -> Rows:
    rows = {key: in_sums(counted) for key, counted in recount(history, now).items()}
    return {key: sums for key, sums in rows.items() if sums != Sums()}
