"""The usage sums: equal to an independent recount of the history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from random import Random

from coreworld import HOUR, MINUTE, SECOND, TEARDOWN, Driver
from gpudev_hub.core.model import Outcome
from gpudev_hub.core.usage import DAY, Sums, calendar_day, day_number, day_of
from gpudev_hub.core.views.usage import By, Usage, by_team
from usage_recount import Entry, Rows, expected

from .random_lives import Life

#: Days that a calendar in local time, or without leap years, gets wrong: the changes of daylight saving time
#: in Berlin and New York, a leap day, the end of a year.
DAYS = (
    date(2026, 3, 29),
    date(2026, 10, 25),
    date(2026, 11, 1),
    date(2027, 3, 14),
    date(2028, 2, 28),
    date(2028, 2, 29),
    date(2026, 12, 31),
)


def at(day: date, hours: float = 0) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return round(midnight.timestamp() * 1000 + hours * HOUR)


def fold(history: Sequence[Entry], usage: Usage | None = None) -> Usage:
    usage = usage or Usage()
    for n, entries in groupby(history, key=lambda entry: entry[0]):
        found = list(entries)
        if n > usage.n:
            usage.apply(n, found[0][1], [change for _, _, change in found])
    return usage


def folded(usage: Usage, now: int) -> Rows:
    """The sums with what runs: by day, and by person, pool and size through the answers for one person."""
    rows: Rows = {}
    last = max([*usage._days, day_of(now)])
    first = min([*usage._days, *(day_of(claim.since) for claim in usage.claims.values())], default=last)
    for day in range(first, last + 1):
        for subject in usage.logins:
            for size, sums in usage.sums(By.SIZE, day, day, now, subject).items():
                assert isinstance(size, int)
                if sums != Sums():
                    rows[calendar_day(day), subject, "h100", size] = sums
    return rows


def total(rows: Rows, of: int | None) -> dict[object, Sums]:
    """The rows summed by one field of their keys."""
    found: dict[object, Sums] = {}
    for key, sums in rows.items():
        found.setdefault(None if of is None else key[of], Sums()).add(sums)
    return found


def test_a_thousand_random_histories_are_counted_like_the_recount() -> None:
    seen = Sums()
    for seed in range(1_000):
        random = Random(seed)
        life = Life(at(random.choice(DAYS), random.choice((12, 20, 23.5, 23.99))))
        life.live(random, steps=22)
        history, now = life.d.folded.history, life.d.now + random.randrange(2 * DAY)
        wanted = expected(history, now)
        usage = fold(history)
        assert folded(usage, now) == wanted, f"seed {seed}"
        first = day_of(history[0][1]) + random.randint(-1, 2)
        last = max(first, day_of(now) + random.randint(-2, 1))
        asked = {key: sums for key, sums in wanted.items() if first <= day_number(key[0]) <= last}
        for by, of in ((By.PERSON, 1), (By.POOL, 2), (By.SIZE, 3)):
            assert usage.sums(by, first, last, now) == total(asked, of), f"seed {seed}, by {by}"
        days = {day_number(day): sums for day, sums in total(asked, 0).items() if isinstance(day, date)}
        assert usage.sums(By.DAY, first, last, now) == days, f"seed {seed}"
        for sums in wanted.values():
            seen.add(sums)
    assert set(seen.outcomes) >= {"released", "cancelled", "expired", "failed", "node_lost"}
    assert min(seen.waits, seen.starts, seen.early_releases, seen.requests) > 100, seen


def test_a_stay_over_midnight_is_split_there() -> None:
    for day in DAYS:
        d = Driver()
        d.now = at(day, 23)
        d.submit("ann", gpus=4, hours=4)
        d.ready("r1")
        d.go(at(day, 25))
        d.extend("r1", 1)
        d.go(d.get("r1").ends_at or 0)
        d.see("r1")
        usage, later = fold(d.folded.history), at(day, 24 * 5)
        found = usage.sums(By.DAY, day_number(day), day_number(day) + 9, later)
        assert found[day_number(day)].held == 4 * HOUR
        assert found[day_number(day + timedelta(days=1))].held == 4 * 4 * HOUR
        assert found[day_number(day)].reserved == 4 * 4 * HOUR
        assert found[day_number(day + timedelta(days=1))].reserved == 4 * HOUR
        assert found[day_number(day)].starts == 1
        assert found[day_number(day + timedelta(days=1))].outcomes == {"expired": 1}


def test_what_runs_counts_until_now() -> None:
    d = Driver()
    d.submit("ann", gpus=8, hours=4, nodes=2)
    d.ready("r1")
    usage, today = fold(d.folded.history), day_of(d.now)
    for minutes in (0, 1, 90):
        found = usage.sums(By.SIZE, today, today, d.now + minutes * MINUTE)
        assert found[16].held == 16 * minutes * MINUTE
    assert usage.held_by_kind(d.now + SECOND) == {("h100", 16): 16 * SECOND}


def test_an_early_release_gives_back_what_was_left() -> None:
    d = Driver()
    d.submit("ann", gpus=2, hours=2)
    d.ready("r1")
    start = d.now
    d.go(start + HOUR)
    d.end("r1", Outcome.RELEASED)
    d.go(d.now + 10 * SECOND)
    d.see("r1")
    (found,) = fold(d.folded.history).sums(By.PERSON, 0, day_of(d.now), d.now).values()
    assert found.early_releases == 1
    assert found.given_back == 2 * (HOUR + TEARDOWN - 10 * SECOND)
    assert found.held == 2 * (HOUR + 10 * SECOND)
    assert found.outcomes == {"released": 1}


def test_every_stay_in_the_queue_that_ends_with_an_admission_is_a_wait() -> None:
    d = Driver()
    for _ in range(2):
        d.submit("ann", gpus=8, hours=1)
    d.submit("bob", gpus=8, hours=1)
    for ref in ("r1", "r2"):
        d.ready(ref)
    d.go(d.now + 30 * MINUTE)
    for ref in ("r1", "r2"):
        d.end(ref)
        d.see(ref)
    d.settle()
    today = day_of(d.now)
    waited = fold(d.folded.history).sums(By.PERSON, today, today, d.now)["local:bob"]
    assert (waited.waits, waited.waited, waited.longest_wait) == (1, 30 * MINUTE, 30 * MINUTE)


def test_days_saved_after_the_head_are_not_counted_twice() -> None:
    """A crash between two writes of one save leaves days that are newer than the head."""
    for seed in range(40):
        random = Random(seed)
        life = Life(at(random.choice(DAYS), 22))
        life.live(random, steps=30)
        history, now = life.d.folded.history, life.d.now
        last = history[-1][0]
        early, usage = Usage(), Usage()
        head, days = fold([entry for entry in history if entry[0] <= last // 3], early).save()
        _, newer = fold([entry for entry in history if entry[0] <= 2 * last // 3], usage).save()
        saved = {day.day: day for day in days} | {day.day: day for day in newer if day.day % 2}
        again = Usage()
        again.load(head)
        for day in saved.values():
            if day.day <= head.last:
                again.load_day(day)
        fold(history, again)
        assert folded(again, now) == expected(history, now), f"seed {seed}"


def test_a_person_counts_in_every_team_of_theirs() -> None:
    people: dict[str | int, Sums] = {f"github:{n}": Sums(requests=n, outcomes={"idle": n}) for n in (1, 2, 4)}
    teams = {"github:1": ("o/a",), "github:2": ("o/a", "o/b"), "github:4": ()}
    assert by_team(people, teams) == {
        "o/a": Sums(requests=3, outcomes={"idle": 3}),
        "o/b": Sums(requests=2, outcomes={"idle": 2}),
        "": Sums(requests=4, outcomes={"idle": 4}),
    }
