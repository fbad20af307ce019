"""The records of access and limits: who may get in, how much each may use, and what each has used.

Immutable, like the records of ``model.py``; instants and durations are integer milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .model import Millis


class Access(StrEnum):
    """Whether a person may get in."""

    ALLOWED = "allowed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Person:
    """A person as GitHub last described them."""

    subject: str
    """``github:ID``: always the same person, whatever their login is."""
    hub_user: str
    """The name in the Hub, given at the first login and never changed."""
    login: str
    """The GitHub login, which follows renames. Display only."""
    teams: tuple[str, ...]
    """Teams (``org/slug``) of the settings that the person is a member of, in order."""
    operator: bool
    access: Access
    reason: str
    """Why access was revoked; empty while it is allowed."""
    since: Millis
    """When ``access`` last changed."""
    confirmed_at: Millis
    """When GitHub last confirmed this person alone (at a login, or a single check)."""


@dataclass(frozen=True, slots=True)
class LimitRule:
    """Limits that an operator set; ``None`` leaves a limit to the next wider rule."""

    scope: str
    """``default``, ``team:org/slug`` or ``person:SUBJECT``."""
    pool: str | None
    """``None``: every pool."""
    set_by: str
    """Subject of the operator."""
    set_at: Millis
    reason: str = ""
    running_gpus: int | None = None
    queued_requests: int | None = None
    hold_per_request: Millis | None = None
    hold_with_extensions: Millis | None = None
    gpu_hours: int | None = None
    """GPU-hours of all live reservations together."""
    gpu_hours_week: int | None = None
    gpu_hours_month: int | None = None


@dataclass(frozen=True, slots=True)
class Spending:
    """What a person's ended reservations used in a pool, in one week and one month (UTC)."""

    subject: str
    pool: str
    week: Millis
    """Start of the ISO week."""
    week_gpu_ms: int
    month: Millis
    """Start of the calendar month."""
    month_gpu_ms: int


@dataclass(frozen=True, slots=True)
class AccessSweep:
    """The last sweep that compared everybody with GitHub. There is one such record."""

    swept_at: Millis
