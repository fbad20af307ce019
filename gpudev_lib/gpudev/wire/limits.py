"""Limits, and the user to whom they apply."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gpudev.wire.base import Reason, Request

LimitName = Literal[
    "running_gpus",
    "queued_requests",
    "hours_per_request",
    "hours_with_extensions",
    "gpu_hours",
    "gpu_hours_week",
    "gpu_hours_month",
]
"""``gpu_hours`` counts live reservations; the last two count hold time in one week or month (UTC)."""


class Limit(msgspec.Struct, kw_only=True):
    """A limit of a user. Amounts are GPUs, requests, hours or GPU-hours, as the name says."""

    name: LimitName
    gpu_type: str | None
    """The GPU type that it is for; null: all types together, except those with a limit of their own."""
    limit: float
    used: float | None
    """Held or waiting now, or held in the week or month; null for limits on one reservation."""
    reserved: float
    """What live reservations may still use, in addition to ``used``."""
    left: float | None
    source: str
    """Where it comes from: ``default``, ``team:ORG/TEAM`` or ``person:SUBJECT``."""
    renews_at: str | None = None
    """When the week or month ends."""


class Limits(msgspec.Struct, kw_only=True):
    """``GET me/limits``: every limit of the caller."""

    limits: list[Limit]


_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_Hours = Annotated[float, msgspec.Meta(gt=0, le=8784)]


class LimitValues(Request):
    """Values of limits; those that are left out stay as they are."""

    running_gpus: _Count | None = None
    queued_requests: _Count | None = None
    hours_per_request: _Hours | None = None
    hours_with_extensions: _Hours | None = None
    gpu_hours: _Count | None = None
    gpu_hours_week: _Count | None = None
    gpu_hours_month: _Count | None = None


class SetLimitsRequest(Request):
    """``PUT limits`` (operators)."""

    scope: Annotated[str, msgspec.Meta(max_length=300)]
    """``default``, ``team:ORG/TEAM`` or ``person:LOGIN``, also ``person:SUBJECT``."""
    limits: LimitValues
    gpu_type: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """The GPU type that the limits are for. Default: all types."""
    reason: Reason | None = None
    """Why they are set. It is recorded in the history."""


class LimitRule(msgspec.Struct, kw_only=True):
    """Limits of one scope that are set."""

    scope: str
    login: str | None
    """The login of the person, if the scope is a person who is known."""
    gpu_type: str | None
    limits: dict[LimitName, float]
    set_by: str
    """Login of the operator, or the subject if the login is not known, or ``policy file``."""
    set_at: str | None
    reason: str


class LimitRules(msgspec.Struct, kw_only=True):
    """``GET limits`` (operators)."""

    rules: list[LimitRule]
    """Rules of operators, then limits of users in the policy file."""
    base: dict[LimitName, float]
    """Limits of everybody where no rule says otherwise: from the policy file, or built in."""


class LimitsChanged(msgspec.Struct, kw_only=True):
    """Answer to ``PUT limits`` and ``DELETE limits``."""

    rule: LimitRule | None
    """The rule as it is now; null if nothing is left of it."""
    warnings: list[str]
    """Who uses more than the new limits. Nothing that runs ends."""


class Me(msgspec.Struct, kw_only=True):
    """``GET me``: the user of the token or cookie, and their limits."""

    user: str
    subject: str
    operator: bool
    max_hours: float
    max_hours_extended: float
    max_running_gpus: int
    max_queued: int
    running_gpus: int
    queued: int
    gpu_types: list[str]
    gpu_hours: float = 0.0
    """GPU-hours (GPUs × hours) of all live reservations of the user."""
    max_gpu_hours: float | None = None
    """Limit of GPU-hours; null means no limit."""
    limits: list[Limit] = []
    """Every limit, with what is used and left."""
