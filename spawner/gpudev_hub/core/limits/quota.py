"""Limits on one owner, checked at each request and extension. The plan limits the GPUs running at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.live_state import LiveState
from gpudev_hub.core.model import HOUR, Claim, Millis, Node, Request, Reservation, State
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.request import resolve_hours
from gpudev_hub.core.words import counted, duration, gpus, moment

from .budgets import Use, use_of
from .periods import Period
from .rules import Name, limits_of, sharing_pools

_PERIODS: Final[dict[Name, Period]] = {"gpu_hours_week": Period.WEEK, "gpu_hours_month": Period.MONTH}


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in GPU-hours for an owner, and what counts towards it (GPU-milliseconds)."""

    name: Name
    limit: int
    """GPU-hours."""
    use: Use
    pool: str | None
    """The only pool that counts; ``None``: all pools without a limit of their own."""
    renews: Millis | None
    """When the period ends; ``None`` for a limit on all live reservations together."""

    @property
    def left(self) -> int:
        """What is left: 0 when the limit is below what is used."""
        return max(0, self.limit * HOUR - self.use.total)

    def of(self) -> str:
        """Return the name of the budget: ``your 100 GPU-hours for this week``."""
        where = f" in {self.pool}" if self.pool else ""
        period = "" if self.renews is None else f" for this {_PERIODS[self.name]}"
        return f"your {self.limit} GPU-hours{where}{period}"


def budgets(
    policy: Policy, state: LiveState, subject: str, pool: str, live: Iterable[Reservation], now: Millis
) -> list[Budget]:
    """Return the limits in GPU-hours for an owner in a pool.

    ``live``: the owner's live reservations.
    """
    live = list(live)
    limits = limits_of(policy, state, subject, pool)
    found = []
    for name in ("gpu_hours", "gpu_hours_week", "gpu_hours_month"):
        limit: int | None = getattr(limits.values, name)
        if limit is None:
            continue
        pools = sharing_pools(policy, state, subject, pool, name)
        period = _PERIODS.get(name)
        use = (
            Use(0, _asked_for(r for r in live if r.request.pool in pools))
            if period is None
            else use_of(state, subject, pools, live, period, now)
        )
        renews = None if period is None else period.end(now)
        found.append(Budget(name, limit, use, limits.sources[name].pool, renews))
    return found


def gpu_hours(reservations: Iterable[Reservation]) -> float:
    """Return Σ GPUs × hours of the reservations, extensions included."""
    return _asked_for(reservations) / HOUR


def _asked_for(reservations: Iterable[Reservation]) -> int:
    return sum(r.request.shape.total_gpus * r.request.hold for r in reservations)


def counts(claim: Claim, reservations: Mapping[str, Reservation], nodes: Mapping[str, Node]) -> bool:
    """Return whether a claim counts against its owner's cap.

    It does not if a later attempt took its place, if the reservation has ended, or if it overruns on a node
    that has been away for longer than the grace.
    """
    reservation = reservations.get(claim.reservation)
    if reservation is None or reservation.attempt != claim.attempt:
        return False
    there = (nodes.get(part.node) for part in claim.allocation)
    return not claim.overruns or all(node is not None and node.planned for node in there)


def counted_claims(state: LiveState, subject: str, pool: str) -> list[Claim]:
    """Return the claims in the pool that count against the owner's cap."""
    mine = (claim for claim in state.claims.values() if claim.subject == subject and claim.pool == pool)
    return [claim for claim in mine if counts(claim, state.reservations, state.nodes)]


def longest_request(policy: Policy, state: LiveState, subject: str) -> Millis:
    """Return the longest hold that one request of the owner may ask for, in the pool that allows most."""
    return max(limits_of(policy, state, subject, pool.name).values.hold_per_request for pool in policy.pools)


def hold_for(policy: Policy, state: LiveState, subject: str, hours: float) -> Millis:
    """Return the hold of a request for so many hours.

    Raises ``Refused`` if no pool allows it to the owner.
    """
    hold = resolve_hours(hours, policy.min_hold)
    _check_hold(hold, longest_request(policy, state, subject))
    return hold


def _check_hold(hold: Millis, longest: Millis) -> None:
    """Raise ``Refused`` if one request may not ask for this hold."""
    if hold > longest:
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"You asked for {duration(hold)}; your limit for one request is {duration(longest)}.",
            f"Use {duration(longest)} or less. You can extend the reservation once it is running.",
        )


