"""Decisions on who may get in: revocation and its grace, access that comes back, restarts in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from coreworld import HOUR, MINUTE, NOON, Driver, nodes, policy
from gpudev_hub.core.access_model import Access, Person
from gpudev_hub.core.commit import Changes
from gpudev_hub.core.decisions.decide import decide, next_due
from gpudev_hub.core.decisions.recovery import rebuild
from gpudev_hub.core.effects import CutSessions, RevokeAccess, StopServer, Tell
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import (
    AccessLost,
    Extend,
    Mint,
    OwnerKnown,
    PersonSeen,
    Resume,
    ServerObserved,
    StopIntent,
    Submit,
    Swept,
    Tick,
)
from gpudev_hub.core.model import Outcome, Owner, Presence, Request, Reservation, Shape, State
from gpudev_hub.core.views.reasons import Outlook
from gpudev_hub.core.words import plain

ANN, BOB = "github:1", "github:2"
GRACE = 30 * MINUTE


def seen(subject: str = ANN, login: str = "Ann", **fields: object) -> PersonSeen:
    values = {"hub_user_wanted": login, "teams": (), "operator": False, "confirmed_at": NOON}
    return PersonSeen(subject=subject, login=login, **{**values, **fields})  # type: ignore[arg-type]


def lost(subject: str = ANN, checked_at: int | None = None) -> AccessLost:
    return AccessLost(subject, "left the team", "service", checked_at)


class Team(Driver):
    """Ann and Bob, known by their GitHub ids; 16 GPUs."""

    def __init__(self, **fields: object) -> None:
        super().__init__(policy(**fields), nodes(2))
        self.do(seen())
        self.do(seen(BOB, "bob"))

    def ask(self, subject: str, gpus: int = 8, hours: float = 2) -> Reservation:
        self._count += 1
        person = self.world.people[subject]
        request = Request(Shape(gpus), "h100", round(hours * HOUR), "base")
        owner = Owner(subject, person.hub_user, person.login)
        reservation = self.do(Submit(f"r{self._count}", owner, request)).reservation
        assert reservation is not None
        return reservation

    def person(self, subject: str = ANN) -> Person:
        return self.world.people[subject]

    def told(self, id: str) -> list[str]:
        return [plain(e.message, self.now) for e in self.effects if isinstance(e, Tell) and e.id == id]


@pytest.fixture
def d() -> Team:
    return Team()


def test_a_revocation_empties_the_queue_and_leaves_servers_the_grace(d: Team) -> None:
    """5, 13"""
    d.ask(ANN)
    d.ready("r1")
    d.ask(ANN)
    d.ask(ANN)
    d.ask(BOB)
    assert d.get("r4").state is State.QUEUED
    d.do(lost())
    assert d.person().access is Access.REVOKED
    assert d.person().reason == "left the team"
    waited = d.ended("r3")
    assert (waited.outcome, waited.detail) == (Outcome.ACCESS_REVOKED, "access was revoked: left the team")
    for ref in ("r1", "r2"):
        assert d.get(ref).access_ends_at == NOON + GRACE
        assert "This server stops at" in d.told(ref)[0]
        assert d.causes(ref)[-1] == "access_revoked"
    assert [e for e in d.effects if isinstance(e, RevokeAccess | CutSessions)] == [
        RevokeAccess(ANN),
        CutSessions(None, ANN),
    ]
    d.go(NOON + GRACE - 1)
    assert d.get("r1").state is State.READY
    d.go(NOON + GRACE)
    assert (d.get("r1").state, d.get("r1").stop_outcome) == (State.STOPPING, Outcome.ACCESS_REVOKED)
    assert ("r1", 1) in d.took(StopServer)
    d.see("r1")
    assert d.ended("r1").outcome is Outcome.ACCESS_REVOKED
    assert d.ended("r1").detail == "access was revoked: left the team"
    assert d.get("r4").state is State.STARTING


def test_what_the_owner_reads_while_the_grace_lasts(d: Team) -> None:
    d.ask(ANN)
    d.ready("r1")
    d.do(lost())
    outlook = Outlook(d.policy, d.world)
    assert plain(outlook.explain(d.get("r1"), d.now) or "", d.now).startswith(
        "the owner lost access: the server stops at"
    )


@pytest.mark.parametrize(
    "event",
    [
        lambda: Extend("r1", ANN, HOUR),
        lambda: Extend("r1", "github:9", HOUR),
        lambda: Resume("r1", ANN),
        lambda: Mint("m1", ANN),
        lambda: Submit("r9", Owner(ANN, "ann", "Ann"), Request(Shape(1), "h100", HOUR, "base")),
    ],
)
def test_whoever_lost_access_gets_nothing_more(d: Team, event: Callable[[], Extend]) -> None:
    """13: also not by an operator, and not by repeating a request."""
    d.ask(ANN)
    d.ready("r1")
    d.do(lost())
    before = len(d.folded.history)
    with pytest.raises(Refused, match="Access of Ann to this hub was revoked: left the team") as refused:
        d.do(event())
    assert refused.value.code is Code.ACCESS_REVOKED
    assert len(d.folded.history) == before
    assert d.ask(BOB).state is State.STARTING


def test_access_that_is_back_in_time_lets_servers_live(d: Team) -> None:
    d.ask(ANN)
    d.ready("r1")
    d.do(lost())
    d.go(NOON + GRACE - 1)
    d.do(seen(confirmed_at=d.now))
    assert d.person() == replace(d.person(), access=Access.ALLOWED, reason="", since=d.now)
    assert d.get("r1").access_ends_at is None
    assert d.told("r1")[-1] == "your access is back, and this server keeps running"
    d.go(NOON + HOUR)
    assert d.get("r1").state is State.READY
    d.do(Extend("r1", ANN, HOUR))
    assert d.get("r1").extended == HOUR
    causes = [c.cause for _, _, c in d.folded.history if isinstance(c.record, Person)]
    assert causes == ["access_granted", "access_granted", "access_revoked", "access_granted"]


def test_a_restart_does_not_prolong_the_grace(d: Team) -> None:
    d.ask(ANN)
    d.ready("r1")
    d.do(lost())
    d.now += 20 * MINUTE
    d.restart()
    assert next_due(d.world, d.now) == NOON + GRACE
    d.go(NOON + GRACE)
    assert d.get("r1").stop_outcome is Outcome.ACCESS_REVOKED


def test_a_revocation_that_is_half_durable_is_finished_after_a_restart() -> None:
    """3, 13: earlier versions could end between the commits of person and reservations."""
    d = Team()
    d.ask(ANN)
    d.ready("r1")
    d.ask(ANN)
    d.ask(ANN)
    folded = d.folded.copy()
    d.do(lost())
    whole = d.world
    person = next(change for change in d.changes.records if isinstance(change.record, Person))
    folded.commit(Changes((person,)), d.now)
    world = rebuild(d.policy, folded.snapshot, d.now + MINUTE)
    decide(world, Tick(), d.now + MINUTE)
    assert world.people[ANN].access is Access.REVOKED
    assert {r.id: r.access_ends_at for r in world.reservations.values()} == {
        r.id: r.access_ends_at for r in whole.reservations.values()
    }
    decide(world, Tick(), d.now + MINUTE)
    world.drain()
    decide(world, Tick(), d.now + MINUTE)
    assert world.drain() == Changes(), "10: a second pass writes nothing"


def test_a_start_that_fails_within_the_grace_is_not_queued_again(d: Team) -> None:
    d.ask(ANN)
    d.do(lost())
    assert d.get("r1").state is State.STARTING
    d.go(NOON + 5 * MINUTE)
    assert (d.get("r1").state, d.get("r1").stop_outcome) == (State.STOPPING, Outcome.ACCESS_REVOKED)


def test_an_owner_unknown_to_the_hub_within_the_grace_ends_as_revoked(d: Team) -> None:
    d.ask(ANN)
    d.do(lost())
    d.do(OwnerKnown(ANN, known=False))
    assert d.get("r1").stop_outcome is Outcome.ACCESS_REVOKED


def test_a_server_that_crashes_restarts_until_the_grace_is_over(d: Team) -> None:
    d.ask(ANN)
    d.ready("r1")
    d.do(lost())
    d.see("r1", Presence.ABSENT, "OOM")
    d.ready("r1")
    assert d.get("r1").access_ends_at == NOON + GRACE
    d.go(NOON + GRACE)
    assert d.get("r1").stop_outcome is Outcome.ACCESS_REVOKED


def test_a_stopped_server_ends_with_the_grace_at_the_latest(d: Team) -> None:
    d.ask(ANN)
    d.ready("r1")
    d.do(lost())
    d.go(NOON + 25 * MINUTE)
    d.do(StopIntent("r1"))
    d.go(NOON + GRACE)
    assert d.get("r1").stop_outcome is Outcome.ACCESS_REVOKED


def test_a_hold_that_ends_first_expires(d: Team) -> None:
    d.ask(ANN, hours=0.25)
    d.ready("r1")
    d.do(lost())
    d.go(NOON + 15 * MINUTE)
    assert d.get("r1").stop_outcome is Outcome.EXPIRED


def test_without_a_grace_servers_stop_at_once() -> None:
    d = Team(revocation_grace=0)
    d.ask(ANN)
    d.ready("r1")
    d.do(lost())
    assert d.get("r1").stop_outcome is Outcome.ACCESS_REVOKED


def test_an_older_answer_of_github_changes_nothing(d: Team) -> None:
    d.now += MINUTE
    d.do(lost(checked_at=NOON - 1))
    assert d.person().access is Access.ALLOWED, "confirmed after that check"
    d.do(lost(checked_at=d.now))
    d.do(seen(confirmed_at=d.now - 1))
    assert d.person().access is Access.REVOKED, "asked before the revocation"
    before = len(d.folded.history)
    d.do(lost())
    d.do(lost("github:77"))
    assert len(d.folded.history) == before, "revoked once; nobody unknown is revoked"


def test_the_hub_name_is_given_once_and_the_login_follows(d: Team) -> None:
    d.ask(ANN)
    d.do(seen(login="ann-new", hub_user_wanted="ann-new", teams=("o/b", "o/a"), operator=True))
    person = d.person()
    assert (person.hub_user, person.login) == ("ann", "ann-new")
    assert (person.teams, person.operator) == (("o/a", "o/b"), True)
    assert d.get("r1").owner == Owner(ANN, "ann", "ann-new")
    assert d.causes("r1")[-1] == "person_changed"
    before = len(d.folded.history)
    d.do(seen(login="ann-new", teams=("o/a", "o/b"), operator=True))
    assert len(d.folded.history) == before, "nothing new"


def test_a_login_registered_again_is_another_person(d: Team) -> None:
    """The id counts: the second Ann gets a name of her own, also where that one is taken."""
    d.do(seen("github:4", "x", hub_user_wanted="ann-3"))
    d.do(seen("github:3", "ann"))
    assert d.person("github:3").hub_user == "ann-3-2"
    d.do(seen("github:5", "ANN"))
    assert d.person("github:5").hub_user == "ann-5"
    assert d.person().hub_user == "ann"


def test_the_time_of_a_sweep_is_kept_and_does_not_go_back(d: Team) -> None:
    d.do(Swept(NOON + 5))
    d.do(Swept(NOON + 3))
    d.restart()
    assert d.world.swept_at == NOON + 5


def test_a_revoked_persons_server_is_observed_as_any_other(d: Team) -> None:
    """8: unknown frees nothing."""
    d.ask(ANN)
    d.ready("r1")
    d.do(lost())
    d.go(NOON + GRACE)
    d.do(ServerObserved("r1", 1, Presence.UNKNOWN))
    assert d.get("r1").state is State.STOPPING
    assert ("r1", 1) in d.world.claims
