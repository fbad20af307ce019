"""The plan of one pool: who has what, who gets what next and when.

Planning is by counts of GPUs per node, which is exact: as long as the planned counts never exceed a node's
GPUs, enough slots are free at every start. Nothing here moves a planned start later, except an extension
that says so; what can't stay where it is after something was forced (a node lost, a stop that overran) is
lifted and named, for the caller to place again.
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
    """Occupations (claims that exist) and placed demands (queued) on the nodes of one pool.

    Intervals are half open. A demand may be placed only where nodes and caps have room all through, with
    every other one held. `end=None` or `FOREVER` is an end that is not known.
    """

    def __init__(self, nodes: Iterable[PlanNode] = ()) -> None:
        self.timetable = Timetable()
        self._compression = Compression(self.timetable)
        for node in nodes:
            self.timetable.set_node(node)

    # Nodes

    def set_node(self, node: PlanNode) -> list[str]:
        """The node may hold places. Returns the placed demands that no longer fit, lifted."""
        self.timetable.set_node(node)
        return self._evict((node.name,), None, -FOREVER, FOREVER)

    def remove_node(self, name: str) -> list[str]:
        """The node may hold no places. Returns the demands that needed it, lifted.

        What occupies it stays known and counts against its owners.
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
        """A claim exists: `gpus` on each of the nodes during [start, end). Facts need not be feasible.

        A placed demand of the same key becomes this claim. `counts` false: not (any more) against the owner's
        cap. Returns the placed demands that no longer fit from `since` on, lifted: what was before is over.
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
        """The claim is gone: its room is free from `now` on."""
        gone = self.timetable.vacate(key)
        self._gain(gone, max(now, gone.start), gone.end)

    def reshape(self, key: str, end: Millis | None, counts: bool = True) -> list[str]:
        """The claim ends at another instant, or begins or ceases to count against its owner's cap.

        Returns the placed demands that no longer fit, lifted.
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
        """The exact earliest place for a demand that is not placed, with everything held.

        It starts neither before `now` nor before `demand.not_before`, and strictly before `before` if that
        is given. Among equally early nodes: the smallest hole, then the nearest end of what is running, then
        by name. None: no such place.
        """
        stop = FOREVER - 1 if before is None else before - 1
        return earliest_place(self.timetable, demand, max(now, demand.not_before), stop)

    def put(self, demand: Demand, place: Place) -> None:
        """Hold this place for the demand. The caller knows that it fits: from `earliest` or `fits`."""
        if demand.key in self.timetable.placed or demand.key in self.timetable.occupations:
            raise ValueError(f"{demand.key} has a place already")
        self.timetable.put(demand, place)
        self._compression.placed(demand.key)

    def arrange(
        self, wanted: Sequence[Wanted], now: Millis, promise_of: PromiseOf
    ) -> dict[str, Place | None]:
        """Place these demands in queue order; what is planned for younger ones yields, within its promise.

        Returns the places given (`None`: there is none) and the places moved, in queue order.
        """
        found = arrange(self.timetable, wanted, now, promise_of)
        for one in wanted:
            self._compression.placed(one.demand.key)
        return found.moves

    def lift(self, key: str) -> tuple[Demand, Place]:
        """Take a demand out of the plan; its room is free."""
        demand, place = self.timetable.lift(key)
        self.timetable.gain_place(demand, place)
        return demand, place

    def raise_cap(self, key: str, cap: int) -> bool:
        """The owner of a demand may hold more GPUs at once than before; whether the demand has a place.

        All demands of the owner may now start earlier, wherever the cap was what delayed them.
        """
        placed = self.timetable.placed.get(key)
        if placed is None:
            return False
        self.timetable.raise_cap(*placed, cap)
        return True

    def place_of(self, key: str) -> Place | None:
        """The place of a demand, None when it has none."""
        placed = self.timetable.placed.get(key)
        return None if placed is None else placed[1]

    def placed(self) -> list[tuple[Demand, Place]]:
        """All placed demands in queue order."""
        return [self.timetable.placed[key] for _, key in self.timetable.queue]

    def fits(self, demand: Demand, place: Place, now: Millis) -> bool:
        """Whether a demand that is not placed may have this very place; what lies before `now` is over."""
        return self.timetable.fits(demand, place, now)

    def start_elsewhere(self, key: str, now: Millis) -> Place | None:
        """Move a demand whose start has come to a place that starts at `now`; `None`: there is none."""
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
        """Give the room gained since the last call to the queue, in its order; returns the moved places.

        Afterwards nobody who could start now is left waiting for later. The room that the moves themselves
        freed is what `compress` goes on with.
        """
        return self._compression.fill_holes(now)

    def compress(self, now: Millis, should_stop: Callable[[], bool]) -> tuple[dict[str, Place], bool]:
        """Move demands earlier, in queue order, until nobody can start earlier with all others held.

        Returns the moved places, and whether it is through; else the next call goes on from here. At least
        one demand is looked at in each call.
        """
        return self._compression.compress(now, should_stop)

    # Extending

    def longest_extension(self, key: str, now: Millis, limit: Millis) -> Millis:
        """The largest end <= `limit` for the claim with every placed demand held; at least the end it has."""
        return extension.longest_extension(self.timetable, key, now, limit)

    def extend(
        self, key: str, new_end: Millis, now: Millis, promise_of: PromiseOf
    ) -> dict[str, Place] | None:
        """Let the claim end at `new_end`, all or nothing.

        Either everything placed is held, or those in the way and those behind them get other places in queue
        order, none past its promise: these moved places are returned. None: refused, and nothing has changed.
        """
        found = extension.extend(self.timetable, key, new_end, now, promise_of)
        if found is None or found.obstacle is not None:
            return None
        return {moved: place for moved, place in found.moves.items() if place is not None}

    def obstacle(self, key: str, new_end: Millis, now: Millis, promise_of: PromiseOf) -> str | None:
        """Whose promise does not let the claim end at `new_end`; `None`: nobody's."""
        found = extension.extend(self.timetable, key, new_end, now, promise_of, keep=False)
        return None if found is None else found.obstacle

    def longest_grantable(
        self, key: str, now: Millis, limit: Millis, promise_of: PromiseOf, step: Millis = MINUTE
    ) -> Millis:
        """The longest end <= `limit` that `extend` grants in this state; the present end when there is none.

        It is `limit`, or what needs nobody moved, or a whole number of steps past the present end.
        """
        return extension.longest_grantable(self.timetable, key, now, limit, promise_of, step)

    # Reading

    def free(self, name: str, at: Millis) -> int:
        """GPUs of the node that nothing takes at that instant; 0 on a node that is down or over."""
        node = self.timetable.up.get(name)
        return 0 if node is None or at >= node.until else max(0, node.gpus - node.profile.at(at))

    def trim(self, now: Millis) -> None:
        """Forget what lies wholly before `now`."""
        self.timetable.trim(now)

    def _succeed(self, demand: Demand, place: Place, claim: Occupation) -> None:
        """Account for what a place that became a claim leaves free: mostly nothing."""
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
