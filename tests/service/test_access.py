"""People come, lose access and come back, with a real store and a Hub over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpudev_hub.core.access_model import Access, Person
from gpudev_hub.core.commit import Commit
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.gate import AdmitRequest, Entry, Verdict
from gpudev_hub.core.model import HOUR, MINUTE, Outcome, Owner, Reservation, State
from gpudev_hub.core.ports import Store, StoreUnavailable
from gpudev_hub.failpoints import AFTER_COMMIT, BEFORE_ANSWER, BEFORE_COMMIT, BEFORE_EFFECT
from gpudev_hub.service.effects.revocations import MINTED_LATE
from gpudev_hub.service.people import People
from gpudev_hub.service.sweep import LATE, Sweep
from organisation import RULES, Organisation, github
from service_world import Died, ServiceWorld

ANN, BEN = "github:1", "github:2"
GRACE = 30 * MINUTE


def token(id: str, note: str = "gpu-dev login", client: str = "JupyterHub") -> dict[str, str]:
    return {"id": id, "user": "ann", "note": note, "oauth_client": client}


class World(ServiceWorld):
    """Ann, Ben and eight others may get in."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.org = Organisation()
        for number, login in [(1, "Ann"), (2, "ben"), *((n, f"p{n}") for n in range(3, 11))]:
            self.org.join(number, login)
        self.github = github(self.org)
        self.hub.users |= {"ann", "ben"}
        self.hub.subject_of = lambda user: self.people.owner_of(user).subject  # type: ignore[union-attr]

    @property
    def people(self) -> People:
        return self.service.access.people

    @property
    def sweep(self) -> Sweep:
        assert self.service.access.sweep is not None
        return self.service.access.sweep

    def person(self, subject: str = ANN) -> Person:
        return self.service.view.people[subject]

    async def come(self, *ids: int) -> None:
        for number in ids:
            answer = await self.people.login(number, self.org.accounts[number])
            assert answer.verdict is Entry.ALLOWED

    async def ready(self, hub_user: str = "ann") -> Reservation:
        owner = self.people.owner_of(hub_user)
        assert owner is not None
        record = await self.reserve(owner)
        return await self.becomes(record.id, "ready")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    await found.start()
    yield found
    await found.close()


async def test_a_login_gives_a_name_once_and_the_committed_state_answers(world: World) -> None:
    answer = await world.people.login(1, "Ann")
    assert (answer.verdict, answer.hub_user) == (Entry.ALLOWED, "ann")
    world.org.accounts[1] = "annie"
    assert (await world.people.login(1, "annie")).hub_user == "ann"
    assert world.people.owner_of("ann") == Owner(ANN, "ann", "annie")
    assert world.people.by_login("ANNIE") == world.person()
    assert world.people.by_login("ann") is None
    assert world.people.verdict(ANN).allowed
    await world.restart()
    assert world.people.access_of("ann").verdict is Entry.ALLOWED
    assert world.people.access_of("ann").github_id == 1


async def test_whoever_lacks_something_is_refused_with_why_and_whom_to_ask(world: World) -> None:
    world.org.push.remove(3)
    answer = await world.people.login(3, "p3")
    assert answer.verdict is Entry.REFUSED
    assert answer.message == "p3 may not use this hub: no push permission on pytorch/pytorch."
    assert answer.hint.endswith("Ask #gpu-help.")
    assert "github:3" not in world.service.view.people
    assert not world.people.verdict("github:3").allowed
    assert world.people.access_of("p3").verdict is Entry.REFUSED


async def test_while_github_is_silent_only_known_people_stay_for_the_grace(
    world: World,
) -> None:
    await world.come(1)
    world.org.silent = "GitHub did not answer in 10 s"
    new = await world.people.login(2, "ben")
    assert new.verdict is Entry.UNAVAILABLE
    assert "GitHub did not answer in 10 s" in new.message
    assert "not mean that your access was refused" in new.hint
    assert (await world.people.login(1, "Ann")).verdict is Entry.ALLOWED
    world.clock.advance(12 * HOUR + MINUTE)
    assert not world.people.verdict(ANN).allowed
    assert world.people.access_of("ann").verdict is Entry.REFUSED
    assert (await world.people.login(1, "Ann")).verdict is Entry.UNAVAILABLE
    assert world.person().access is Access.ALLOWED, "not confirmed is not revoked"
    world.org.silent = ""
    assert await world.sweep.once()
    assert world.people.verdict(ANN).allowed


