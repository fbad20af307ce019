"""Count what the service consumes on DynamoDB, and time it on DynamoDB Local.

The real service with its real store takes 1,000 reservations from request to end. Then 1,000 waiting requests
move to an earlier start at once, and the service starts with that queue. Last, 16 clients submit requests, in
process. ``python -m benchmarks.dynamodb``; needs `make test-dynamodb` once, which fetches DynamoDB Local.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from dynamodb_local import ENVIRONMENT, DynamoDBLocal
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.request import Ask
from gpudev_hub.stores.dynamodb.store import DynamoStore
from service_world import ALICE, BOB, POLICY, ServiceWorld

LIVES = 1_000
CLIENTS = 16
EACH = 63
WRITE, READ, STORED = 0.625, 0.125, 0.25
"""Dollars per million request units and per GB-month, on demand, in us-east-1 in 2025."""


@dataclass
class Meter:
    """Count what the calls of a client consume."""

    calls: Counter[str] = field(default_factory=Counter)
    writes: float = 0
    """Write units by the rules of AWS: two for each KB of a transaction, one for each KB in the index.

    An updated item (head, slot) counts as 1 KB. Writes of checkpoints count as DynamoDB Local says.
    """
    reads: float = 0
    """Read units, as DynamoDB Local says."""
    items: int = 0
    """Items of all transactions together."""
    most: int = 0
    """Items of the largest transaction."""
    sent: int = 0
    """Bytes of requests, which is more than what is stored."""

    def watch(self, client: Any) -> Any:
        client.meta.events.register("provide-client-params.dynamodb.*", self._ask)
        client.meta.events.register("before-call.dynamodb.*", self._sent)
        client.meta.events.register("after-call.dynamodb.*", self._answered)
        return client

    def _ask(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"
        if model.name != "TransactWriteItems":
            return
        self.items += len(params["TransactItems"])
        self.most = max(self.most, len(params["TransactItems"]))
        for write in params["TransactItems"]:
            item = write.get("Put", {}).get("Item")
            kilobytes = 1 if item is None else -(-size_of(item) // 1024)
            self.writes += 2 * kilobytes
            if item is not None and "subject" in item:
                self.writes += kilobytes

    def _sent(self, model: Any, params: dict[str, Any], **_: Any) -> None:
        self.calls[model.name] += 1
        self.sent += len(params["body"])

    def _answered(self, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        if model.name in ("GetItem", "Query"):
            self.reads += parsed["ConsumedCapacity"]["CapacityUnits"]
        if model.name in ("PutItem", "UpdateItem", "DeleteItem"):
            self.writes += parsed["ConsumedCapacity"]["CapacityUnits"]


def make_world(table: str, client: Any, folder: Path, allowances: Allowances) -> ServiceWorld:
    """The real service on this table, with a cluster and a Hub in memory."""
    return ServiceWorld(
        folder,
        policy=replace(POLICY, allowances=allowances),
        make_store=lambda _, failpoint: DynamoStore(table, client, failpoint),
    )


async def lives(table: str, client: Any, folder: Path) -> int:
    """Take 1,000 reservations from request to end on two nodes; return the number of commits."""

    world = make_world(table, client, folder, Allowances(queued_requests=1_000_000, running_gpus=16))
    service = await world.start()
    room = asyncio.Semaphore(48)

    async def one(n: int) -> None:
        async with room:
            record = await world.reserve(ALICE, gpus=(1, 2, 4, 8)[n % 4], hours=1 + n % 8)
            await world.becomes(record.id, "ready", timeout=600)
            await service.end(record.id, ALICE.subject)
            await world.becomes(record.id, "ended", timeout=600)

    await asyncio.gather(*(one(n) for n in range(LIVES)))
    await service.reconcile()
    commits = service.view.n
    await world.close()
    return commits


async def moves(table: str, meter: Meter, client: Any, folder: Path) -> tuple[int, float, float]:
    """End a server on all nodes, and let a queue move up; return commits, write units and seconds."""

    world = make_world(table, client, folder, Allowances(queued_requests=1_000_000))
    service = await world.start()
    held = await world.reserve(BOB, gpus=8, nodes=2)
    await world.becomes(held.id, "ready")
    for _ in range(LIVES // 50):
        await asyncio.gather(*(service.submit(ALICE, Ask(gpus=8, nodes=2, hours=1)) for _ in range(50)))
    commits, units, begun = service.view.n, meter.writes, time.perf_counter()
    await service.end(held.id, BOB.subject)
    await world.becomes(held.id, "ended", timeout=600)
    await service.reconcile()
    found = service.view.n - commits, meter.writes - units, time.perf_counter() - begun
    await world.close()
    return found


async def start(table: str, client: Any) -> float:
    """Return the seconds until a new service has read the live state."""

    store = DynamoStore(table, client)
    begun = time.perf_counter()
    await store.open()
    seconds = time.perf_counter() - begun
    await store.close()
    return seconds


async def submissions(table: str, client: Any, folder: Path) -> float:
    """Return acknowledged submissions per second of 16 clients into a full pool, without HTTP."""

    world = make_world(table, client, folder, Allowances(queued_requests=1_000_000))
    service = await world.start()
    held = await world.reserve(BOB, gpus=8, nodes=2)
    await world.becomes(held.id, "ready")

    async def client_of(number: int) -> None:
        for n in range(EACH):
            await service.submit(ALICE, Ask(gpus=(1, 2, 4, 8)[n % 4], hours=1 + n % 8), f"r{number}-{n}")

    begun = time.perf_counter()
    await asyncio.gather(*(client_of(number) for number in range(CLIENTS)))
    seconds = time.perf_counter() - begun
    await world.close()
    return CLIENTS * EACH / seconds


def stored(client: Any, table: str) -> dict[str, tuple[int, int]]:
    """Return items and bytes in the table, by kind. The service itself never scans a table."""
    found: dict[str, tuple[int, int]] = {}
    for page in client.get_paginator("scan").paginate(TableName=table):
        for item in page["Items"]:
            pk = item["pk"]["S"]
            kind = pk.partition("#")[0]
            size = size_of(item)
            count, total = found.get(kind, (0, 0))
            found[kind] = (count + 1, total + size)
    return found


def size_of(item: dict[str, Any]) -> int:
    """Return the size of an item by the rules of DynamoDB, in bytes."""
    return sum(len(name) + _bytes(value) for name, value in item.items())


def _bytes(value: dict[str, Any]) -> int:
    """Return the size of an attribute by the rules of DynamoDB, in bytes."""
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return (len(content) + 1) // 2 + 1
    if kind == "B":
        return len(content)
    return 3 + sum(1 + _bytes(each) for each in content)


def main() -> None:
    """Print the counts and times."""
    logging.basicConfig(level=logging.ERROR)
    os.environ.update(ENVIRONMENT)
    local = DynamoDBLocal()
    try:
        with tempfile.TemporaryDirectory() as folder:
            table, meter = local.table(), Meter()
            commits = asyncio.run(lives(table, meter.watch(local.client(timeout=20)), Path(folder)))
            found = stored(local.client(timeout=20), table)
        print(f"{LIVES} reservations from request to end: {commits} commits, calls {dict(meter.calls)}")
        print(f"{meter.items} items written, at most {meter.most} at once, {meter.sent / 1e6:.1f} MB sent")
        print(f"write units {meter.writes:.0f}, read units {meter.reads:.0f}")
        for kind, (count, size) in sorted(found.items()):
            print(f"  {kind:12} {count:6} items, {size / count:7.0f} bytes each, {size / 1e6:.2f} MB")
        total = sum(size for _, size in found.values())
        dollars = meter.writes / 1e6 * WRITE + meter.reads / 1e6 * READ
        print(f"stays: {total / 1e6:.2f} MB, ${total / 1e9 * STORED:.5f} a month; requests: ${dollars:.3f}")
        with tempfile.TemporaryDirectory() as folder:
            table, meter = local.table(), Meter()
            made = asyncio.run(moves(table, meter, meter.watch(local.client(timeout=20)), Path(folder)))
        print(f"{LIVES} requests move: {made[0]} commits, {made[1]:.0f} write units, {made[2]:.1f} s")
        meter = Meter()
        seconds = asyncio.run(start(table, meter.watch(local.client(timeout=20))))
        print(f"a start with them: {seconds * 1000:.0f} ms, {meter.reads:.0f} read units")
        rates = []
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                rates.append(asyncio.run(submissions(local.table(), local.client(timeout=20), Path(folder))))
        print(f"submissions/s over DynamoDB Local: {', '.join(f'{rate:.0f}' for rate in sorted(rates))}")
    finally:
        local.close()


if __name__ == "__main__":
    main()
