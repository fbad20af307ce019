"""The load of every node and owner, from occupations (existing claims) and placed demands.

``search`` finds room for a demand. ``compression`` and ``extension`` decide which demands move, and when.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from gpudev_hub.core.model import Millis, Place

from .capacity import Gains, NodeCapacity, OwnerCapacity
from .resource_profile import FOREVER


@dataclass(frozen=True, slots=True)
class PlanNode:
    """A node that may be planned on."""

    name: str
    gpus: int
    group: str
    """Zone and placement group; all nodes of a gang share it."""
    until: Millis | None = None
    """When the node ends (capacity block), if it does."""
    closed: bool = False
    """Whether the node keeps its places and gets no others."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A queued request, as the planner sees it."""

    key: str
    owner: str
    gpus: int
    """GPUs on each node."""
    nodes: int
    length: Millis
    """Start-up, hold and tear-down together."""
    cap: int
    """The most GPUs that the owner may hold at once in this pool, at any instant of this demand's place."""
    order: int
    """Queue order: the sequence number."""
    excluded: frozenset[str] = frozenset()

    @property
    def total(self) -> int:
        """GPUs of all nodes together."""
        return self.gpus * self.nodes


@dataclass(frozen=True, slots=True)
class Occupation:
    """A claim that exists: it takes room, whether that fits the plan or not."""

    key: str
    owner: str
    gpus: int
    nodes: tuple[str, ...]
    start: Millis
    end: Millis
    counts: bool
    """Whether it counts against its owner's cap."""

    @property
    def total(self) -> int:
        """GPUs of all nodes together."""
        return self.gpus * len(self.nodes)


