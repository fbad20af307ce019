"""Which limits hold for a person in a pool: rules that operators set, over the policy file.

A person's rule comes before rules of their teams, and those before the default rule. Within a scope, a rule
for the pool comes before one for all pools. Of several teams, the most generous value of each limit holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from gpudev_hub.core.access_model import LimitRule
from gpudev_hub.core.live_state import LiveState
from gpudev_hub.core.policy import Allowances, Policy

Name = Literal[
    "running_gpus",
    "queued_requests",
    "hold_per_request",
    "hold_with_extensions",
    "gpu_hours",
    "gpu_hours_week",
    "gpu_hours_month",
]
NAMES: Final[tuple[Name, ...]] = get_args(Name)
"""The limits, in the order in which they are shown."""
DEFAULT: Final = "default"
"""The scope of everybody; also the origin of a limit that the policy file sets for everybody."""

Rules = Mapping[tuple[str, str | None], LimitRule]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a limit comes from."""

    scope: str
    """``default``, ``team:org/slug`` or ``person:SUBJECT``."""
    pool: str | None = None
    """The only pool that it is set for and counts; ``None``: all pools."""


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits of one person in one pool."""

    values: Allowances
    sources: Mapping[Name, Source]


def person_scope(subject: str) -> str:
    """Return the scope of one person."""
    return f"person:{subject}"


def team_scope(team: str) -> str:
    """Return the scope of a team, ``org/slug``."""
    return f"team:{team}"


def effective(policy: Policy, rules: Rules, teams: Iterable[str], subject: str, pool: str) -> Limits:
    """Return the limits of a person, who is in these teams, in a pool."""
    of_teams = [team_scope(team) for team in sorted(teams)]
    values: dict[str, int | None] = {}
    sources: dict[Name, Source] = {}
    for name in NAMES:
        value, source = (
            _said(rules, person_scope(subject), pool, name)
            or _in_the_file(policy, subject, name)
            or _most_generous(rules, of_teams, pool, name)
            or _said(rules, DEFAULT, pool, name)
            or (getattr(policy.allowances, name), Source(DEFAULT))
        )
        values[name] = value
        sources[name] = source
    return Limits(replace(policy.allowances, **values), sources)  # type: ignore[arg-type]


def limits_of(policy: Policy, state: LiveState, subject: str, pool: str) -> Limits:
    """Return the limits of a person in a pool, from the live records."""
    person = state.people.get(subject)
    return effective(policy, state.limits, () if person is None else person.teams, subject, pool)


def sharing_pools(policy: Policy, state: LiveState, subject: str, pool: str, name: Name) -> frozenset[str]:
    """Return the pools whose use counts together towards a limit of a pool.

    A limit for one pool counts that pool alone. A limit for all pools counts those without their own.
    """
    if limits_of(policy, state, subject, pool).sources[name].pool is not None:
        return frozenset({pool})
    return frozenset(
        other.name
        for other in policy.pools
        if limits_of(policy, state, subject, other.name).sources[name].pool is None
    )


def _said(rules: Rules, scope: str, pool: str, name: Name) -> tuple[int, Source] | None:
    """Return what the rules of one scope set, the rule for the pool first."""
    for where in (pool, None):
        rule = rules.get((scope, where))
        value: int | None = None if rule is None else getattr(rule, name)
        if value is not None:
            return value, Source(scope, where)
    return None


def _in_the_file(policy: Policy, subject: str, name: Name) -> tuple[int, Source] | None:
    """Return what the policy file sets for this person alone."""
    rule = policy.personal.get(subject)
    value: int | None = None if rule is None else getattr(rule, name)
    return None if value is None else (value, Source(person_scope(subject)))


def _most_generous(rules: Rules, scopes: Iterable[str], pool: str, name: Name) -> tuple[int, Source] | None:
    found = [said for scope in scopes if (said := _said(rules, scope, pool, name)) is not None]
    return max(found, key=lambda said: said[0], default=None)