class Full:
    """A store that can be read only, when a test says so."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, commit: Commit) -> None:
        if self.full:
            raise StoreUnavailable("the disk is full")
        await self._store.commit(commit)


async def test_while_nothing_can_be_stored_nobody_new_gets_in_and_others_do(world: World) -> None:
    stores: list[Full] = []

    def wrap(store: Store) -> Store:
        stores.append(Full(store))
        return stores[-1]

    world.wrap = wrap
    await world.restart()
    await world.come(1)
    stores[-1].full = True
    known, new = await world.people.login(1, "Ann"), await world.people.login(2, "ben")
    assert (known.verdict, known.hub_user) == (Entry.ALLOWED, "ann")
    assert new.verdict is Entry.UNAVAILABLE
    assert new.message == "The login of ben could not be saved."
    assert "not mean that your access was refused" in new.hint
    # Not so who is stored as somebody without access.
    stores[-1].full = False
    await world.come(2)
    world.org.team.remove(2)
    assert await world.sweep.once()
    world.org.team.add(2)
    stores[-1].full = True
    assert (await world.people.login(2, "ben")).verdict is Entry.UNAVAILABLE


async def test_a_person_about_whom_github_says_nothing_keeps_nobody_else_in(world: World) -> None:
    await world.come(1, 2)
    for number in (1, 2):
        world.org.team.remove(number)
    world.org.silent_about.add(1)
    assert not await world.sweep.once()
    assert world.people.verdict(ANN).allowed
    assert not world.people.verdict(BEN).allowed
    world.clock.advance(HOUR)
    assert "GitHub could not be asked about somebody" in world.service.access.problems()[0], "nobody is named"


async def test_people_about_whom_github_says_nothing_hold_up_one_sweep_at_most(world: World) -> None:
    """13."""
    for number in range(11, 31):
        world.org.join(number, f"p{number}")
    await world.come(*range(1, 31))
    world.org.team -= set(range(1, 7))
    world.org.silent_about |= {1, 2, 3}
    for asked in ([1, 2, 3], [4, 5, 6, 1, 2, 3]):
        world.org.asked.clear()
        world.clock.advance(5 * MINUTE)
        assert not await world.sweep.once()
        assert world.org.asked == asked
    assert all(not world.people.verdict(f"github:{number}").allowed for number in (4, 5, 6))


async def test_a_defect_met_with_one_person_ends_no_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.come(1)

    async def broken(_: str) -> bool:
        raise AttributeError

    monkeypatch.setattr(world.sweep, "_single", broken)
    await world.sweep.look_at(1)


async def test_a_sweep_revokes_after_a_single_check_and_everything_follows(world: World) -> None:
    """5, 13: tokens deleted, connections cut, the queue left, servers stopped after the grace."""
    await world.come(1, 2)
    first = await world.ready()
    second, third = [await world.reserve(first.owner) for _ in range(2)]
    assert third.state is State.QUEUED
    own = token("t3", f"Server at /user/ann/{first.id}/")
    forged = token("t4", f"Server at /user/ann/{first.id}/", client=f"Server at /user/ann/{first.id}/")
    world.hub.add_tokens(token("t1"), token("t2", client="service-gpudev"), own, forged)
    latest = world.service.cuts.after(0).latest
    world.org.team.remove(1)
    world.org.asked.clear()
    assert await world.sweep.once()
    assert world.org.asked == [1], "only the suspect is asked about alone"
    assert world.person().reason == "not a member of pytorch/metamates"
    ended = await world.becomes(third.id, "ended")
    assert ended.outcome is Outcome.ACCESS_REVOKED
    await world.until(lambda: world.hub.tokens_of("ann") == [own])
    # JupyterLab must ask the Hub again, which knew the tokens until now.
    await world.until(
        lambda: [cut.subject for cut in world.service.cuts.after(latest).cuts] == [ANN, "hub:ann"]
    )
    assert world.service.view.reservations[first.id].state is State.READY
    with pytest.raises(Refused) as refused:
        await world.service.extend(first.id, ANN, HOUR)
    assert refused.value.code is Code.ACCESS_REVOKED
    world.clock.advance(GRACE)
    ended = await world.becomes(first.id, "ended")
    assert (ended.outcome, ended.detail) == (
        Outcome.ACCESS_REVOKED,
        "access was revoked: not a member of pytorch/metamates",
    )
    assert (await world.becomes(second.id, "ended")).outcome is Outcome.ACCESS_REVOKED
    await world.until(lambda: world.hub.tokens_of("ann") == [], "its own token goes with the server")
    assert world.people.verdict(BEN).allowed


async def test_who_is_blocked_loses_access_at_the_start_without_github(world: World) -> None:
    """13: their server ends after the grace, tokens and SSH at once; nobody else notices."""
    await world.come(1, 2)
    first = await world.ready()
    world.hub.add_tokens(token("t1"))
    world.github = github(world.org, replace(RULES, blocked=frozenset({1})))
    await world.restart()
    world.org.silent = "GitHub answered 502"
    assert not await world.sweep.once()
    verdict = world.people.verdict(ANN)
    assert not verdict.allowed
    assert verdict.message == "Access of Ann to this hub was revoked: an operator blocked this account."
    assert world.people.verdict(BEN).allowed
    await world.until(lambda: world.hub.tokens_of("ann") == [])
    world.org.silent = ""
    world.clock.advance(GRACE)
    assert await world.sweep.once()
    assert (await world.becomes(first.id, "ended")).outcome is Outcome.ACCESS_REVOKED
    answer = await world.people.login(1, "Ann")
    assert answer.verdict is Entry.REFUSED
    assert answer.hint == "Ask #gpu-help."


async def test_access_that_is_back_within_the_grace_lets_the_server_live(world: World) -> None:
    await world.come(1)
    record = await world.ready()
    world.org.team.remove(1)
    await world.sweep.once()
    assert world.service.view.reservations[record.id].access_ends_at is not None
    world.org.team.add(1)
    world.clock.advance(10 * MINUTE)
    await world.sweep.once()
    world.clock.advance(GRACE)
    await world.service.reconcile()
    assert world.service.view.reservations[record.id].state is State.READY


async def test_a_list_that_lacks_somebody_revokes_nobody(world: World) -> None:
    await world.come(1)
    world.org.unlisted.add(1)
    assert await world.sweep.once()
    assert world.person().access is Access.ALLOWED


async def test_an_uncertain_answer_revokes_nobody_and_is_no_complete_sweep(world: World) -> None:
    await world.come(1)
    await world.sweep.once()
    at = world.service.view.swept_at
    world.org.team.remove(1)
    world.org.silent_about.add(1)
    world.clock.advance(HOUR)
    assert not await world.sweep.once()
    assert world.person().access is Access.ALLOWED
    assert world.service.view.swept_at == at


async def test_the_brake_holds_a_mass_revocation_until_an_operator_releases_it(world: World) -> None:
    await world.come(*range(1, 11))
    world.org.team -= {1, 2, 3, 4}
    assert not await world.sweep.once()
    assert all(p.access is Access.ALLOWED for p in world.service.view.people.values())
    assert world.sweep.held == (ANN, BEN, "github:3", "github:4")
    (problem,) = world.service.access.problems()
    assert problem.startswith("4 people would lose access at once; at most 2 are revoked without an operator")
    assert problem.endswith("confirm it: gpu-dev admin access --confirm-revocations")
    world.org.team.add(4)
    assert await world.sweep.release(frozenset(world.sweep.held), BEN)
    revoked = {s for s, p in world.service.view.people.items() if p.access is Access.REVOKED}
    assert revoked == {ANN, BEN, "github:3"}, "whoever is back in the team keeps access"
    assert world.service.access.problems() == []


async def test_the_brake_left_on_shuts_out_the_suspects_alone(world: World) -> None:
    await world.come(*range(1, 11))
    world.org.team -= {1, 2, 3}
    for _ in range(13):
        world.clock.advance(HOUR)
        assert not await world.sweep.once()
    allowed = {s for s in world.service.view.people if world.people.verdict(s).allowed}
    assert allowed == {f"github:{n}" for n in range(4, 11)}


async def test_hints_ask_about_one_person_and_many_of_them_wake_the_sweep(world: World) -> None:
    await world.come(*range(1, 11))
    world.org.team -= {1, 2, 3, 4}
    world.org.asked.clear()
    await world.sweep.look_at(1)
    await world.sweep.look_at(1)
    await world.sweep.look_at(77)
    assert world.org.asked == [1], "once, and about nobody unknown"
    assert world.person().access is Access.REVOKED
    before = world.org.listed
    world.clock.advance(MINUTE)
    for number in (2, 3, 4):
        await world.sweep.look_at(number)
    # Before the sweep, which may be quick.
    revoked = {s for s, p in world.service.view.people.items() if p.access is Access.REVOKED}
    assert revoked == {ANN, BEN}, "two within an hour; two more at once are for the sweep"
    await world.until(lambda: world.org.listed > before, "a sweep")


async def test_a_team_that_github_does_not_show_is_told(world: World) -> None:
    """A renamed team of operators must not become an empty team in silence."""
    world.org.problems.append("GitHub shows no team pytorch/ops: check its name")
    await world.sweep.once()
    (problem,) = world.service.access.problems()
    assert problem.startswith("GitHub shows no team pytorch/ops: check its name; until then")
    world.org.problems.clear()
    await world.sweep.once()
    assert world.service.access.problems() == []


async def test_a_late_sweep_and_a_rate_limit_are_told(world: World) -> None:
    await world.come(1)
    await world.until(lambda: world.sweep.sweeps)
    world.org.silent = "GitHub limits requests"
    world.org.retry_at = world.clock.now() + HOUR
    assert not await world.sweep.once()
    assert len(world.service.access.problems()) == 1
    world.clock.advance(LATE * 5 * MINUTE + MINUTE)
    late, limited = world.service.access.problems()
    assert late.startswith("access was last compared with GitHub at ")
    assert limited.startswith("GitHub limits requests until ")


async def test_the_sweep_runs_by_itself_and_waits_as_long_as_github_says(world: World) -> None:
    await world.until(lambda: world.sweep.sweeps == 1)
    world.org.silent, world.org.retry_at = "GitHub limits requests", world.clock.now() + HOUR
    world.clock.advance(5 * MINUTE)
    await world.until(lambda: world.sweep.failures == 1)
    world.clock.advance(30 * MINUTE)
    world.sweep.soon()
    await asyncio.sleep(0.05)
    assert world.sweep.failures == 1
    world.org.silent, world.org.retry_at = "", None
    world.clock.advance(30 * MINUTE)
    await world.until(lambda: world.sweep.sweeps == 2)


async def test_the_gate_refuses_who_lost_access_and_restarts_in_the_grace(
    world: World,
) -> None:
    await world.come(1)
    record = await world.ready()
    minted = await world.service.mint(ANN)
    world.org.team.remove(1)
    await world.sweep.once()
    for asked in (
        AdmitRequest(ANN, "ann", "Ann", minted, form=True, options={"gpus": 1}),
        AdmitRequest(ANN, "ann", "Ann", record.id, form=True),
        AdmitRequest(ANN, "ann", "Ann", "nothing", form=False),
    ):
        answer = await world.service.gate.admit(asked)
        assert answer.verdict is Verdict.FORBIDDEN
        assert "revoked: not a member of pytorch/metamates" in answer.message
    world.cluster.kill(record.id, 1, "OOM")
    await world.until(lambda: (record.id, 2) in world.cluster.running)


async def test_the_hub_away_delays_the_end_of_tokens_and_no_more(world: World) -> None:
    await world.come(1)
    world.hub.add_tokens(token("t1"))
    world.hub.failure = (503, "busy")
    world.org.team.remove(1)
    await world.sweep.once()
    await world.until(lambda: world.service.metrics.effects["revoke", "unavailable"])
    world.hub.failure = None
    await world.until(lambda: world.hub.tokens_of("ann") == [])


async def test_a_token_made_at_the_moment_of_the_revocation_goes_too(world: World) -> None:
    await world.come(1)
    world.hub.add_tokens(token("t1"))
    world.org.team.remove(1)
    await world.sweep.once()
    await world.until(lambda: world.service.metrics.effects["revoke", "done"] == 1)
    world.hub.add_tokens(token("t2"))
    world.clock.advance(MINTED_LATE)
    await world.until(lambda: world.hub.tokens_of("ann") == [])


DEATHS: dict[str, Callable[[World], Awaitable[object]]] = {
    "by a sweep": lambda world: world.sweep.once(),
    "by a hint": lambda world: world.sweep.look_at(1),
}


@pytest.mark.parametrize("place", [BEFORE_COMMIT, AFTER_COMMIT, BEFORE_ANSWER, BEFORE_EFFECT])
@pytest.mark.parametrize("way", DEATHS)
async def test_a_death_in_the_middle_of_a_revocation_is_made_good(world: World, place: str, way: str) -> None:
    """3, 10, 13"""
    await world.come(1, 2)
    record = await world.ready()
    waits = [await world.reserve(record.owner) for _ in range(3)][-1]
    world.hub.add_tokens(token("t1"))
    await world.until(lambda: world.sweep.sweeps)
    await world.stop()
    armed, died = False, False

    def dies(at: str) -> None:
        nonlocal died
        if armed and at == place:
            died = True
            raise Died(at)

    await world.start(dies)
    await world.until(lambda: world.sweep.sweeps)
    world.org.team.remove(1)
    armed = True
    revoking = asyncio.ensure_future(DEATHS[way](world))
    await world.until(lambda: died)
    armed = False
    revoking.cancel()
    await asyncio.gather(revoking, return_exceptions=True)
    await world.restart()
    await world.sweep.once()
    await world.becomes(waits.id, "ended")
    assert world.person().access is Access.REVOKED
    await world.until(lambda: world.hub.tokens_of("ann") == [])
    world.clock.advance(GRACE)
    assert (await world.becomes(record.id, "ended")).outcome is Outcome.ACCESS_REVOKED