class Timetable:
    """Loads of nodes and owners. The places of all demands are feasible together."""

    def __init__(self) -> None:
        self.up: dict[str, NodeCapacity] = {}
        """Nodes that may be planned on, in the order of their names."""
        self.closed: dict[str, NodeCapacity] = {}
        """Nodes that keep their places and get no others."""
        self._nodes: dict[str, NodeCapacity] = {}
        """All known nodes, including those that are down."""
        self.owners: dict[str, OwnerCapacity] = {}
        self.occupations: dict[str, Occupation] = {}
        self.placed: dict[str, tuple[Demand, Place]] = {}
        self.queue: list[tuple[int, str]] = []
        """(order, key) of the placed demands, in queue order."""
        self.gains: tuple[Gains, ...] = ()
        """The accounts in which gained room is recorded."""

    # Nodes

    def node(self, name: str) -> NodeCapacity:
        """Return the node; an unknown node is added, empty and down."""
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = NodeCapacity(name)
        return node

    def set_node(self, new: PlanNode) -> None:
        """Add or change a node that may hold places.

        If anything changed and the node is not closed, all of its room counts as gained.
        """
        node = self.node(new.name)
        before = node.gpus, node.group, node.until
        node.gpus, node.group = new.gpus, new.group
        node.until = FOREVER if new.until is None else new.until
        if new.closed:
            self.up.pop(new.name, None)
            self.closed[new.name] = node
            return
        self.closed.pop(new.name, None)
        if new.name not in self.up:
            self.up = {name: self._nodes[name] for name in sorted([*self.up, new.name])}
        elif before == (node.gpus, node.group, node.until):
            return
        self._gain_node(node, -FOREVER, FOREVER)

    def remove_node(self, name: str) -> None:
        """Offer no room on the node; its occupations stay known."""
        self.up.pop(name, None)
        self.closed.pop(name, None)

    def holding(self, name: str) -> NodeCapacity | None:
        """Return the node, if it may hold places."""
        return self.up.get(name) or self.closed.get(name)

    # What is taken

    def occupy(self, occupation: Occupation) -> None:
        """Add the load of an occupation, whether it fits or not."""
        self.occupations[occupation.key] = occupation
        o = occupation
        self._load(o.key, o.owner if o.counts else None, o.gpus, o.nodes, o.start, o.end)

    def vacate(self, key: str) -> Occupation:
        """Remove the load of an occupation, without accounting for the room gained."""
        o = self.occupations.pop(key)
        self._load(o.key, o.owner if o.counts else None, -o.gpus, o.nodes, o.start, o.end)
        return o

    def put(self, demand: Demand, place: Place) -> None:
        """Place a demand; the caller has checked that it fits."""
        self.placed[demand.key] = (demand, place)
        insort(self.queue, (demand.order, demand.key))
        self.hold(demand, place)

    def lift(self, key: str) -> tuple[Demand, Place]:
        """Take a demand out of the plan, without accounting for the room gained."""
        demand, place = self.placed.pop(key)
        del self.queue[bisect_left(self.queue, (demand.order, demand.key))]
        self.release(demand, place)
        return demand, place

    def hold(self, demand: Demand, place: Place) -> None:
        """Add the load of a place, also for a trial."""
        self._load(demand.key, demand.owner, demand.gpus, place.nodes, place.start, place.end)
        self.owners[demand.owner].open_window(demand.key, place.start, place.end, demand.cap)

    def release(self, demand: Demand, place: Place) -> None:
        """Remove the load of a place, also for a trial."""
        self.owners[demand.owner].close_window(demand.key)
        self._load(demand.key, demand.owner, -demand.gpus, place.nodes, place.start, place.end)

    def raise_cap(self, demand: Demand, place: Place, cap: int) -> None:
        """Hold the demand's place with a higher cap; its owner may have been delayed at any time before."""
        self.release(demand, place)
        raised = replace(demand, cap=cap)
        self.placed[demand.key] = (raised, place)
        self.hold(raised, place)
        for gains in self.gains:
            gains.owner(demand.owner, -FOREVER, FOREVER, 0)

    def _load(
        self, key: str, owner: str | None, gpus: int, nodes: tuple[str, ...], start: Millis, end: Millis
    ) -> None:
        """Add a load; a negative number of GPUs removes it."""
        for name in nodes:
            node = self._nodes.get(name) or self.node(name)
            node.profile.add(start, end, gpus)
            if gpus > 0:
                node.holders[key] = None
            else:
                del node.holders[key]
        if owner is not None:
            account = self.owners.get(owner)
            if account is None:
                account = self.owners[owner] = OwnerCapacity()
            account.profile.add(start, end, gpus * len(nodes))
            account.total += gpus * len(nodes)

    # Room gained

    def gain(
        self,
        nodes: Iterable[str],
        owner: str | None,
        gpus: int,
        start: Millis,
        end: Millis,
        cap: int = FOREVER,
    ) -> None:
        """Account for room that became free during [start, end) on the nodes.

        ``owner``, if given, holds ``gpus`` less then; ``cap`` limited them in addition to their places' caps.
        """
        if start >= end:
            return
        for name in nodes:
            self._gain_node(self._nodes[name], start, end)
        if owner is not None:
            account = self.owners[owner]
            before = account.profile.peak(start, end) + gpus
            for gains in self.gains:
                gains.owner(owner, start, end, account.tightest(cap) - before)

    def gain_place(self, demand: Demand, place: Place) -> None:
        self.gain_places([(demand, place)])

    def gain_places(self, left: Sequence[tuple[Demand, Place]]) -> None:
        """Account for the room of places that were left at the same time."""
        totals: dict[str, int] = {}
        caps: dict[str, int] = {}
        for demand, _ in left:
            totals[demand.owner] = totals.get(demand.owner, 0) + demand.total
            caps[demand.owner] = min(demand.cap, caps.get(demand.owner, demand.cap))
        for demand, place in left:
            owner = demand.owner
            self.gain(place.nodes, owner, totals[owner], place.start, place.end, caps[owner])

    def _gain_node(self, node: NodeCapacity, start: Millis, end: Millis) -> None:
        node.loosen(start)
        for gains in self.gains:
            gains.node(node.name, start, end)

    def loosen(self, nodes: Iterable[str], start: Millis) -> None:
        """Void the bounds that were found with a temporary load."""
        for name in nodes:
            self._nodes[name].loosen(start)

    def fits(self, demand: Demand, place: Place, since: Millis = -FOREVER) -> bool:
        """Return whether a demand that is not placed may have this place; time before ``since`` is over."""
        start = max(place.start, since)
        if (
            place.end - place.start != demand.length
            or len(set(place.nodes)) != demand.nodes
            or demand.total > demand.cap
            or start >= place.end
        ):
            return False
        nodes = [self.holding(name) for name in place.nodes]
        groups = set()
        for node in nodes:
            if (
                node is None
                or node.name in demand.excluded
                or node.until < place.end
                or not node.fits(demand.gpus, start, place.end)
            ):
                return False
            groups.add(node.group)
        account = self.owners.get(demand.owner)
        return len(groups) == 1 and (
            account is None or account.fits(demand.total, demand.cap, start, place.end)
        )

    def evict(
        self, nodes: Iterable[str], owner: str | None, start: Millis, end: Millis
    ) -> list[tuple[Demand, Place]]:
        """Lift and return the placed demands that no longer fit after load was forced into [start, end).

        Only their time from ``start`` on counts. Demands in conflict are put back in queue order as far as
        they fit, so that older ones keep their places. The room of those lifted is not accounted for yet.
        """
        keys = {key for name in nodes for key in self.node(name).holders if key in self.placed}
        if owner is not None and owner in self.owners:
            keys.update(self.owners[owner].windows)
        suspects = []
        for demand, place in self.in_order(keys):
            if place.start < end and start < place.end:
                self.release(demand, place)
                if not self.fits(demand, place, start):
                    suspects.append((demand, place))
                self.hold(demand, place)
        for demand, _ in suspects:
            self.lift(demand.key)
        gone = []
        for demand, place in suspects:
            if self.fits(demand, place, start):
                self.put(demand, place)
            else:
                gone.append((demand, place))
        for _, place in gone:
            self.loosen(place.nodes, place.start)
        return gone

    def in_order(self, keys: Iterable[str]) -> Iterator[tuple[Demand, Place]]:
        """Yield the placed demands with these keys, in queue order."""
        for _, key in sorted((self.placed[key][0].order, key) for key in keys):
            yield self.placed[key]

    def trim(self, now: Millis) -> None:
        """Forget what lies entirely before ``now``, and owners who hold nothing."""
        for node in self._nodes.values():
            node.profile.trim(now)
        for owner, account in list(self.owners.items()):
            account.profile.trim(now)
            if not account.total and not account.windows:
                del self.owners[owner]
