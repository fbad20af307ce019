"""Limits, warnings and allowances that an operator sets in a JSON file, named by ``GPUDEV_POLICY``.

Every setting is optional and has a default. ``docs/operating.md`` has an example.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from .core.access_model import LimitRule
from .core.limits.rules import Name, person_scope
from .core.model import HOUR, SECOND
from .core.policy import Allowances, Policy, PoolSettings

_Positive = Annotated[float, msgspec.Meta(gt=0, le=24 * 366)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
_GpuHours = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class UserLimits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Limits on one user. ``None``: the limit for everyone applies."""

    hours_per_request: _Positive | None = None
    hours_with_extensions: _Positive | None = None
    running_gpus: _Count | None = None
    queued_requests: _Count | None = None
    gpu_hours: _GpuHours | None = None
    """GPU-hours of all live reservations together."""
    gpu_hours_week: _GpuHours | None = None
    """GPU-hours of hold time in one ISO week (UTC)."""
    gpu_hours_month: _GpuHours | None = None
    """GPU-hours of hold time in one calendar month (UTC)."""

    def on(self, base: Allowances) -> Allowances:
        """Return ``base`` with these limits in place of its own."""
        return replace(base, **limit_values(self))

    def for_one(self, subject: str) -> LimitRule:
        """Return these limits as a rule for one person."""
        rule = LimitRule(person_scope(subject), None, "policy file", 0)
        return replace(rule, **limit_values(self))  # type: ignore[arg-type]


def limit_values(limits: Any) -> dict[Name, int]:
    """Return the limits that are set, in the units of rules. ``limits`` has the fields of ``UserLimits``."""
    values: dict[Name, int | None] = {
        "hold_per_request": _rounded(limits.hours_per_request, HOUR),
        "hold_with_extensions": _rounded(limits.hours_with_extensions, HOUR),
        "running_gpus": limits.running_gpus,
        "queued_requests": limits.queued_requests,
        "gpu_hours": _rounded(limits.gpu_hours, 1),
        "gpu_hours_week": _rounded(limits.gpu_hours_week, 1),
        "gpu_hours_month": _rounded(limits.gpu_hours_month, 1),
    }
    return {name: value for name, value in values.items() if value is not None}


class PolicyFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The content of the policy file."""

    limits: UserLimits = msgspec.field(default_factory=UserLimits)
    users: dict[str, UserLimits] = {}
    """Limits for individual users, by subject (``local:alice``)."""
    contact: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """Whom users ask for help: a name, an address, a channel."""
    default_hours: _Positive | None = None
    warn_minutes: tuple[Annotated[int, msgspec.Meta(ge=1, le=1440)], ...] | None = None
    startup_seconds: _Seconds | None = None
    teardown_seconds: _Seconds | None = None
    restart_window_seconds: _Seconds | None = None
    node_grace_seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None

    def on(self, policy: Policy) -> Policy:
        """Return ``policy`` with these settings."""
        return replace(
            policy,
            pools=tuple(self._times_on(pool) for pool in policy.pools),
            default_hold=_rounded(self.default_hours, HOUR) or policy.default_hold,
            allowances=self.limits.on(policy.allowances),
            personal={subject: limits.for_one(subject) for subject, limits in self.users.items()},
            warn_minutes=tuple(sorted({*self.warn_minutes}, reverse=True))
            if self.warn_minutes is not None
            else policy.warn_minutes,
            node_grace=policy.node_grace
            if self.node_grace_seconds is None
            else round(self.node_grace_seconds * SECOND),
        )

    def _times_on(self, pool: PoolSettings) -> PoolSettings:
        return replace(
            pool,
            startup=_rounded(self.startup_seconds, SECOND) or pool.startup,
            teardown=_rounded(self.teardown_seconds, SECOND) or pool.teardown,
            restart_window=_rounded(self.restart_window_seconds, SECOND) or pool.restart_window,
        )


def read_policy(path: Path) -> PolicyFile:
    """Return the file's content. Raises ``OSError``, or ``ValueError`` if the content is not valid."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=PolicyFile)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error


def _rounded(value: float | None, unit: int) -> int | None:
    return None if value is None else round(value * unit)
