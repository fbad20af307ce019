"""What is free now, and when each size could start: per pool, from committed records."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .model import MINUTE, Millis, Node, NodeStatus, PoolSettings, State
from .plan import Demand, Plan
from .profile import FOREVER
from .reasons import Outlook
from .request import joinable, sizes
from .timers import planned_end
from .world import demand_key, demand_of, plan_node

_ASKED = "?"


@dataclass(frozen=True, slots=True)
class SizeOutlook:
    """One size of a pool."""

    gpus: int
    nodes: int
    free_now: int
    """How many reservations of this size could start at once, for the hold asked about."""
    earliest_start: Millis | None
    """For a request made now; `None`: no node that could hold it is up."""
    longest_now: Millis | None
    """Where none could start at once: the longest hold with which one could; `None`: with no hold."""


@dataclass(frozen=True, slots=True)
class PoolOutlook:
    """One pool."""

    pool: PoolSettings
    nodes_up: int
    gpus_total: int
    """Of the nodes that are up."""
    gpus_free: int
    queued: int
    sizes: tuple[SizeOutlook, ...]


def availability(
    outlook: Outlook, hold: Millis, now: Millis, subject: str | None = None
) -> list[PoolOutlook]:
    """Every pool and size for a hold; with a `subject`, starts are those that his limits allow him."""
    return [_pool(outlook, pool, hold, now, subject) for pool in outlook.policy.pools]


def _pool(
    outlook: Outlook, pool: PoolSettings, hold: Millis, now: Millis, subject: str | None
) -> PoolOutlook:
    up = [n for n in outlook.nodes.values() if n.pool == pool.name and n.status is NodeStatus.UP]
    plan = _plan(outlook, pool, up)
    around = pool.startup + pool.teardown
    cap = 1 << 30 if subject is None else outlook.policy.limits(subject).running_gpus
    shapes = [(gpus, 1) for gpus in sizes(pool)]
    known = joinable(n for n in outlook.nodes.values() if n.pool == pool.name).get(pool.name, 0)
    shapes += [(pool.gpus_per_node, nodes) for nodes in range(2, min(pool.max_gang, known) + 1)]
    found = []
    for gpus, nodes in shapes:
        asked = Demand(_ASKED, subject or _ASKED, gpus, nodes, around + hold, cap, order=1 << 62)
        place = plan.earliest(asked, now)
        free_now = _free_now(outlook, up, gpus, nodes, now, now + asked.length)
        longest = None if free_now else _longest_now(outlook, plan, up, asked, around, now)
        found.append(SizeOutlook(gpus, nodes, free_now, None if place is None else place.start, longest))
    waiting = [r for r in outlook.reservations.values() if r.state is State.QUEUED]
    return PoolOutlook(
        pool=pool,
        nodes_up=len(up),
        gpus_total=sum(n.gpus for n in up),
        gpus_free=sum(max(0, n.gpus - outlook.profile(n.name).at(now)) for n in up),
        queued=sum(r.request.pool == pool.name for r in waiting),
        sizes=tuple(found),
    )


def _plan(outlook: Outlook, pool: PoolSettings, up: list[Node]) -> Plan:
    """A plan of the committed records, to be thrown away."""
    plan = Plan(plan_node(node) for node in up)
    for claim in outlook.claims.values():
        if claim.pool == pool.name:
            gpus = len(claim.allocation[0].slots)
            nodes = tuple(part.node for part in claim.allocation)
            plan.occupy(
                demand_key(*claim.key), claim.subject, gpus, nodes, 0, planned_end(claim, pool.stop_overrun)
            )
    for reservation in outlook.reservations.values():
        if reservation.request.pool == pool.name and reservation.place is not None:
            plan.put(demand_of(reservation), reservation.place)
    return plan


def _free_now(outlook: Outlook, up: list[Node], gpus: int, nodes: int, now: Millis, end: Millis) -> int:
    """How many of a size fit side by side from now on, with every planned place held."""
    lasting = [n for n in up if n.until is None or end <= n.until]
    room = {n.name: (n.gpus - outlook.profile(n.name).peak(now, end)) // gpus for n in lasting}
    if nodes == 1:
        return sum(max(0, count) for count in room.values())
    free: dict[str, int] = {}
    for node in lasting:
        free[node.group] = free.get(node.group, 0) + (room[node.name] > 0)
    return sum(count // nodes for count in free.values())


def _longest_now(
    outlook: Outlook, plan: Plan, up: list[Node], asked: Demand, around: Millis, now: Millis
) -> Millis | None:
    """The longest hold with which one could start at once; `around` goes before and after it."""
    free = _free_until(outlook, up, asked.gpus, asked.nodes, now) - now
    # Whole minutes: nobody can ask before it is a little less.
    hold = (free - around) // MINUTE * MINUTE
    if hold < outlook.policy.min_hold:
        return None
    # The owner's own limit may bar it where the nodes do not.
    place = plan.earliest(replace(asked, length=around + hold), now)
    return hold if place is not None and place.start == now else None


def _free_until(outlook: Outlook, up: list[Node], gpus: int, nodes: int, now: Millis) -> Millis:
    """Until when one of a size that starts now can stay, with every planned place held."""
    ends: dict[str, list[Millis]] = {}
    for node in up:
        taken = outlook.profile(node.name).first_above(now, FOREVER, node.gpus - gpus)
        end = min(FOREVER if end is None else end for end in (taken, node.until))
        ends.setdefault(node.group, []).append(end)
    return max((sorted(e)[-nodes] for e in ends.values() if len(e) >= nodes), default=now)
