"""Effects, which are performed once a decision is durable, and the result of a decision.

Effects are idempotent, and retried with back-off.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import Reservation
from .sentences import Text


@dataclass(frozen=True, slots=True)
class StartServer:
    """Ask the Hub to start the server of this attempt."""

    id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StopServer:
    """Ask the Hub to stop (and forget) the server; it is removed without the Hub if that takes too long."""

    id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Warn:
    """Warn the owner that the end is near."""

    id: str
    minutes: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the owner something else (a place moved, the hold was shortened)."""

    id: str
    message: Text


@dataclass(frozen=True, slots=True)
class RevokeAccess:
    """Delete the Hub tokens of a person, except those of servers that still run."""

    subject: str


@dataclass(frozen=True, slots=True)
class CutSessions:
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
