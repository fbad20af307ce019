"""Who may do what to a reservation: one table for every part that needs it.

Each request comes from an actor in one or more roles. ``MAY`` says what each role may do, ``WHEN`` in which
states an action makes sense. Everything that is not in the tables is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from .errors import SEE_YOURS, Code, Refused
from .model import Reservation, State


class Role(StrEnum):
    """The relation of an actor to a reservation."""

    OWNER = "owner"
    GUEST = "guest"
    """A person with whom the owner shares the server."""
    OPERATOR = "operator"
    """An operator. An operator who is also owner or guest has both roles."""
    SERVER = "server"
    """The server of the reservation, with its own token."""
    OTHER = "other"
    """Anybody else who may use the service."""
    REVOKED = "revoked"
    """A person who may no longer use the service, whatever other role they have."""


class Action(StrEnum):
    """What can be done to a reservation."""

    SEE = "see"
    """Read the reservation. Its ways in are shown to those who may enter."""
    ENTER = "enter"
    """Use its server: SSH and JupyterLab."""
    READ_LOGS = "read_logs"
    """Read its history and the logs of its server."""
    EXTEND = "extend"
    END = "end"
    """Cancel or release it."""
    RESUME = "resume"
    """Start its server again."""
    SHARE = "share"
    UNSHARE = "unshare"


_SEE_AND_ENTER = frozenset({Action.SEE, Action.ENTER})

MAY: Final[Mapping[Role, frozenset[Action]]] = {
    Role.OWNER: frozenset(Action),
    Role.GUEST: _SEE_AND_ENTER,
    Role.OPERATOR: frozenset(
        {Action.SEE, Action.READ_LOGS, Action.EXTEND, Action.END, Action.RESUME, Action.UNSHARE}
    ),
    Role.SERVER: frozenset({Action.SEE, Action.EXTEND, Action.END}),
    Role.OTHER: frozenset({Action.SEE}),
    Role.REVOKED: frozenset(),
}
"""What each role may do. An operator removes guests but adds none: that would open the owner's home."""

_ALWAYS = frozenset(State)
_RUNS = frozenset({State.STARTING, State.READY})

WHEN: Final[Mapping[Action, frozenset[State]]] = {
    Action.SEE: _ALWAYS,
    Action.ENTER: _RUNS,
    Action.READ_LOGS: _ALWAYS,
    Action.EXTEND: _RUNS,
    # Ending what has ended changes nothing, so that a repeated request gets the same answer.
    Action.END: _ALWAYS,
    Action.RESUME: _RUNS,
    Action.SHARE: _RUNS | {State.QUEUED},
    Action.UNSHARE: _ALWAYS - {State.ENDED},
}
"""In which states of the reservation each action makes sense."""


def roles(reservation: Reservation, subject: str, *, operator: bool, allowed: bool = True) -> frozenset[Role]:
    """Return every role that a person has; ``allowed``: whether they may use the service at all."""
    if not allowed:
        return frozenset({Role.REVOKED})
    found = {Role.OTHER}
    if subject == reservation.owner.subject:
        found.add(Role.OWNER)
    if reservation.guest(subject) is not None:
        found.add(Role.GUEST)
    if operator:
        found.add(Role.OPERATOR)
    return frozenset(found)


def may(held: frozenset[Role], action: Action) -> bool:
    """Return whether an actor with these roles may do this, if the state allows it."""
    return any(action in MAY[role] for role in held)


def check_role(reservation: Reservation, held: frozenset[Role], action: Action) -> None:
    """Raise ``Refused`` (``forbidden``) if an actor with these roles may not do this."""
    if may(held, action):
        return
    name, owner = reservation.request.name or reservation.id, reservation.owner.login
    if Role.GUEST in held:
        raise Refused(
            Code.FORBIDDEN,
            f"{owner} shares reservation {name} with you: guests can use its server, but cannot do this.",
            f"Ask {owner} to do it.",
        )
    who = "its owner" if Role.OPERATOR in held else "its owner and operators"
    raise Refused(
        Code.FORBIDDEN,
        f"Reservation {reservation.id} belongs to {owner}.",
        f"Only {who} can do this. {SEE_YOURS}",
    )


def check_state(reservation: Reservation, action: Action) -> None:
    """Raise ``Refused`` (``wrong_state``) if this cannot be done in the state of the reservation."""
    if reservation.state not in WHEN[action]:
        name = reservation.request.name or reservation.id
        state = "has ended" if reservation.state is State.ENDED else f"is {reservation.state}"
        raise Refused(
            Code.WRONG_STATE,
            f"Reservation {name} {state}, so its guests cannot be changed.",
            "Guests lose access when the reservation ends.",
        )
