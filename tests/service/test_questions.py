"""Logins of accounts without access: what they may cost, and that nobody else waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpudev_hub.core.access_model import Access
from gpudev_hub.core.errors import Refused
from gpudev_hub.core.gate import Entry, LoginAnswer
from gpudev_hub.core.model import SECOND
from gpudev_hub.core.ports import Facts
from gpudev_hub.service import questions
from gpudev_hub.service.people import People
from gpudev_hub.service.sweep import Sweep
from organisation import Organisation, github
from service_world import ServiceWorld

ANN, BEN, EVE = 1, 2, 100
"""Ann and Ben may get in, and so may everybody up to 9; Eve may not."""


class SlowOrganisation(Organisation):
    """Answers questions about single accounts when a test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.waiting: set[int] = set()

    async def facts(self, id: int) -> Facts:
        self.waiting.add(id)
        try:
            await self.open.wait()
        finally:
            self.waiting.discard(id)
        return await super().facts(id)


class World(ServiceWorld):
    """People, strangers and a GitHub that takes its time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.org = SlowOrganisation()
        for number in range(1, 10):
            self.org.join(number, f"p{number}")
        for number in range(EVE, EVE + 20):
            self.org.accounts[number] = f"p{number}"
        self.rate: tuple[int, int] | None = None
        self.github = replace(github(self.org), rate=lambda: self.rate)

    @property
    def people(self) -> People:
        return self.service.access.people

    @property
    def sweep(self) -> Sweep:
        assert self.service.access.sweep is not None
        return self.service.access.sweep

    async def login(self, number: int) -> LoginAnswer:
        return await self.people.login(number, f"p{number}")

    def begin(self, *numbers: int) -> list[asyncio.Task[LoginAnswer]]:
        return [asyncio.create_task(self.login(number)) for number in numbers]


async def turns(count: int = 50) -> None:
    """Let everything go on that can."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    await found.start()
    await turns()
    yield found
    found.org.open.set()
    await found.close()


async def test_logins_of_one_account_share_a_question(world: World) -> None:
    world.org.open.clear()
    logins = world.begin(*[EVE] * 5, *[ANN] * 5)
    await turns()
    world.org.open.set()
    verdicts = [(await login).verdict for login in logins]
    assert verdicts == [Entry.REFUSED] * 5 + [Entry.ALLOWED] * 5
    assert sorted(world.org.asked) == [ANN, EVE]


async def test_whoever_gives_up_ends_no_question_of_others(world: World) -> None:
    world.org.open.clear()
    first, second = world.begin(ANN, ANN)
    await turns()
    first.cancel()
    await turns()
    world.org.open.set()
    assert (await second).verdict is Entry.ALLOWED
    assert world.org.asked == [ANN]


async def test_a_refusal_stands_for_half_a_minute(world: World) -> None:
    first = await world.login(EVE)
    world.org.join(EVE, "p100")
    world.clock.advance(20 * SECOND)
    assert await world.login(EVE) == first
    assert world.org.asked == [EVE]
    world.clock.advance(11 * SECOND)
    assert (await world.login(EVE)).verdict is Entry.ALLOWED
    assert world.org.asked == [EVE, EVE]


async def test_no_refusal_is_remembered_of_people_who_are_in(world: World) -> None:
    await world.login(ANN)
    world.org.push.remove(ANN)
    assert (await world.login(ANN)).verdict is Entry.REFUSED
    assert world.service.view.people["github:1"].access is Access.REVOKED
    world.org.push.add(ANN)
    await world.sweep.once()
    asked = len(world.org.asked)
    assert (await world.login(ANN)).verdict is Entry.ALLOWED
    assert len(world.org.asked) == asked + 1


async def test_an_outage_is_not_remembered(world: World) -> None:
    world.org.silent = "GitHub answered 502"
    assert (await world.login(ANN)).verdict is Entry.UNAVAILABLE
    world.org.silent = ""
    assert (await world.login(ANN)).verdict is Entry.ALLOWED


async def test_few_strangers_are_asked_about_at_once_and_people_do_not_wait(world: World) -> None:
    await world.login(ANN)
    world.org.open.clear()
    logins = world.begin(*range(EVE, EVE + 20))
    await turns()
    assert len(world.org.waiting) == questions.STRANGERS == 4
    known = world.begin(ANN)[0]
    await turns()
    assert ANN in world.org.waiting
    world.org.open.set()
    assert (await known).verdict is Entry.ALLOWED
    assert {(await login).verdict for login in logins} == {Entry.REFUSED}


async def test_strangers_who_wait_for_too_long_are_told_to_try_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "TURN_TIMEOUT", 0.01)
    world.org.open.clear()
    world.begin(*range(EVE, EVE + 4))
    await turns()
    answer = await world.login(BEN)
    assert answer.verdict is Entry.UNAVAILABLE
    assert "too many accounts without access log in at once" in answer.message
    assert "Try again" in answer.hint
    world.org.open.set()
    assert (await world.login(BEN)).verdict is Entry.ALLOWED


async def test_the_last_fifth_of_the_hourly_limit_is_kept_for_people_who_are_in(world: World) -> None:
    world.rate = (1000, 5000)
    assert (await world.login(ANN)).verdict is Entry.ALLOWED
    world.rate = (999, 5000)
    asked = list(world.org.asked)
    answer = await world.login(BEN)
    assert answer.verdict is Entry.UNAVAILABLE
    assert "999 of the 5000 requests that GitHub allows in an hour are left" in answer.message
    assert "not mean that your access was refused" in answer.hint
    assert world.org.asked == asked
    assert (await world.login(ANN)).verdict is Entry.ALLOWED
    assert world.org.asked == [*asked, ANN]
    world.rate = (5000, 5000)
    assert (await world.login(BEN)).verdict is Entry.ALLOWED


async def test_the_end_of_the_service_ends_its_questions(world: World) -> None:
    world.org.open.clear()
    logins = world.begin(EVE, ANN)
    await turns()
    await world.service.access.stop()
    found = await asyncio.gather(*logins, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError | Refused) for one in found)
    assert not world.org.waiting
