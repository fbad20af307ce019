"""The sweep over real HTTP to a GitHub that behaves like the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fake_github import FakeGithub, make_github
from gpudev_hub.auth.parts import GithubParts
from gpudev_hub.core.access_model import Access
from gpudev_hub.core.errors import Refused
from gpudev_hub.core.gate import Entry
from gpudev_hub.core.limits.rules import limits_of
from gpudev_hub.core.model import HOUR, MINUTE
from gpudev_hub.github_settings import GithubSettings
from gpudev_hub.service.people import People
from gpudev_hub.service.sweep import Sweep
from gpudev_hub.wiring import access_by
from service_world import ServiceWorld

ADA, BEN, CLEO, DORA, EVE, OLGA = range(101, 107)
ORG, TEAM = "pytorch", "metamates"


class World(ServiceWorld):
    """A service whose people are those of the fake GitHub."""

    fake: FakeGithub

    @property
    def people(self) -> People:
        return self.service.access.people

    @property
    def sweep(self) -> Sweep:
        assert self.service.access.sweep is not None
        return self.service.access.sweep

    def access(self, number: int) -> Access:
        return self.service.view.people[f"github:{number}"].access


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    folder = tmp_path / "app"
    fake = make_github(folder=folder, callback_urls=["http://127.0.0.1:9/hub/oauth_callback"])
    fake.start()
    found = World(tmp_path)
    found.fake = fake
    named = {"GPUDEV_GITHUB": str(folder / "github.json")}
    settings = GithubSettings.read(named)
    assert settings is not None
    parts = GithubParts(settings, now=found.clock.now, folder=tmp_path)
    found.github, found.policy = access_by(parts, "#gpu-help"), settings.on(found.policy)
    await found.start()
    yield found
    await found.close()
    await parts.close()
    fake.stop()


async def come(world: World, *logins: tuple[int, str]) -> None:
    for number, login in logins:
        assert (await world.people.login(number, login)).verdict is Entry.ALLOWED


@pytest.mark.parametrize(
    ("number", "login", "verdict", "reason"),
    [
        (ADA, "ada", Entry.ALLOWED, ""),
        (CLEO, "cleo", Entry.REFUSED, "no push permission on pytorch/pytorch"),
        (DORA, "dora", Entry.REFUSED, "not a member of pytorch/metamates"),
        (EVE, "eve", Entry.REFUSED, "not a member of pytorch/metamates, and no push permission"),
        (999, "nobody", Entry.REFUSED, "GitHub no longer has this account"),
    ],
)
async def test_team_and_push_let_people_in(
    world: World, number: int, login: str, verdict: Entry, reason: str
) -> None:
    answer = await world.people.login(number, login)
    assert answer.verdict is verdict
    assert reason in answer.message


async def test_a_fifth_of_the_hourly_limit_is_left_to_people_who_are_in(world: World) -> None:
    world.fake.control.rate_limit(remaining=900)
    await come(world, (ADA, "ada"))
    answer = await world.people.login(BEN, "ben")
    assert answer.verdict is Entry.UNAVAILABLE
    assert "of the 5000 requests that GitHub allows in an hour are left" in answer.message
    await come(world, (ADA, "ada"))


async def test_operators_are_those_of_the_operator_team(world: World) -> None:
    await come(world, (ADA, "ada"), (OLGA, "olga"))
    assert [(await world.people.login(n, "x")).operator for n in (ADA, OLGA)] == [False, True]


async def test_losing_the_team_or_push_is_seen_by_the_next_sweep(world: World) -> None:
    await come(world, (ADA, "ada"), (BEN, "ben"), (OLGA, "olga"))
    world.fake.control.leave(ORG, TEAM, "ada")
    assert await world.sweep.once()
    assert [world.access(n) for n in (ADA, BEN)] == [Access.REVOKED, Access.ALLOWED]
    world.fake.control.join(ORG, TEAM, "ada", state="pending")
    world.clock.advance(MINUTE)
    assert await world.sweep.once()
    assert world.access(ADA) is Access.REVOKED, "an invitation is no membership"
    world.fake.control.join(ORG, TEAM, "ada")
    world.clock.advance(MINUTE)
    assert await world.sweep.once()
    assert world.access(ADA) is Access.ALLOWED


async def test_a_rename_is_followed_and_the_old_login_is_another_person(world: World) -> None:
    await come(world, (ADA, "ada"))
    world.fake.control.rename("ada", "ada-l")
    stranger = world.fake.control.account("ada")
    world.clock.advance(MINUTE)
    assert await world.sweep.once()
    owner = world.people.owner_of("ada")
    assert owner is not None
    assert owner.login == "ada-l"
    assert (await world.people.login(stranger.id, "ada")).verdict is Entry.REFUSED


async def test_an_emptied_team_and_an_outage_revoke_nobody(world: World) -> None:
    await come(world, (ADA, "ada"), (BEN, "ben"))
    world.fake.control.empty_team(ORG, TEAM)
    assert not await world.sweep.once()
    assert "GitHub lists no member of pytorch/metamates" in world.service.access.problems()[0]
    world.fake.control.outage()
    world.clock.advance(MINUTE)
    assert not await world.sweep.once()
    assert [world.access(n) for n in (ADA, BEN)] == [Access.ALLOWED] * 2
    assert (await world.people.login(OLGA, "olga")).verdict is Entry.UNAVAILABLE


async def test_a_team_that_the_app_cannot_see_revokes_nobody(world: World) -> None:
    await come(world, (ADA, "ada"))
    world.fake.control.rename_team(ORG, TEAM, "other")
    assert not await world.sweep.once()
    assert world.access(ADA) is Access.ALLOWED
    world.clock.advance(HOUR)
    assert world.people.verdict(f"github:{ADA}").allowed


async def test_limits_name_the_teams_of_the_settings_and_follow_who_is_in_them(world: World) -> None:
    limits = world.service.limits
    await limits.set("default", None, {"running_gpus": 4}, "local:root")
    rule, warnings = await limits.set("team:pytorch/compiler", None, {"running_gpus": 32}, "local:root")
    assert (rule is not None, warnings) == (True, []), "nobody of this team is known yet"
    known = "Known teams: pytorch/compiler, pytorch/gpudev-operators and pytorch/metamates."
    with pytest.raises(Refused) as refused:
        await limits.set("team:pytorch/other", None, {"running_gpus": 8}, "local:root")
    assert refused.value.hint == known
    await come(world, (ADA, "ada"), (BEN, "ben"))

    def most(number: int) -> int:
        subject = f"github:{number}"
        return limits_of(world.policy, world.service.view, subject, "h100").values.running_gpus

    assert [most(number) for number in (ADA, BEN)] == [32, 4]
    world.fake.control.leave(ORG, "compiler", "ada")
    world.fake.control.join(ORG, "compiler", "ben")
    world.clock.advance(MINUTE)
    assert await world.sweep.once()
    assert [most(number) for number in (ADA, BEN)] == [4, 32]
    assert world.access(ADA) is Access.ALLOWED
