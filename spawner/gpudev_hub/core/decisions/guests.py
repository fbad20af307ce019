"""Decisions on sharing: who may use a server as well as its owner."""

from __future__ import annotations

from dataclasses import replace

from gpudev_hub.core.access_model import Access
from gpudev_hub.core.causes import Cause, Reason
from gpudev_hub.core.effects import CutSessions, Tell
from gpudev_hub.core.errors import ASK_AN_OPERATOR, Code, Refused
from gpudev_hub.core.events import Share, Unshare
from gpudev_hub.core.model import Guest, Reservation
from gpudev_hub.core.permissions import Action, check_state
from gpudev_hub.core.words import sentence

from .access import check_access
from .requests import find
from .transitions import Turn

MOST_GUESTS = 10
"""Most guests of one reservation."""
MOST_CHANGES = 2_000
"""Changes of one reservation after which no guest is added: all are stored while it lives."""


def share(turn: Turn, event: Share) -> Reservation:
    """Add a guest; sharing again with the same person changes nothing.

    Raises ``Refused`` for the owner, a person without access, one guest or change too many, and once the
    reservation is being stopped.
    """
    reservation, guest = find(turn, event.id), event.guest
    name = reservation.request.name or reservation.id
    check_state(reservation, Action.SHARE)
    check_access(turn.world, event.actor)
    person = turn.world.people.get(guest.subject)
    if person is not None and person.access is Access.REVOKED:
        raise Refused(
            Code.FORBIDDEN, sentence(f"{guest.login} may not use this hub: {person.reason}"), ASK_AN_OPERATOR
        )
    if guest.subject == reservation.owner.subject:
        raise Refused(
            Code.INVALID_REQUEST,
            f"{guest.login} is the owner of reservation {name}; it can be shared only with other users.",
            "Give the login of another user.",
        )
    if reservation.guest(guest.subject) is not None:
        return reservation
    if reservation.version >= MOST_CHANGES:
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"Reservation {name} has changed {reservation.version} times; after {MOST_CHANGES} changes "
            "it cannot be shared with more users.",
            "Release it, and make a new reservation.",
        )
    if len(reservation.guests) >= MOST_GUESTS:
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"Reservation {name} is shared with {len(reservation.guests)} users; the limit is {MOST_GUESTS}.",
            f"Remove one of them first: `gpu-dev unshare {name} LOGIN`.",
        )
    added = Guest(guest.subject, guest.hub_user, guest.login, turn.now)
    shared = replace(reservation, guests=(*reservation.guests, added))
    turn.world.put(shared, Reason(Cause.SHARED, f"with {guest.login}"), event.actor)
    return shared


def unshare(turn: Turn, event: Unshare) -> Reservation:
    """Remove a guest and end their connections; nothing changes for a person who is not a guest."""
    reservation = find(turn, event.id)
    check_state(reservation, Action.UNSHARE)
    removed = reservation.guest(event.subject)
    if removed is None:
        return reservation
    rest = tuple(guest for guest in reservation.guests if guest is not removed)
    kept = replace(reservation, guests=rest)
    turn.world.put(kept, Reason(Cause.UNSHARED, removed.login), event.actor)
    turn.do(CutSessions(reservation.id, removed.subject))
    if event.actor != reservation.owner.subject:
        turn.do(Tell(reservation.id, f"An operator ended the access of {removed.login} to this server."))
    return kept
