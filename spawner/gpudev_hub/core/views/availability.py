"""What is free now, and a dry run of requests made now."""

from __future__ import annotations

from dataclasses import dataclass

from gpudev_hub.core.commit import Snapshot
from gpudev_hub.core.decisions.decide import decide, next_due
from gpudev_hub.core.decisions.recovery import rebuild
from gpudev_hub.core.decisions.requests import look_ahead
from gpudev_hub.core.decisions.transitions import Turn
from gpudev_hub.core.decisions.working_state import WorkingState
from gpudev_hub.core.errors import Refused
from gpudev_hub.core.events import Submit, Tick
from gpudev_hub.core.limits import quota
from gpudev_hub.core.model import HOUR, MINUTE, Millis, Node, NodeStatus, Owner, Reservation, Shape, State
from gpudev_hub.core.planning.resource_profile import FOREVER
from gpudev_hub.core.policy import PoolSettings
from gpudev_hub.core.request import Ask, joinable, resolve, sizes
from gpudev_hub.core.sentences import Text

from .reasons import Outlook

_ASKED = "?"


@dataclass(frozen=True, slots=True)
class SizeOutlook:
    """One size of a pool, for one person and one hold."""

    gpus: int
    nodes: int
    free_now: int
    """How many servers of this size are free for the hold, whoever asks."""
    starts_now: bool
    """Whether a request made now would start at once."""
    earliest_start: Millis | None
    """The planned start of a request made now; ``None``: it would be refused, or blocked."""
    reason: Text | None
    """Why it would not start at once: the reason of the reservation, or the message of the refusal."""
    refused: Refused | None
    """The refusal that a request made now would get."""
    longest_now: Millis | None
    """If it would not start at once: the longest hold with which it would; ``None``: no hold."""
    longest: Millis
    """The longest hold that the person's limits allow for this size; 0: none."""


@dataclass(frozen=True, slots=True)
class PoolOutlook:
    """One pool."""

    pool: PoolSettings
    nodes_up: int
    gpus_total: int
    """GPUs of the nodes that are up."""
    gpus_free: int
    queued: int


class Forecast:
    """A dry run of the next decisions. Valid until the next commit."""

    def __init__(self, outlook: Outlook) -> None:
        self._committed = outlook
        self._state: tuple[WorkingState, Outlook] | None = None

    def pools(self, now: Millis) -> list[PoolOutlook]:
        """Return the outlook of every pool."""
        outlook = self._committed
        found = []
        for pool in outlook.policy.pools:
            up = _up(outlook, pool)
            waiting = (r for r in outlook.reservations.values() if r.state is State.QUEUED)
            found.append(
                PoolOutlook(
                    pool=pool,
                    nodes_up=len(up),
                    gpus_total=sum(node.gpus for node in up),
                    gpus_free=sum(max(0, n.gpus - outlook.profile(n.name).at(now)) for n in up),
                    queued=sum(r.request.pool == pool.name for r in waiting),
                )
            )
        return found

    def sizes(self, owner: Owner, pool: PoolSettings, hold: Millis, now: Millis) -> list[SizeOutlook]:
        """Return what would become of the owner's request for each size of a pool."""
        world, outlook = self._at(now)
        known = joinable(world.nodes.values()).get(pool.name, 0)
        shapes = [(gpus, 1) for gpus in sizes(pool)]
        shapes += [(pool.gpus_per_node, nodes) for nodes in range(2, min(pool.max_gang, known) + 1)]
        asks = [Ask(gpus, nodes, hold / HOUR, pool.name) for gpus, nodes in shapes]
        return [_size(Turn(world, now), outlook, owner, ask, pool) for ask in asks]

    def _at(self, now: Millis) -> tuple[WorkingState, Outlook]:
        """Return the state on which a request made now would be decided, with everything due done."""
        if self._state is None:
            c = self._committed
            last = max((r.seq for r in c.reservations.values()), default=0)
            records = Snapshot(0, 0, 0, last + 1)
            records.take_tables(c.state)
            world = rebuild(c.policy, records, now)
        else:
            world, _ = self._state
        due = next_due(world, now)
        if world.displaced or world.raised or (due is not None and due <= now):
            decide(world, Tick(), now)
            world.drain()
        elif self._state is not None:
            return self._state
        outlook = Outlook(world.policy, world)
        self._state = world, outlook
        return self._state


