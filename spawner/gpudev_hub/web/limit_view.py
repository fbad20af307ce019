"""Convert limits, rules and values of the service for the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpudev import wire
from gpudev_hub.core.access_model import LimitRule
from gpudev_hub.core.limits.rules import DEFAULT, NAMES, Name
from gpudev_hub.core.model import HOUR
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.views.limits import Standing
from gpudev_hub.times import instant

WIRE_NAMES: dict[Name, wire.LimitName] = {
    "running_gpus": "running_gpus",
    "queued_requests": "queued_requests",
    "hold_per_request": "hours_per_request",
    "hold_with_extensions": "hours_with_extensions",
    "gpu_hours": "gpu_hours",
    "gpu_hours_week": "gpu_hours_week",
    "gpu_hours_month": "gpu_hours_month",
}
"""The names of limits in the API, which are those of the policy file."""


def limit(one: Standing) -> wire.Limit:
    """Return a limit for the API, with hours for durations and GPU-hours for GPU time."""
    unit = 1 if one.name in ("running_gpus", "queued_requests") else HOUR
    return wire.Limit(
        name=WIRE_NAMES[one.name],
        gpu_type=one.pool,
        limit=one.limit / unit,
        used=None if one.used is None else one.used / unit,
        reserved=one.reserved / unit,
        left=None if one.left is None else one.left / unit,
        source=one.scope,
        renews_at=instant(one.renews),
    )


def source(scope: str) -> str:
    """Return in words where a limit comes from."""
    kind, _, name = scope.partition(":")
    return {"person": "your own limit", "team": f"limit of {name}"}.get(kind, "default")


def values(of: LimitRule | Allowances) -> dict[wire.LimitName, float]:
    """Return the limits that have a value, in hours where they are durations."""
    found: dict[wire.LimitName, float] = {}
    for name in NAMES:
        value: int | None = getattr(of, name)
        if value is not None:
            found[WIRE_NAMES[name]] = value / HOUR if name.startswith("hold") else value
    return found


def rule(of: LimitRule, logins: Mapping[str, str]) -> wire.LimitRule:
    """Return a rule for the API. `logins`: by subject."""
    return wire.LimitRule(
        scope=of.scope,
        login=logins.get(of.scope.partition(":")[2]),
        gpu_type=of.pool,
        limits=values(of),
        set_by=logins.get(of.set_by, of.set_by),
        set_at=instant(of.set_at or None),
        reason=of.reason,
    )


def ordered(rules: Iterable[LimitRule]) -> list[LimitRule]:
    """Return rules in the order to show: the default, then teams, then people."""

    def order(rule: LimitRule) -> tuple[bool, bool, str, str]:
        return rule.scope != DEFAULT, rule.scope.startswith("person:"), rule.scope, rule.pool or ""

    return sorted(rules, key=order)
