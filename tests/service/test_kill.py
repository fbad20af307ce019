"""``kill -9`` of a real service process under 16 submitters: what it acknowledged is there, once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dynamodb_local import DynamoDBLocal
from gpudev_hub.core.model import Reservation
from gpudev_hub.core.ports import Store
from gpudev_hub.failpoints import PLACES, nothing
from gpudev_hub.stores.dynamodb.store import DynamoStore
from service_world import in_a_file

SUPPORT = Path(__file__).parents[1] / "support"

CHILD = """
import asyncio, itertools, json, logging, os, sys
from dataclasses import replace
from pathlib import Path
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.request import Ask
from gpudev_hub.failpoints import from_environment
from gpudev_hub.stores.dynamodb.store import DynamoStore
from gpudev_hub.stores.dynamodb.calls import connect
from service_world import ALICE, BOB, POLICY, ServiceWorld, in_a_file

def make_store(folder, failpoint):
    if "DYNAMODB_TABLE" not in os.environ:
        return in_a_file(folder, failpoint)
    client = connect(endpoint_url=os.environ["DYNAMODB_URL"], timeout=20)
    return DynamoStore(os.environ["DYNAMODB_TABLE"], client, failpoint)

async def main(folder, round_, pending):
    policy = replace(POLICY, allowances=Allowances(queued_requests=1_000_000))
    world = ServiceWorld(Path(folder), policy=policy, make_store=make_store)
    world.seed(round_)
    service = await world.start(from_environment(os.environ))
    if not service.view.reservations:
        await world.reserve(BOB, gpus=8, nodes=2)

    async def submit(request_id):
        print(json.dumps(["sent", request_id]), flush=True)
        record = await service.submit(ALICE, Ask(gpus=1), request_id)
        print(json.dumps(["acknowledged", request_id, record.id]), flush=True)
        return record

    async def client(number):
        for n in itertools.count():
            record = await submit(f"r{round_}-{number}-{n}")
            if n % 3:
                await service.end(record.id, ALICE.subject)

    for request_id in pending:
        await submit(request_id)
    await asyncio.gather(*(client(number) for number in range(16)))

logging.basicConfig(level=logging.CRITICAL)
asyncio.run(main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])))
"""


def run(
    folder: Path, number: int, pending: list[str], environment: dict[str, str], lines: int
) -> list[list[str]]:
    """What one service process said until it died: at its failpoint, or after so many lines by a signal."""
    said: list[list[str]] = []
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(number), json.dumps(pending)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SUPPORT), **environment},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):
                said.append(json.loads(line))
            if lines and len(said) == lines:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == (-signal.SIGKILL if lines else 137)
    return said


@dataclass
class Place:
    """Where the services of a test keep their state."""

    make: Callable[[], Store]
    environment: dict[str, str]
    """How a service is told."""


@pytest.fixture(params=["sqlite", pytest.param("dynamodb", marks=pytest.mark.dynamodb)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(lambda: in_a_file(tmp_path, nothing), {})
    dynamodb: DynamoDBLocal = request.getfixturevalue("dynamodb")
    table, client = dynamodb.table(), dynamodb.client(timeout=20)
    return Place(lambda: DynamoStore(table, client), {"DYNAMODB_TABLE": table, "DYNAMODB_URL": dynamodb.url})


@pytest.mark.integration
@pytest.mark.timeout(400)
async def test_nothing_acknowledged_is_lost_and_nothing_doubled(tmp_path: Path, place: Place) -> None:
    """3"""
    chance = random.Random(20261124)
    kills: list[tuple[dict[str, str], int]] = [({}, chance.randrange(40, 400)) for _ in range(4)]
    for point in PLACES:
        for _ in range(2):
            at = chance.randrange(1, 40)
            kills.append(({"GPUDEV_FAILPOINT": point, "GPUDEV_FAILPOINT_AT": str(at)}, 0))
    chance.shuffle(kills)
    acknowledged: dict[str, str] = {}
    pending: list[str] = []
    for number, (environment, lines) in enumerate(kills):
        said = run(tmp_path, number, pending, place.environment | environment, lines)
        sent = {line[1]: None for line in said if line[0] == "sent"}
        for _, request_id, *found in said:
            if found:
                assert acknowledged.setdefault(request_id, found[0]) == found[0]
        pending = [
            request_id for request_id in {**dict.fromkeys(pending), **sent} if request_id not in acknowledged
        ]
        store = place.make()
        snapshot = await store.open()
        assert snapshot.epoch == 2 * (number + 1)
        for request_id, reservation in acknowledged.items():
            record = await store.find(reservation)
            assert record is not None, f"{reservation} was acknowledged before kill {number} and is lost"
            assert record.request_id == request_id
        entries, _ = await store.history(None, 0, 1_000_000)
        await store.close()
        first = [c.change.record for c in entries if c.change.cause == "requested"]
        requested = Counter(r.request_id for r in first if isinstance(r, Reservation))
        assert [r for r, count in requested.items() if count > 1] == []
        assert len({r.id for r in first if isinstance(r, Reservation)}) == len(first)
    assert len(acknowledged) > 300