def check_submit(
    policy: Policy, state: LiveState, subject: str, request: Request, live: list[Reservation], now: Millis
) -> None:
    """Raise ``Refused`` if the request would exceed the owner's limits.

    ``live``: the owner's live reservations.
    """
    limits = limits_of(policy, state, subject, request.pool)
    _check_hold(request.hold, limits.values.hold_per_request)
    total, running = request.shape.total_gpus, limits.values.running_gpus
    if total > running:
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"You asked for {gpus(total)}; your limit is {gpus(running)} at once.",
            f"Ask for at most {gpus(running)}." if running else f"Ask an operator about {request.pool}.",
        )
    pools = sharing_pools(policy, state, subject, request.pool, "queued_requests")
    queued = sum(r.state is State.QUEUED and r.request.pool in pools for r in live)
    where = limits.sources["queued_requests"].pool
    if queued >= limits.values.queued_requests:
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"You have {counted(queued, 'request')} in the queue{f' of {where}' if where else ''}; "
            f"your limit is {limits.values.queued_requests}.",
            "Cancel a request in the queue, or wait until one has started.",
        )
    for budget in budgets(policy, state, subject, request.pool, live, now):
        if total * request.hold > budget.left:
            raise _over_budget(budget, total, request.hold, policy.min_hold, now)


def _over_budget(budget: Budget, total: int, hold: Millis, least: Millis, now: Millis) -> Refused:
    """Return the refusal of a request for ``total`` GPUs that exceeds what is left."""
    asked, longest = total * hold, budget.left // total
    shorter = f"Ask for {gpus(total)} for at most {duration(longest)}" if longest >= least else ""
    if budget.renews is None:
        reserved = budget.use.reserved
        where = f" in {budget.pool}" if budget.pool else ""
        return Refused(
            Code.QUOTA_EXCEEDED,
            f"You asked for {_hours(asked)} GPU-hours, and your other reservations{where} have "
            f"{_hours(reserved)}: {_hours(reserved + asked)} in total; your limit is {budget.limit}.",
            f"{shorter}, or release a reservation."
            if shorter
            else "Release a reservation, or wait until one has ended.",
        )
    return Refused(
        Code.QUOTA_EXCEEDED,
        f"You asked for {_hours(asked)} GPU-hours. Of {budget.of()}, {_hours(budget.use.held)} are used and "
        f"{_hours(budget.use.reserved)} are reserved: {_hours(budget.left)} are left.",
        f"{f'{shorter}, release' if shorter else 'Release'} a reservation, or wait until "
        f"{moment(budget.renews, now)}, when the budget renews.",
    )


def _hours(gpu_ms: int) -> str:
    """Return GPU-hours to two decimals, rounded down."""
    return f"{gpu_ms * 100 // HOUR / 100:g}"


def longest_hold(
    policy: Policy,
    state: LiveState,
    subject: str,
    pool: str,
    total: int,
    live: list[Reservation],
    now: Millis,
) -> Millis:
    """Return the longest hold that the owner's limits allow for ``total`` GPUs; 0: none."""
    limits = limits_of(policy, state, subject, pool).values
    if total > limits.running_gpus:
        return 0
    left = (budget.left // total for budget in budgets(policy, state, subject, pool, live, now))
    return min([limits.hold_per_request, *left])


def longest_extension(
    policy: Policy, state: LiveState, reservation: Reservation, live: list[Reservation], now: Millis
) -> tuple[Millis, str]:
    """Return by how much the owner's limits let the hold grow (0 or more), and the deciding limit."""
    subject, pool = reservation.owner.subject, reservation.request.pool
    most = limits_of(policy, state, subject, pool).values.hold_with_extensions
    longest = most - reservation.request.hold
    why = (
        f"the limit with extensions is {duration(most)}, and this reservation has "
        f"{duration(reservation.request.hold)}"
    )
    for budget in budgets(policy, state, subject, pool, live, now):
        left = budget.left // reservation.request.shape.total_gpus
        if left >= longest:
            continue
        longest = left
        if budget.renews is None:
            where = f" in {budget.pool}" if budget.pool else ""
            why = (
                f"your limit is {budget.limit} GPU-hours{where}, and your reservations have "
                f"{_hours(budget.use.reserved)}"
            )
        else:
            why = (
                f"of {budget.of()}, {_hours(budget.use.held)} are used and {_hours(budget.use.reserved)} are "
                f"reserved; the budget renews at {moment(budget.renews, now)}"
            )
    return max(0, longest), why
