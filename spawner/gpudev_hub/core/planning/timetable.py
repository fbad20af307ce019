"""What is taken on every node and by every owner, and the exact search for room in it.

The ledger knows occupations (claims that exist) and placed demands (queued, with a place each). It answers
"when and where is the first room for this?"; who may be moved, and when, is decided in `compression` and
`extension`.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from gpudev_hub.core.model import Millis, Place

from .capacity import Gains, NodeTrack, OwnerTrack
from .resource_profile import FOREVER

_NO_CAP = FOREVER


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


class Ledger:
    """Loads of nodes and owners. All places of placed demands are feasible together."""

    def __init__(self) -> None:
        #: Nodes that may be planned on, by name, in the order of their names.
        self.up: dict[str, NodeTrack] = {}
        #: Nodes whose places stay, and that are given no others.
        self.closed: dict[str, NodeTrack] = {}
        #: Every node that anything is known of, those that are down included.
        self._tracks: dict[str, NodeTrack] = {}
        self.owners: dict[str, OwnerTrack] = {}
        self.occupations: dict[str, Occupation] = {}
        self.placed: dict[str, tuple[Demand, Place]] = {}
        #: (order, key) of the placed demands, sorted: queue order.
        self.queue: list[tuple[int, str]] = []
        #: Everybody who keeps account of room that became free.
        self.gains: tuple[Gains, ...] = ()

    # Nodes

    def track(self, name: str) -> NodeTrack:
        """What is known of this node; a node never heard of is known to be empty and down."""
        track = self._tracks.get(name)
        if track is None:
            track = self._tracks[name] = NodeTrack(name)
        return track

    def set_node(self, node: PlanNode) -> None:
        """The node may hold places and is like this.

        All of its room counts as gained if anything about it changed, unless it is closed.
        """
        track = self.track(node.name)
        until = FOREVER if node.until is None else node.until
        if node.closed:
            track.gpus, track.group, track.until = node.gpus, node.group, until
            self.up.pop(node.name, None)
            self.closed[node.name] = track
            return
        self.closed.pop(node.name, None)
        if node.name in self.up and (track.gpus, track.group, track.until) == (node.gpus, node.group, until):
            return
        track.gpus, track.group, track.until = node.gpus, node.group, until
        if node.name not in self.up:
            names = sorted([*self.up, node.name])
            self.up = {name: self._tracks[name] for name in names}
        self._gain_node(track, -FOREVER, FOREVER)

    def remove_node(self, name: str) -> None:
        """The node is down: it offers nothing; what occupies it stays known."""
        self.up.pop(name, None)
        self.closed.pop(name, None)

    def holding(self, name: str) -> NodeTrack | None:
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
            track = self.track(name)
            track.profile.add(start, end, gpus)
            track.holders[key] = None
        if owner is not None:
            account = self.owners.get(owner)
            if account is None:
                account = self.owners[owner] = OwnerTrack()
            account.profile.add(start, end, gpus * len(nodes))
            account.total += gpus * len(nodes)

    def _unload(
        self, key: str, owner: str | None, gpus: int, nodes: tuple[str, ...], start: Millis, end: Millis
    ) -> None:
        for name in nodes:
            track = self._tracks[name]
            track.profile.add(start, end, -gpus)
            del track.holders[key]
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
        cap: int = _NO_CAP,
    ) -> None:
        """Account for room that has become free during [start, end) on the nodes.

        The owner, if one is named, holds `gpus` less then, of which `cap` is what he was held to besides the
        caps of his placed demands.
        """
        if start >= end:
            return
        for name in nodes:
            self._gain_node(self._tracks[name], start, end)
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

    def _gain_node(self, track: NodeTrack, start: Millis, end: Millis) -> None:
        track.loosen(start)
        for gains in self.gains:
            gains.node(track.name, start, end)

    def loosen(self, nodes: Iterable[str], start: Millis) -> None:
        """Load was taken away again that nobody was meant to see: only what was learnt with it is void."""
        for name in nodes:
            self._tracks[name].loosen(start)

    # Search

    def search(
        self, demand: Demand, start: Millis, stop: Millis, lifted: tuple[str, ...] = ()
    ) -> Place | None:
        """The exact earliest place that starts in [start, stop], with everything in the ledger held.

        `lifted`: nodes whose profile lacks a load that will come back (a place is out while it is improved):
        nothing is remembered of the search on those.
        """
        total, cap = demand.total, demand.cap
        if total > cap:
            return None
        account = self.owners.get(demand.owner)
        if account is not None:
            if account.never_binds(total, cap):
                account = None
            else:
                start = account.earliest(total, cap, demand.length, start, stop)
        if start > stop:
            return None
        if demand.nodes == 1:
            return self._search_node(demand, start, stop, account, lifted)
        return self._search_gang(demand, start, stop, account, lifted)

    def _search_node(
        self, demand: Demand, start: Millis, stop: Millis, account: OwnerTrack | None, lifted: tuple[str, ...]
    ) -> Place | None:
        gpus, length = demand.gpus, demand.length
        best: list[NodeTrack] = []
        for name, track in self.up.items():
            if track.gpus < gpus or name in demand.excluded:
                continue
            last = stop if stop + length <= track.until else track.until - length
            t = track.earliest(gpus, length, start, last, name in lifted)
            while account is not None and t <= last:
                allowed = account.earliest(demand.total, demand.cap, length, t, last)
                if allowed == t:
                    break
                t = track.earliest(gpus, length, allowed, last, name in lifted)
            if t < stop and t <= last:
                best, stop = [track], t
            elif t == stop and t <= last:
                best.append(track)
        if not best:
            return None
        end = stop + length
        if len(best) > 1:
            best.sort(key=lambda track: track.preference(stop, end))
        return Place(stop, end, (best[0].name,))

    def _search_gang(
        self, demand: Demand, start: Millis, stop: Millis, account: OwnerTrack | None, lifted: tuple[str, ...]
    ) -> Place | None:
        groups: dict[str, list[NodeTrack]] = {}
        for name, track in self.up.items():
            if track.gpus >= demand.gpus and name not in demand.excluded:
                groups.setdefault(track.group, []).append(track)
        best: tuple[Millis, list[tuple[int, Millis, str]]] | None = None
        for group in groups.values():
            if len(group) < demand.nodes:
                continue
            t = self._search_group(demand, group, start, stop, account, lifted)
            if t > stop:
                continue
            free = [track for track in group if track.fits(demand.gpus, t, t + demand.length)]
            choice = sorted(track.preference(t, t + demand.length) for track in free)[: demand.nodes]
            if best is None or (t, choice) < best:
                best = (t, choice)
                stop = t
        if best is None:
            return None
        t, choice = best
        return Place(t, t + demand.length, tuple(sorted(name for _, _, name in choice)))

    def _search_group(
        self,
        demand: Demand,
        group: list[NodeTrack],
        start: Millis,
        stop: Millis,
        account: OwnerTrack | None,
        lifted: tuple[str, ...],
    ) -> Millis:
        """The first t in [start, stop] at which enough nodes of the group are free, else one past it."""
        gpus, length = demand.gpus, demand.length
        t = start
        firsts = [start - 1] * len(group)
        while True:
            for i, track in enumerate(group):
                if firsts[i] < t:
                    last = min(stop, track.until - length)
                    first = track.earliest(gpus, length, t, last, track.name in lifted)
                    firsts[i] = first if first <= last else FOREVER
            common = sorted(firsts)[demand.nodes - 1]
            if common > stop:
                return FOREVER
            if common == t:
                if account is None:
                    return t
                common = account.earliest(demand.total, demand.cap, length, t, stop)
                if common == t:
                    return t
                if common > stop:
                    return FOREVER
            t = common

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
        tracks = [self.holding(name) for name in place.nodes]
        groups = set()
        for track in tracks:
            if (
                track is None
                or track.name in demand.excluded
                or track.until < place.end
                or not track.fits(demand.gpus, start, place.end)
            ):
                return False
            groups.add(track.group)
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
        keys = {key for name in nodes for key in self.track(name).holders if key in self.placed}
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
        for track in self._tracks.values():
            track.profile.trim(now)
        for owner, account in list(self.owners.items()):
            account.profile.trim(now)
            if not account.total and not account.windows:
                del self.owners[owner]
