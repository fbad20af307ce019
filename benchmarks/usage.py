"""CPU time that usage of a year takes to answer, to load and to save: 500 people, every day.

Run `.venv/bin/python -m benchmarks.usage`. Options: `--people`, `--days`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from gpudev_hub.core.model import HOUR
from gpudev_hub.core.usage import Sums, UsageDay, UsageHead, day_number
from gpudev_hub.core.views.usage import By, Usage
from gpudev_hub.stores.sqlite.store import SqliteStore

FIRST = day_number(date(2026, 1, 1))
SIZES = (1, 2, 4, 8, 16)
RUNS = 15


def days(people: int, count: int) -> Iterator[UsageDay]:
    """Yield days on which everyone has used one or two sizes, with every figure set."""
    chance = random.Random(7)
    for day in range(FIRST, FIRST + count):
        rows = {}
        for person in range(people):
            for gpus in chance.sample(SIZES, chance.choice((1, 1, 2))):
                hold = gpus * chance.randrange(24 * HOUR)
                wait = chance.randrange(4 * HOUR)
                sums = Sums(
                    3, hold, hold // 2, 2, 2 * wait, wait, 2, 1, hold // 4, {"released": 1, "expired": 1}
                )
                rows[f"github:{person + 1_000_000}", "h100", gpus] = sums
        yield UsageDay(day, 1, rows)


def loaded(saved: Iterable[UsageDay]) -> Usage:
    """Return the sums in memory, as after a start."""
    usage = Usage()
    usage.load(UsageHead(1, 0, 0, -1, {}, {}, {}))
    for day in saved:
        usage.load_day(day)
    return usage


def median_ms(call: Callable[[], object]) -> float:
    """Return the median of some runs in milliseconds."""
    times = []
    for _ in range(RUNS):
        begun = time.process_time()
        call()
        times.append((time.process_time() - begun) * 1000)
    return statistics.median(times)


async def stored(saved: list[UsageDay], folder: Path) -> None:
    """Print what SQLite takes to save one day, and to load all."""
    store = SqliteStore(folder / "service.sqlite")
    await store.open()
    head = UsageHead(1, 0, saved[0].day, saved[-1].day, {}, {}, {})
    await store.save_usage(head, saved)
    begun = time.process_time()
    await store.save_usage(head, saved[-1:])
    print(f"save of one changed day: {(time.process_time() - begun) * 1000:.0f} ms")
    begun = time.process_time()
    found = await store.load_usage()
    assert found is not None
    print(f"load from SQLite: {time.process_time() - begun:.1f} s")
    begun = time.process_time()
    loaded(list(found.days))
    print(f"sums from what was loaded: {time.process_time() - begun:.1f} s")
    await store.close()
    size = (folder / "service.sqlite").stat().st_size
    print(f"database: {size / 1e6:.0f} MB, {size / sum(len(day.rows) for day in saved):.0f} bytes per row")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--days", type=int, default=365)
    given = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    usage = loaded(days(given.people, given.days))
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    rows = sum(len(day.rows) for day in days(given.people, given.days))
    print(f"{given.people} people, {given.days} days, {rows} rows: {memory:.0f} MB of memory")
    last = FIRST + given.days - 1
    whole, odd = (FIRST, last), (FIRST + 15, last - 15)
    for by in (By.PERSON, By.POOL, By.SIZE, By.DAY):
        for name, (first, end) in (("whole months", whole), ("from mid-month to mid-month", odd)):
            took = median_ms(lambda by=by, first=first, end=end: usage.sums(by, first, end, 0))  # type: ignore[misc]
            print(f"everyone by {by}, {name}: {took:.1f} ms")
    me = "github:1000007"
    print(f"one person by day: {median_ms(lambda: usage.sums(By.DAY, *whole, 0, me)):.1f} ms")
    with TemporaryDirectory() as folder:
        asyncio.run(stored(list(days(given.people, given.days)), Path(folder)))


if __name__ == "__main__":
    main()
