"""A person's limits: what each is, what counts towards it and what is left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpudev_hub.core.limits import quota
from gpudev_hub.core.limits.rules import NAMES, Limits, Name, limits_of, sharing_pools
from gpudev_hub.core.live_state import LiveState
from gpudev_hub.core.model import HOUR, Millis, Reservation, State
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.words import counted, duration, gpus


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit of a person, with its use.

    Amounts are GPUs, requests, milliseconds or GPU-milliseconds, depending on the limit.
    """

    name: Name
    pool: str | None
    """The pool of the limit; ``None``: all pools, or those without a limit of their own."""
    limit: int
    used: int | None
    """Held or queued now, or held in the period; ``None``: the limit is for each single request."""
    reserved: int
    """What live reservations may use in addition."""
    scope: str
    """Where the limit comes from: ``default``, ``team:org/slug`` or ``person:SUBJECT``."""
    renews: Millis | None = None

    @property
    def total(self) -> int:
        """All that counts towards the limit."""
        return (self.used or 0) + self.reserved

    @property
    def title(self) -> str:
        """The title for people: ``GPUs at once (h100)``."""
        return TITLES[self.name] + (f" ({self.pool})" if self.pool else "")

    @property
    def value(self) -> str:
        """The use and the limit as text: ``4 of 16``, ``24 h``."""
        limit = _amount(self.name, self.limit)
        if self.used is None:
            return limit
        return f"{_amount(self.name, self.total)} of {limit}".replace(" GPU-hours", "")

    @property
    def rest(self) -> str:
        """What is left, as text: ``12 left``; empty for limits on each single request."""
        left = self.left
        return "" if left is None else f"{_amount(self.name, left)} left".replace(" GPU-hours", "")

    @property
    def left(self) -> int | None:
        """What is left: 0 when the limit is below what is used."""
        return None if self.used is None else max(0, self.limit - self.total)


def standings(policy: Policy, state: LiveState, subject: str, now: Millis) -> list[Standing]:
    """Return a person's use of every limit, in the order of ``NAMES``."""
    live = [r for r in state.reservations.values() if r.owner.subject == subject]
    by_pool = {pool.name: limits_of(policy, state, subject, pool.name) for pool in policy.pools}
    found: list[Standing] = []
    for name in NAMES:
        for pool, limits in by_pool.items():
            one = _standing(policy, state, subject, live, pool, limits, name, now)
            if one is not None and one not in found:
                found.append(one)
    return found


def _standing(
    policy: Policy,
    state: LiveState,
    subject: str,
    live: list[Reservation],
    pool: str,
    limits: Limits,
    name: Name,
    now: Millis,
) -> Standing | None:
    limit: int | None = getattr(limits.values, name)
    if limit is None:
        return None
    source = limits.sources[name]
    match name:
        case "running_gpus":
            held = sum(claim.gpus for claim in quota.counted_claims(state, subject, pool))
            return Standing(name, pool, limit, held, 0, source.scope)
        case "queued_requests":
            pools = sharing_pools(policy, state, subject, pool, name)
            queued = sum(r.state is State.QUEUED and r.request.pool in pools for r in live)
            return Standing(name, source.pool, limit, queued, 0, source.scope)
        case "hold_per_request" | "hold_with_extensions":
            return Standing(name, source.pool, limit, None, 0, source.scope)
    budget = next(b for b in quota.budgets(policy, state, subject, pool, live, now) if b.name == name)
    return Standing(
        *(name, source.pool, limit * HOUR, budget.use.held, budget.use.reserved, source.scope, budget.renews)
    )


def exceeded(
    policy: Policy, state: LiveState, names: Iterable[Name], who: dict[str, str], now: Millis
) -> list[str]:
    """Return sentences on who is over one of these limits now. ``who``: logins by subject."""
    told = []
    for subject, login in sorted(who.items(), key=lambda item: item[1]):
        told += [
            f"{login} {_use(one)}; the limit is now {_amount(one.name, one.limit)}."
            for one in standings(policy, state, subject, now)
            if one.name in names and one.used is not None and one.total > one.limit
        ]
    return told


def _use(one: Standing) -> str:
    where = f" in {one.pool}" if one.pool else ""
    if one.name == "running_gpus":
        return f"holds {gpus(one.total)}{where}"
    if one.name == "queued_requests":
        return f"has {counted(one.total, 'request')} in the queue{where}"
    what = f"{_amount(one.name, one.total)}{where}"
    if one.name == "gpu_hours":
        return f"has live reservations of {what}"
    return f"has used or reserved {what} this {one.name.rpartition('_')[2]}"


def _amount(name: Name, value: int) -> str:
    if name.startswith("gpu_hours"):
        return f"{value * 100 // HOUR / 100:g} GPU-hours"
    return duration(value) if name.startswith("hold") else str(value)


def in_words(one: Standing) -> str:
    """Return a limit with its use as text: ``GPUs at once (h100): 4 of 16, 12 left``."""
    return f"{one.title}: {one.value}{one.rest and ', '}{one.rest}"


TITLES: dict[Name, str] = {
    "running_gpus": "GPUs at once",
    "queued_requests": "Requests in the queue",
    "hold_per_request": "Longest request",
    "hold_with_extensions": "Longest with extensions",
    "gpu_hours": "GPU-hours",
    "gpu_hours_week": "GPU-hours this week",
    "gpu_hours_month": "GPU-hours this month",
}
"""The titles of the limits."""
