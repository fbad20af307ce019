"""Time from the observed end of a server to the commit of the next start, with 100 requests queued.

The real service with its real store on this disk. The Hub and the servers are in memory, so that only the
service is measured. ``python -m benchmarks.handover [FOLDER]``: FOLDER chooses the disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from gpudev_hub.core.commit import Commit
from gpudev_hub.core.model import Owner, Reservation, State
from gpudev_hub.core.policy import Allowances
from memory_cluster import MemoryCluster
from service_world import POLICY, ServiceWorld

QUEUED = 100
HANDOVERS = 300
SHAPES = (8, 4, 2, 1, 4, 2, 8, 1)


async def measure(folder: Path) -> dict[str, float]:
    """Return milliseconds from the observed end to the commit, and to the request to the Hub."""
    policy = replace(POLICY, allowances=Allowances(running_gpus=1_000, queued_requests=100_000))
    world = ServiceWorld(folder, policy=policy, cluster=MemoryCluster(nodes=4))
    logging.getLogger("tornado").setLevel(logging.CRITICAL)
    service = await world.start()
    committed: dict[str, float] = {}
    apply = service._runner.committed

    def watch(commit: Commit) -> None:
        apply(commit)
        for change in commit.changes:
            record = change.record
            if isinstance(record, Reservation) and record.state is State.STARTING:
                committed.setdefault(record.id, time.perf_counter())

    service._runner.committed = watch  # type: ignore[method-assign]
    submitted = 0

    async def fill() -> None:
        nonlocal submitted
        while sum(r.state is State.QUEUED for r in service.view.reservations.values()) < QUEUED:
            user = f"u{submitted % 20}"
            world.hub.users.add(user)
            owner = Owner(f"local:{user}", user, user)
            await world.reserve(owner, gpus=SHAPES[submitted % len(SHAPES)], hours=1 + submitted % 7)
            submitted += 1

    await fill()
    times: list[float] = []
    while len(times) < HANDOVERS:
        await world.until(
            lambda: all(r.state in (State.READY, State.QUEUED) for r in service.view.reservations.values())
        )
        await asyncio.sleep(0.02)
        record = next(r for r in service.view.reservations.values() if r.state is State.READY)
        taken = await hand_over(world, record, committed)
        if taken is not None:
            times.append(taken)
        await fill()
    await world.close()
    ordered = sorted(times)
    return {
        "hand-overs": len(times),
        "median_ms": round(statistics.median(times), 2),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)], 2),
        "max_ms": round(ordered[-1], 2),
    }


async def hand_over(world: ServiceWorld, record: Reservation, committed: dict[str, float]) -> float | None:
    """End a reservation; return milliseconds from its server's end to the first start, if one followed."""
    world.hub.stops = False
    await world.service.end(record.id, record.owner.subject)
    await world.until(lambda: record.id not in world.hub.rows)
    before = set(committed)
    gone = time.perf_counter()
    world.cluster.kill(record.id, record.attempt)
    await world.until(lambda: record.id not in world.service.view.reservations)
    await asyncio.sleep(0.01)
    new = [at for started, at in committed.items() if started not in before]
    return (min(new) - gone) * 1000 if new else None


def main() -> None:
    """Print the figures as one line of JSON."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        print(json.dumps(asyncio.run(measure(Path(folder)))))


if __name__ == "__main__":
    main()
