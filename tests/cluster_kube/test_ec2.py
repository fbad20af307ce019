"""Asking EC2 when capacity blocks end, over HTTP: extensions, refusals, silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from fake_ec2 import Block, FakeEc2, Fault, serve
from gpudev_hub.cluster.capacity import BlockSight
from gpudev_hub.cluster.ec2 import AFTER_TROUBLE, PERIOD, CapacityBlocks, connect
from gpudev_hub.core.model import HOUR, Millis
from service_world import SteppingClock

NOON: Millis = 1_893_499_200_000
"""1 Jan 2030, 12:00 UTC."""
DENIED = "give the role of the service the right ec2:DescribeCapacityReservations"


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEc2]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with serve(FakeEc2({"cr-1": Block("2030-01-01T12:00:00.000Z")})) as fake:
        yield fake


class Asking:
    """Asks, and counts what has changed."""

    def __init__(self, ec2: FakeEc2, timeout: float, tries: int) -> None:
        self.clock = SteppingClock()
        self.changes = 0
        self._changed = asyncio.Event()
        self.blocks = CapacityBlocks(
            lambda: connect("us-east-2", ec2.url, timeout=timeout, tries=tries), "us-east-2", self.clock
        )
        self.blocks.on_change = self._on_change

    def _on_change(self) -> None:
        self.changes += 1
        self._changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not true():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def asking(ec2: FakeEc2, timeout: float = 20, tries: int = 1) -> AsyncIterator[Asking]:
    found = Asking(ec2, timeout, tries)
    task = asyncio.create_task(found.blocks.run())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_end_is_read_at_once_and_again_after_five_minutes(ec2: FakeEc2) -> None:
    async with asking(ec2) as a:
        a.blocks.want({"cr-1"})
        await a.until(lambda: bool(a.blocks.sights))
        assert a.blocks.sights == {"cr-1": BlockSight(NOON)}
        ec2.blocks["cr-1"].ends = "2030-01-08T11:30:00Z"
        a.clock.advance(PERIOD)
        await a.until(lambda: a.changes == 2)
        assert a.blocks.sights["cr-1"].ends_at == NOON + 7 * 24 * HOUR - HOUR // 2, "extended, with its id"
        ec2.blocks["cr-1"].state = "cancelled"
        a.clock.advance(PERIOD)
        await a.until(lambda: a.changes == 3)
        assert a.blocks.sights["cr-1"].over == "capacity block cr-1 is cancelled"


async def test_only_blocks_that_are_wanted_are_asked_for_and_a_new_one_at_once(ec2: FakeEc2) -> None:
    ec2.blocks |= {"cr-2": Block("2030-01-01T13:00:00Z"), "cr-3": Block("2030-01-01T14:00:00Z")}
    async with asking(ec2) as a:
        a.clock.advance(PERIOD)
        await asyncio.sleep(0)
        assert ec2.asked == [], "without a block EC2 is not called"
        a.blocks.want({"cr-1"})
        await a.until(lambda: len(a.blocks.sights) == 1)
        a.blocks.want({"cr-1", "cr-2"})
        await a.until(lambda: len(a.blocks.sights) == 2)
        a.blocks.want({"cr-2"})
        a.clock.advance(PERIOD)
        await a.until(lambda: len(a.blocks.sights) == 1)
        assert ec2.asked == [["cr-1"], ["cr-1", "cr-2"], ["cr-2"]]


async def test_an_answer_of_several_pages_is_read_to_its_end(ec2: FakeEc2) -> None:
    ec2.blocks = {f"cr-{n}": Block(f"2030-01-01T12:0{n}:00Z") for n in range(5)}
    ec2.page = 2
    async with asking(ec2) as a:
        a.blocks.want(set(ec2.blocks))
        await a.until(lambda: bool(a.blocks.sights))
        assert {name: sight.ends_at for name, sight in a.blocks.sights.items()} == {
            f"cr-{n}": NOON + n * 60_000 for n in range(5)
        }
        assert len(ec2.asked) == 3


async def test_an_id_that_ec2_does_not_know_spoils_nothing_for_the_others(ec2: FakeEc2) -> None:
    async with asking(ec2) as a:
        a.blocks.want({"cr-1", "cr-gone", "nonsense"})
        await a.until(lambda: bool(a.blocks.sights))
        assert a.blocks.sights["cr-1"] == BlockSight(NOON)
        for name in ("cr-gone", "nonsense"):
            assert a.blocks.sights[name].ends_at is None
            assert a.blocks.sights[name].trouble.startswith("EC2 does not know it in us-east-2")


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        (Fault.DENIED, DENIED),
        (Fault.THROTTLED, "EC2 does not answer (RequestLimitExceeded)"),
        (Fault.BROKEN, "EC2 does not answer (InternalError)"),
        (Fault.GARBAGE, "EC2 does not answer (ResponseParserError)"),
        (Fault.HANGS, "EC2 does not answer (ReadTimeoutError)"),
    ],
)
async def test_the_last_known_end_stays_while_ec2_fails(ec2: FakeEc2, fault: Fault, trouble: str) -> None:
    async with asking(ec2, timeout=0.5 if fault is Fault.HANGS else 20) as a:
        ec2.fault = fault
        a.blocks.want({"cr-1"})
        await a.until(lambda: bool(a.blocks.sights))
        assert a.blocks.sights == {"cr-1": BlockSight(trouble=trouble)}, "never known"
        ec2.fault = None
        a.clock.advance(AFTER_TROUBLE)
        await a.until(lambda: a.blocks.sights["cr-1"].trouble == "")
        ec2.fault = fault
        a.clock.advance(PERIOD)
        await a.until(lambda: a.blocks.sights["cr-1"].trouble != "")
        assert a.blocks.sights == {"cr-1": BlockSight(NOON, trouble=trouble)}


async def test_the_state_of_a_block_stays_too(ec2: FakeEc2) -> None:
    ec2.blocks["cr-1"].state = "cancelled"
    async with asking(ec2) as a:
        a.blocks.want({"cr-1"})
        await a.until(lambda: bool(a.blocks.sights))
        ec2.fault = Fault.DENIED
        a.clock.advance(PERIOD)
        await a.until(lambda: a.changes == 2)
        assert a.blocks.sights["cr-1"] == BlockSight(NOON, "capacity block cr-1 is cancelled", DENIED)


async def test_botocore_tries_again_when_ec2_is_busy(ec2: FakeEc2) -> None:
    async with asking(ec2, tries=2) as a:
        ec2.fault = Fault.THROTTLED
        a.blocks.want({"cr-1"})
        await a.until(lambda: bool(a.blocks.sights))
        assert ec2.asked == [["cr-1"], ["cr-1"]]


async def test_nobody_waits_for_an_ec2_that_hangs(ec2: FakeEc2) -> None:
    async with asking(ec2) as a:
        ec2.fault = Fault.HANGS
        a.blocks.want({"cr-1"})
        assert await asyncio.to_thread(ec2.arrived.wait, 30)
        a.blocks.want({"cr-1", "cr-2"})
        assert a.blocks.sights == {}
        ec2.fault = None
        ec2.released.set()
        await a.until(lambda: len(a.blocks.sights) == 2)


async def test_without_credentials_nothing_is_known_and_that_is_said(
    ec2: FakeEc2, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    async with asking(ec2) as a:
        a.blocks.want({"cr-1"})
        await a.until(lambda: bool(a.blocks.sights))
        assert "no valid AWS credentials (NoCredentialsError)" in a.blocks.sights["cr-1"].trouble
    assert ec2.asked == []


async def test_a_defect_does_not_end_the_questions(ec2: FakeEc2, caplog: pytest.LogCaptureFixture) -> None:
    async with asking(ec2) as a:
        ec2.blocks["cr-1"].ends = "soon"
        a.blocks.want({"cr-1"})
        assert await asyncio.to_thread(ec2.arrived.wait, 30)
        ec2.blocks = {name: Block("2030-01-01T12:00:00Z") for name in ("cr-1", "cr-2")}
        a.blocks.want({"cr-1", "cr-2"})
        await a.until(lambda: bool(a.blocks.sights))
        assert a.blocks.sights["cr-1"] == BlockSight(NOON)
    assert "reading the ends of capacity blocks failed" in caplog.text
