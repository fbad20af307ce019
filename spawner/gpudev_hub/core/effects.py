"""Effects, which are performed once a decision is durable, and the result of a decision.

Effects are idempotent, and retried with back-off.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from .model import Reservation
from .sentences import Text


class StartServer(msgspec.Struct, frozen=True):
    """Ask the Hub to start the server of this attempt."""

    id: str
    attempt: int


class StopServer(msgspec.Struct, frozen=True):
    """Ask the Hub to stop (and forget) the server; it is removed without the Hub if that takes too long."""

    id: str
    attempt: int


class Warn(msgspec.Struct, frozen=True):
    """Warn the owner that the end is near."""

    id: str
    minutes: int


class Tell(msgspec.Struct, frozen=True):
    """Tell the owner something else (a place moved, the hold was shortened)."""

    id: str
    message: Text


class RevokeAccess(msgspec.Struct, frozen=True):
    """Delete the Hub tokens of a person, except those of servers that still run."""

    subject: str


class CutSessions(msgspec.Struct, frozen=True):
    """End the live connections of a person to one server, or to all servers."""

    id: str | None
    subject: str


Effect = StartServer | StopServer | Warn | Tell | RevokeAccess | CutSessions


@dataclass(slots=True)
class Decision:
    """The result of one event."""

    reservation: Reservation | None
    """The event's reservation, as it is after the event and what that made possible."""
    effects: list[Effect]
    """Effects to perform once the changes are durable."""
