"""Who may use a server beside its owner, and what decides it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from coreworld import Driver, nodes, owner, policy
from gpudev_hub.core.decisions.guests import MOST_CHANGES, MOST_GUESTS
from gpudev_hub.core.effects import CutSessions, Tell
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import End, Share, Unshare
from gpudev_hub.core.model import Guest, Owner, Reservation, State
from gpudev_hub.core.permissions import MAY, WHEN, Action, Role, check_role, may, roles
from gpudev_hub.core.views.ssh_aliases import aliases

ALICE, BOB, CAROL = owner("alice"), owner("bob"), owner("carol")


def driver() -> Driver:
    return Driver(policy(), nodes())


def refused(driver: Driver, event: Share | Unshare) -> Refused:
    before = dict(driver.world.reservations)
    with pytest.raises(Refused) as caught:
        driver.do(event)
    assert driver.world.reservations == before
    return caught.value


def test_a_guest_is_added_and_removed() -> None:
    world = driver()
    one = world.submit("alice")
    shared = world.do(Share(one.id, ALICE.subject, BOB)).reservation
    assert shared is not None
    assert shared.guests == (Guest(BOB.subject, "bob", "bob", world.now),)
    assert world.folded.snapshot.reservations[one.id].guests == shared.guests, "durable"
    world.effects.clear()
    kept = world.do(Unshare(one.id, ALICE.subject, BOB.subject)).reservation
    assert kept is not None
    assert kept.guests == ()
    assert world.effects == [CutSessions(one.id, BOB.subject)]
    causes = [(change.cause, change.detail, change.actor) for _, _, change in world.folded.history]
    assert ("shared", "with bob", ALICE.subject) in causes
    assert ("unshared", "bob", ALICE.subject) in causes


def test_the_same_asked_twice_changes_nothing() -> None:
    """A client that got no answer asks again."""
    world = driver()
    one = world.submit("alice")
    shared = world.do(Share(one.id, ALICE.subject, BOB)).reservation
    commits = len(world.folded.history)
    world.effects.clear()
    assert world.do(Share(one.id, ALICE.subject, BOB)).reservation == shared
    assert world.do(Unshare(one.id, ALICE.subject, CAROL.subject)).reservation == shared
    assert (len(world.folded.history), world.effects) == (commits, [])


def test_the_owner_reads_that_an_operator_removed_a_guest() -> None:
    world = driver()
    one = world.submit("alice")
    world.do(Share(one.id, ALICE.subject, BOB))
    world.effects.clear()
    world.do(Unshare(one.id, "local:olga", BOB.subject))
    assert Tell(one.id, "An operator ended the access of bob to this server.") in world.effects


def test_every_refusal_says_why() -> None:
    world = driver()
    one = world.submit("alice")
    assert refused(world, Share("none", ALICE.subject, BOB)).code is Code.NOT_FOUND
    own = refused(world, Share(one.id, ALICE.subject, ALICE))
    assert (own.code, "alice is the owner" in own.message) == (Code.INVALID_REQUEST, True)
    world.do(Share(one.id, ALICE.subject, BOB))
    for number in range(MOST_GUESTS - 1):
        world.do(Share(one.id, ALICE.subject, owner(f"guest-{number}")))
    full = refused(world, Share(one.id, ALICE.subject, CAROL))
    assert full.code is Code.QUOTA_EXCEEDED
    assert f"shared with {MOST_GUESTS} users; the limit is {MOST_GUESTS}" in full.message
    world.ready(one.id)
    world.do(End(one.id, ALICE.subject))
    assert world.world.reservations[one.id].state is State.STOPPING
    assert refused(world, Share(one.id, ALICE.subject, CAROL)).code is Code.WRONG_STATE
    world.do(Unshare(one.id, ALICE.subject, BOB.subject))


def test_a_reservation_that_has_changed_too_often_is_shared_no_more() -> None:
    """All changes are stored while it lives, and nobody limits how often people share and unshare."""
    world = driver()
    one = world.submit("alice")
    while world.get(one.id).version < MOST_CHANGES:
        world.do(Share(one.id, ALICE.subject, BOB))
        world.do(Unshare(one.id, ALICE.subject, BOB.subject))
    full = refused(world, Share(one.id, ALICE.subject, BOB))
    assert full.code is Code.QUOTA_EXCEEDED
    assert f"after {MOST_CHANGES} changes" in full.message


def test_the_table_is_complete_and_grants_no_more_than_it_says() -> None:
    """Spelled out once more, so that a change of the table is a decision."""
    assert set(MAY) == set(Role)
    assert set(WHEN) == set(Action)
    assert MAY[Role.GUEST] == {Action.SEE, Action.ENTER}
    assert MAY[Role.OTHER] == {Action.SEE}
    assert not MAY[Role.REVOKED]
    assert not MAY[Role.OPERATOR] & {Action.ENTER, Action.SHARE}
    assert not MAY[Role.SERVER] & {Action.ENTER, Action.SHARE, Action.UNSHARE, Action.RESUME}


@pytest.mark.parametrize(
    ("subject", "operator", "allowed"),
    [*itertools.product(("alice", "bob", "carol"), (False, True), (False, True))],
)
def test_roles(subject: str, operator: bool, allowed: bool) -> None:
    world = driver()
    one = world.submit("alice")
    shared = world.do(Share(one.id, ALICE.subject, BOB)).reservation
    assert shared is not None
    held = roles(shared, f"local:{subject}", operator=operator, allowed=allowed)
    expected = {Role.OTHER} | ({Role.OPERATOR} if operator else set())
    expected |= {"alice": {Role.OWNER}, "bob": {Role.GUEST}}.get(subject, set())
    assert held == (expected if allowed else {Role.REVOKED})
    for action in Action:
        if may(held, action):
            check_role(shared, held, action)
        else:
            with pytest.raises(Refused):
                check_role(shared, held, action)


# Names over SSH.


def record(id: str, seq: int, of: Owner, name: str | None, count: int = 1) -> Reservation:
    made = driver().submit("alice")
    request = replace(made.request, shape=replace(made.request.shape, nodes=count), name=name)
    return replace(made, id=id, seq=seq, owner=of, request=request)


def test_a_shared_server_never_takes_a_name_of_ones_own() -> None:
    own = record("id-own", 5, BOB, "run")
    shared = [
        record("id-one", 1, ALICE, "run"),
        record("id-two", 2, CAROL, "other"),
        record("id-three", 3, ALICE, "other"),
        record("id-four", 4, replace(ALICE, login="Al Ice"), "run"),
    ]
    assert aliases([own], shared) == {
        "id-own": ["gpu-run"],
        "id-one": ["gpu-alice-run"],
        "id-two": ["gpu-other"],
        "id-three": ["gpu-alice-other"],
        "id-four": ["gpu-id-four"],
    }


def test_every_node_of_a_shared_pair_has_the_same_stem() -> None:
    own = record("id-own", 5, BOB, "run-1")
    pair = record("id-pair", 1, replace(ALICE, login="Alice"), "run", 2)
    assert aliases([own], [pair])["id-pair"] == ["gpu-alice-run", "gpu-alice-run-1"]
