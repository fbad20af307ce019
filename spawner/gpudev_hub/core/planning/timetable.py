"""What is taken on every node and by every owner, by occupations (claims that exist) and placed demands.

The first room for a demand is found in `search`. Who may be moved, and when, is decided in `compression` and
`extension`.
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
    """Zone and placement group; the nodes of a gang share it."""
    until: Millis | None = None
    """When the node itself ends (capacity block), if it does."""
    closed: bool = False
    """Places on the node stay, and no others are given there."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A queued request, as the planner sees it."""

    key: str
    owner: str
    gpus: int
    """GPUs on each node."""
    nodes: int
    length: Millis
    """All that the place must hold: start-up, hold and tear-down."""
    cap: int
    """The most GPUs that the owner may hold at once in this pool, at any instant of this demand's place."""
    order: int
    """Queue order: the sequence number."""
    not_before: Millis = 0
    excluded: frozenset[str] = frozenset()

    @property
    def total(self) -> int:
        """GPUs of all nodes together."""
        return self.gpus * self.nodes


@dataclass(frozen=True, slots=True)
class Occupation:
    """A claim that exists: room that is taken, whatever the plan says."""

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
    """Loads of nodes and owners. All places of placed demands are feasible together."""

    def __init__(self) -> None:
        #: Nodes that may be planned on, by name, in the order of their names.
        self.up: dict[str, NodeCapacity] = {}
        #: Nodes whose places stay, and that are given no others.
        self.closed: dict[str, NodeCapacity] = {}
        #: Every node that anything is known of, those that are down included.
        self._nodes: dict[str, NodeCapacity] = {}
        self.owners: dict[str, OwnerCapacity] = {}
        self.occupations: dict[str, Occupation] = {}
        self.placed: dict[str, tuple[Demand, Place]] = {}
        #: (order, key) of the placed demands, sorted: queue order.
        self.queue: list[tuple[int, str]] = []
        #: Everybody who keeps account of room that became free.
        self.gains: tuple[Gains, ...] = ()

    # Nodes

    def node(self, name: str) -> NodeCapacity:
        """What is known of this node; a node never heard of is known to be empty and down."""
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = NodeCapacity(name)
        return node

    def set_node(self, new: PlanNode) -> None:
        """The node may hold places and is like this.

        All of its room counts as gained if anything about it changed, unless it is closed.
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
        """The node is down: it offers nothing; what occupies it stays known."""
        self.up.pop(name, None)
        self.closed.pop(name, None)

    def holding(self, name: str) -> NodeCapacity | None:
        """The node, if it may hold places."""
        return self.up.get(name) or self.closed.get(name)

    # What is taken

    def occupy(self, occupation: Occupation) -> None:
        """Add the load of an occupation, feasible or not."""
        self.occupations[occupation.key] = occupation
        o = occupation
        self._load(o.key, o.owner if o.counts else None, o.gpus, o.nodes, o.start, o.end)

    def vacate(self, key: str) -> Occupation:
        """Take the load of an occupation away, without accounting for the room gained."""
        o = self.occupations.pop(key)
        self._unload(o.key, o.owner if o.counts else None, o.gpus, o.nodes, o.start, o.end)
        return o

    def put(self, demand: Demand, place: Place) -> None:
        """Place a demand; the caller knows that it fits."""
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
        """The load of a place, added: also while one is only tried."""
        self._load(demand.key, demand.owner, demand.gpus, place.nodes, place.start, place.end)
        self.owners[demand.owner].open_window(demand.key, place.start, place.end, demand.cap)

    def release(self, demand: Demand, place: Place) -> None:
        """The load of a place, taken away: also while another one is only looked for."""
        self.owners[demand.owner].close_window(demand.key)
        self._unload(demand.key, demand.owner, demand.gpus, place.nodes, place.start, place.end)

    def raise_cap(self, demand: Demand, place: Place, cap: int) -> None:
        """Hold the demand's place with a higher cap: its owner was delayed at any time, and no longer is."""
        self.release(demand, place)
        raised = replace(demand, cap=cap)
        self.placed[demand.key] = (raised, place)
        self.hold(raised, place)
        for gains in self.gains:
            gains.owner(demand.owner, -FOREVER, FOREVER, 0)

    def _load(
        self, key: str, owner: str | None, gpus: int, nodes: tuple[str, ...], start: Millis, end: Millis
    ) -> None:
        for name in nodes:
            node = self.node(name)
            node.profile.add(start, end, gpus)
            node.holders[key] = None
        if owner is not None:
            account = self.owners.get(owner)
            if account is None:
                account = self.owners[owner] = OwnerCapacity()
            account.profile.add(start, end, gpus * len(nodes))
            account.total += gpus * len(nodes)

    def _unload(
        self, key: str, owner: str | None, gpus: int, nodes: tuple[str, ...], start: Millis, end: Millis
    ) -> None:
        for name in nodes:
            node = self._nodes[name]
            node.profile.add(start, end, -gpus)
            del node.holders[key]
        if owner is not None:
            account = self.owners[owner]
            account.profile.add(start, end, -gpus * len(nodes))
            account.total -= gpus * len(nodes)

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
        """Account for room that has become free during [start, end) on the nodes.

        The owner, if one is named, holds `gpus` less then, of which `cap` is what he was held to besides the
        caps of his placed demands.
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
        """Account for the room of a place that the demand has left."""
        self.gain_places([(demand, place)])

    def gain_places(self, left: Sequence[tuple[Demand, Place]]) -> None:
        """Account for the room of places that were left all at once."""
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
        """Load was taken away again that nobody was meant to see: only what was learnt with it is void."""
        for name in nodes:
            self._nodes[name].loosen(start)

    def fits(self, demand: Demand, place: Place, since: Millis = -FOREVER) -> bool:
        """Whether the demand, not placed now, may have this place; what lies before `since` is over."""
        start = max(place.start, since)
        if (
            place.end - place.start != demand.length
            or place.start < demand.not_before
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
        """Lift the placed demands that no longer fit after load was forced into [start, end), and name them.

        What is left of them from `start` on counts.

        Those in conflict are put back in queue order as far as they fit, so that the older keep their places.
        The room of those lifted is not accounted for yet.
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
        """The placed demands of these keys, in queue order."""
        for _, key in sorted((self.placed[key][0].order, key) for key in keys):
            yield self.placed[key]

    def trim(self, now: Millis) -> None:
        """Forget what lies wholly before `now`, and owners who hold nothing."""
        for node in self._nodes.values():
            node.profile.trim(now)
        for owner, account in list(self.owners.items()):
            account.profile.trim(now)
            if not account.total and not account.windows:
                del self.owners[owner]
