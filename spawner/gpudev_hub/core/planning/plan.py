"""The plan of one pool: which claims hold its GPUs, which requests get them next, and when.

Counting GPUs per node is exact: if planned counts never exceed a node's GPUs, enough slots are free at every
start. Planned starts move later only in ``arrange`` and ``extend``, and never past a promise. Places that no
longer fit after a forced change (a lost node, a stop that overran) are lifted and returned. The caller places
them again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from gpudev_hub.core.model import MINUTE, Millis, Place

from . import extension
from .compression import Compression
from .list_scheduling import PromiseOf, Wanted, arrange
from .resource_profile import FOREVER
from .search import earliest_place
from .timetable import Demand, Occupation, PlanNode, Timetable

__all__ = ["FOREVER", "Demand", "Plan", "PlanNode", "PromiseOf", "Wanted"]


class Plan:
    """Occupations (existing claims) and placed demands (queued requests) on the nodes of one pool.

    Intervals are half open. A demand is placed only where nodes and caps have room all through, with all
    others held. An end of ``None`` or ``FOREVER`` is not known.
    """

    def __init__(self, nodes: Iterable[PlanNode] = ()) -> None:
        self.timetable = Timetable()
        self._compression = Compression(self.timetable)
        for node in nodes:
            self.timetable.set_node(node)

    # Nodes

    def set_node(self, node: PlanNode) -> list[str]:
        """Let a node hold places. Returns the keys of placed demands that no longer fit, lifted."""
        self.timetable.set_node(node)
        return self._evict((node.name,), None, -FOREVER, FOREVER)

    def remove_node(self, name: str) -> list[str]:
        """Let a node hold no places. Returns the keys of the demands that needed it, lifted.

        Its occupations stay known and count against their owners.
        """
        self.timetable.remove_node(name)
        return self._evict((name,), None, -FOREVER, FOREVER)

    # Occupations

    def occupy(
        self,
        key: str,
        owner: str,
        gpus: int,
        nodes: tuple[str, ...],
        start: Millis,
        end: Millis | None,
        counts: bool = True,
        since: Millis = -FOREVER,
    ) -> list[str]:
        """Add a claim of ``gpus`` on each of the nodes during [start, end), whether it fits or not.

        A placed demand with the same key becomes this claim. ``counts``: whether the claim counts against its
        owner's cap. Returns the keys of placed demands that no longer fit from ``since`` on, lifted.
        """
        if key in self.timetable.occupations:
            raise ValueError(f"{key} occupies the plan already")
        claim = Occupation(key, owner, gpus, nodes, start, FOREVER if end is None else end, counts)
        planned = self.timetable.lift(key) if key in self.timetable.placed else None
        self.timetable.occupy(claim)
        if planned is not None:
            self._succeed(*planned, claim)
        return self._evict(nodes, owner if counts else None, max(start, since), claim.end)

    def vacate(self, key: str, now: Millis) -> None:
        """Remove a claim; its room is free from ``now`` on."""
        gone = self.timetable.vacate(key)
        self._gain(gone, max(now, gone.start), gone.end)

    def reshape(self, key: str, end: Millis | None, counts: bool = True) -> list[str]:
        """Change a claim's end, or whether it counts against its owner's cap.

        Returns the keys of placed demands that no longer fit, lifted.
        """
        old = self.timetable.vacate(key)
        new = replace(old, end=FOREVER if end is None else end, counts=counts)
        self.timetable.occupy(new)
        self._gain(old, max(new.end, old.start), old.end)
        if old.counts and not new.counts:
            self.timetable.gain((), old.owner, old.total, old.start, old.end)
        start = old.start if new.counts and not old.counts else old.end
        return self._evict(new.nodes, new.owner if new.counts else None, start, new.end)

    # Placed demands

    def earliest(self, demand: Demand, now: Millis, before: Millis | None = None) -> Place | None:
        """Return the earliest place of a demand that is not placed, with everything held; ``None``: none.

        It starts at or after ``now``, and before ``before`` if given. Of equally
        early nodes, the smallest hole comes first, then the nearest end of the running load, then the name.
        """
        stop = FOREVER - 1 if before is None else before - 1
        return earliest_place(self.timetable, demand, now, stop)

    def put(self, demand: Demand, place: Place) -> None:
        """Hold this place for the demand. The caller has checked that it fits (``earliest``, ``fits``)."""
        if demand.key in self.timetable.placed or demand.key in self.timetable.occupations:
            raise ValueError(f"{demand.key} has a place already")
        self.timetable.put(demand, place)
        self._compression.placed(demand.key)

    def arrange(
        self, wanted: Sequence[Wanted], now: Millis, promise_of: PromiseOf
    ) -> dict[str, Place | None]:
        """Place these demands in queue order; younger demands give way within their promises.

        Returns the places given (``None``: no place) and the places moved, in queue order.
        """
        found = arrange(self.timetable, wanted, now, promise_of)
        for one in wanted:
            self._compression.placed(one.demand.key)
        return found.moves

    def lift(self, key: str) -> tuple[Demand, Place]:
        """Take a demand out of the plan and free its room."""
        demand, place = self.timetable.lift(key)
        self.timetable.gain_place(demand, place)
        return demand, place

    def raise_cap(self, key: str, cap: int) -> bool:
        """Raise the cap of a demand's owner, and return whether the demand has a place.

        All demands of the owner may now start earlier where the cap delayed them.
        """
        placed = self.timetable.placed.get(key)
        if placed is None:
            return False
        self.timetable.raise_cap(*placed, cap)
        return True

    def place_of(self, key: str) -> Place | None:
        placed = self.timetable.placed.get(key)
        return None if placed is None else placed[1]

    def fits(self, demand: Demand, place: Place, now: Millis) -> bool:
        """Return whether a demand that is not placed may have this place; time before ``now`` is ignored."""
        return self.timetable.fits(demand, place, now)

    def start_elsewhere(self, key: str, now: Millis) -> Place | None:
        """Move a demand whose start has come to a place that starts at ``now``; ``None``: no such place."""
        demand, place = self.timetable.placed[key]
        self.timetable.release(demand, place)
        found = earliest_place(self.timetable, demand, now, now, lifted=place.nodes)
        self.timetable.hold(demand, place if found is None else found)
        if found is not None:
            self.timetable.placed[key] = (demand, found)
            self.timetable.gain_place(demand, place)
        return found

    # Improving

    def fill_holes(self, now: Millis) -> dict[str, Place]:
        """Move queued requests, in order, into the room gained since the last call. Returns the moved places.

        Afterwards no request that could start now waits. Room that the moves free is left for ``compress``.
        """
        return self._compression.fill_holes(now)

    def compress(self, now: Millis, should_stop: Callable[[], bool]) -> tuple[dict[str, Place], bool]:
        """Move demands earlier, in queue order, until none can start earlier with all others held.

        Each call visits at least one demand. Returns the moved places, and whether this is finished. If not,
        the next call continues from here.
        """
        return self._compression.compress(now, should_stop)

    # Extending

    def extend(
        self, key: str, new_end: Millis, now: Millis, promise_of: PromiseOf
    ) -> dict[str, Place] | None:
        """Let the claim end at ``new_end``, all or nothing.

        Demands in the way, and those behind them, get other places in queue order, none past its promise.
        Returns these places; ``None``: refused, and nothing has changed.
        """
        found = extension.extend(self.timetable, key, new_end, now, promise_of)
        if found is None or found.obstacle is not None:
            return None
        return {moved: place for moved, place in found.moves.items() if place is not None}

    def obstacle(self, key: str, new_end: Millis, now: Millis, promise_of: PromiseOf) -> str | None:
        """Return whose promise keeps the claim from ending at ``new_end``; ``None``: no promise does."""
        found = extension.extend(self.timetable, key, new_end, now, promise_of, keep=False)
        return None if found is None else found.obstacle

    def longest_grantable(
        self, key: str, now: Millis, limit: Millis, promise_of: PromiseOf, step: Millis = MINUTE
    ) -> Millis:
        """Return the latest end <= ``limit`` that ``extend`` grants now; the present end if there is none.

        The result is ``limit``, or an end that moves no demand, or whole steps past the present end.
        """
        return extension.longest_grantable(self.timetable, key, now, limit, promise_of, step)

    def trim(self, now: Millis) -> None:
        """Forget what lies entirely before ``now``."""
        self.timetable.trim(now)

    def _succeed(self, demand: Demand, place: Place, claim: Occupation) -> None:
        """Account for the room, usually none, that is left over when a place becomes a claim."""
        timetable = self.timetable
        owner, gpus = demand.owner, demand.total
        if (claim.owner, claim.gpus, claim.nodes, claim.counts) != (owner, demand.gpus, place.nodes, True):
            timetable.gain_place(demand, place)
            return
        timetable.gain(place.nodes, owner, gpus, place.start, min(claim.start, place.end), demand.cap)
        timetable.gain(place.nodes, owner, gpus, max(claim.end, place.start), place.end, demand.cap)
        if timetable.owners[owner].has_looser(demand.cap):
            timetable.gain((), owner, 0, place.start, place.end, demand.cap)

    def _gain(self, claim: Occupation, start: Millis, end: Millis) -> None:
        self.timetable.gain(claim.nodes, claim.owner if claim.counts else None, claim.total, start, end)

    def _evict(self, nodes: tuple[str, ...], owner: str | None, start: Millis, end: Millis) -> list[str]:
        gone = self.timetable.evict(nodes, owner, start, end)
        self.timetable.gain_places(gone)
        return [demand.key for demand, _ in gone]