def _up(outlook: Outlook, pool: PoolSettings) -> list[Node]:
    return [n for n in outlook.nodes.values() if n.pool == pool.name and n.status is NodeStatus.UP]


def _size(turn: Turn, outlook: Outlook, owner: Owner, ask: Ask, pool: PoolSettings) -> SizeOutlook:
    world, now, gpus, nodes = turn.world, turn.now, ask.gpus or 0, ask.nodes or 0
    around = pool.startup + pool.teardown
    hold = round((ask.hours or 0) * HOUR)
    live = world.of_owner(owner.subject)
    longest = quota.longest_hold(world.policy, world, owner.subject, pool.name, gpus * nodes, live, now)
    reason: Text | None = None
    start, refused, starts = None, None, False
    try:
        reservation, starts = _dry_run(turn, owner, ask)
    except Refused as error:
        refused, reason = error, error.message
    else:
        start = None if reservation.place is None else reservation.place.start
        reason = None if starts else outlook.explain(reservation, now)
    return SizeOutlook(
        gpus=gpus,
        nodes=nodes,
        free_now=_count(outlook, pool, Shape(gpus, nodes), now, now + around + hold),
        starts_now=starts,
        earliest_start=start,
        reason=reason,
        refused=refused,
        longest_now=None if starts else _longest_now(turn, outlook, owner, ask, pool, longest),
        longest=longest,
    )


def _dry_run(turn: Turn, owner: Owner, ask: Ask) -> tuple[Reservation, bool]:
    request = resolve(turn.world.policy, ask, joinable(turn.world.nodes.values()))
    return look_ahead(turn, Submit(_ASKED, owner, request))


def _count(outlook: Outlook, pool: PoolSettings, shape: Shape, now: Millis, end: Millis) -> int:
    """Return how many servers of a size fit from now to ``end``, with every planned place held."""
    room = [(n.group, outlook.room(n, now, end) // shape.gpus) for n in _up(outlook, pool)]
    if shape.nodes == 1:
        return sum(count for _, count in room)
    groups: dict[str, int] = {}
    for group, count in room:
        groups[group] = groups.get(group, 0) + (count > 0)
    return sum(count // shape.nodes for count in groups.values())


def _longest_now(
    turn: Turn, outlook: Outlook, owner: Owner, ask: Ask, pool: PoolSettings, allowed: Millis
) -> Millis | None:
    """Return the longest hold with which a request of this size would start at once."""
    gpus, nodes, now = ask.gpus or 0, ask.nodes or 0, turn.now
    free = _free_until(outlook, _up(outlook, pool), gpus, nodes, now)
    own = outlook.limit_reached(owner.subject, pool.name, gpus * nodes, now)
    # Whole minutes, because the time left shrinks until the request is made.
    hold = min(min(free, own) - now - pool.startup - pool.teardown, allowed) // MINUTE * MINUTE
    if hold < turn.world.policy.min_hold:
        return None
    try:
        _, starts = _dry_run(turn, owner, Ask(gpus, nodes, hold / HOUR, ask.gpu_type))
    except Refused:
        return None
    return hold if starts else None


def _free_until(outlook: Outlook, up: list[Node], gpus: int, nodes: int, now: Millis) -> Millis:
    """Return until when a server of this size can run from now, with every planned place held."""
    ends: dict[str, list[Millis]] = {}
    for node in up:
        taken = outlook.profile(node.name).first_above(now, FOREVER, node.gpus - gpus)
        end = min(FOREVER if end is None else end for end in (taken, node.until))
        ends.setdefault(node.group, []).append(end)
    return max((sorted(e)[-nodes] for e in ends.values() if len(e) >= nodes), default=now)
