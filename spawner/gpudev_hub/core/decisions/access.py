"""Decisions on who may get in, and on reservations of people whose access changes."""

from __future__ import annotations

from dataclasses import replace

from gpudev_hub.core.access_model import Access, AccessSweep, Person
from gpudev_hub.core.causes import Cause
from gpudev_hub.core.effects import CutSessions, RevokeAccess, Tell
from gpudev_hub.core.errors import ASK_AN_OPERATOR, Code, Refused
from gpudev_hub.core.events import AccessLost, PersonSeen, Swept
from gpudev_hub.core.model import Outcome, Reservation, State
from gpudev_hub.core.words import moment, printable, sentence

from .limit_rules import look_for_raised
from .transitions import Turn, cancel
from .unit_of_work import SERVICE
from .working_state import WorkingState


def check_access(world: WorkingState, subject: str) -> None:
    """Raise ``Refused`` for a person whose access was revoked; people without a record may get in."""
    person = world.people.get(subject)
    if person is not None and person.access is Access.REVOKED:
        raise Refused(
            Code.ACCESS_REVOKED,
            sentence(f"access of {person.login} to this hub was revoked: {person.reason}"),
            ASK_AN_OPERATOR,
        )


def access_detail(world: WorkingState, subject: str) -> str:
    """Return the text that says why reservations of the person end."""
    person = world.people.get(subject)
    reason = "" if person is None else person.reason
    return f"access was revoked: {reason}" if reason else "access was revoked"


def person_seen(turn: Turn, event: PersonSeen) -> None:
    """Record what GitHub confirmed; a person whose access was revoked gets it back."""
    world = turn.world
    old = world.people.get(event.subject)
    back = old is None or old.access is Access.REVOKED
    if old is not None and back and event.confirmed_at < old.since:
        return  # the answer is older than the revocation
    person = Person(
        subject=event.subject,
        hub_user=_free_name(world, event) if old is None else old.hub_user,
        login=printable(event.login),
        teams=tuple(sorted(event.teams)),
        operator=event.operator,
        access=Access.ALLOWED,
        reason="",
        since=turn.now if old is None or back else old.since,
        confirmed_at=max(event.confirmed_at, 0 if old is None else old.confirmed_at),
    )
    world.put(person, Cause.ACCESS_GRANTED if back else Cause.PERSON_CHANGED)
    if old is not None and (back or old.login != person.login):
        world.to_settle.add(event.subject)
    if old is not None and old.teams != person.teams:
        look_for_raised(world)


def _free_name(world: WorkingState, event: PersonSeen) -> str:
    """Return the Hub name of a new person: the wanted one in lower case, with the id if it is taken."""
    taken = {person.hub_user for person in world.people.values()}
    wanted = event.hub_user_wanted.lower()
    if wanted not in taken:
        return wanted
    name = with_id = f"{wanted}-{event.subject.rpartition(':')[2]}"
    count = 1
    while name in taken:
        count += 1
        name = f"{with_id}-{count}"
    return name


def access_lost(turn: Turn, event: AccessLost) -> None:
    """Revoke a person's access: queued requests end at once, running servers after the grace."""
    world = turn.world
    old = world.people.get(event.subject)
    if old is None or old.access is Access.REVOKED:
        return
    if event.checked_at is not None and event.checked_at < old.confirmed_at:
        return  # confirmed since
    reason = printable(event.reason)
    revoked = replace(old, access=Access.REVOKED, reason=reason, since=turn.now, operator=False)
    turn.do(RevokeAccess(event.subject))
    turn.do(CutSessions(None, event.subject))
    world.put(revoked, Cause.ACCESS_REVOKED, event.actor)
    world.to_settle.add(event.subject)


def swept(turn: Turn, event: Swept) -> None:
    """Record that everybody was compared with GitHub; time does not go back."""
    at = max(event.at, turn.world.swept_at or 0)
    turn.world.put(AccessSweep(at), Cause.SWEPT)


def follows_access(reservation: Reservation, person: Person) -> bool:
    """Return whether a reservation agrees with its owner's access and login."""
    runs = reservation.state in (State.STARTING, State.READY)
    if person.access is Access.REVOKED:
        return reservation.access_ends_at is not None if runs else reservation.state is not State.QUEUED
    restored = not runs or reservation.access_ends_at is None
    return restored and reservation.owner.login == person.login


def settle_access(turn: Turn) -> None:
    """Adapt the reservations of people whose access changed."""
    world = turn.world
    for subject in sorted(world.to_settle):
        person = world.people[subject]
        for reservation in world.of_owner(subject):
            if follows_access(reservation, person):
                continue
            if person.access is Access.REVOKED:
                _revoke(turn, person, reservation)
            else:
                _restore(turn, person, reservation)
    world.to_settle.clear()


def _revoke(turn: Turn, person: Person, reservation: Reservation) -> None:
    world, detail = turn.world, access_detail(turn.world, person.subject)
    if reservation.state is State.QUEUED:
        cancel(turn, reservation, Outcome.ACCESS_REVOKED, Cause.ACCESS_REVOKED, SERVICE, detail)
        return
    # Counted from the revocation, so that a restart of the service does not prolong it.
    until = person.since + world.policy.revocation_grace
    world.put(replace(reservation, access_ends_at=until), Cause.ACCESS_REVOKED)
    told = (
        f"{detail}. This server stops at {moment(until, turn.now)} unless your access comes back before. "
        "Save your work now; your home is kept"
    )
    turn.do(Tell(reservation.id, told))


def _restore(turn: Turn, person: Person, reservation: Reservation) -> None:
    runs_on = reservation.access_ends_at is not None and reservation.state in (State.STARTING, State.READY)
    owner = replace(reservation.owner, login=person.login)
    until = None if runs_on else reservation.access_ends_at
    cause = Cause.ACCESS_GRANTED if runs_on else Cause.PERSON_CHANGED
    turn.world.put(replace(reservation, owner=owner, access_ends_at=until), cause)
    if runs_on:
        turn.do(Tell(reservation.id, "your access is back, and this server keeps running"))
