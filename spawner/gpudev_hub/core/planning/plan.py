"""The plan of one pool: who has what, who gets what next and when.

Planning is by counts of GPUs per node, which is exact: as long as the planned counts never exceed a node's
GPUs, enough slots are free at every start. Nothing here moves a planned start later, except an extension
that says so; what can't stay where it is after something was forced (a node lost, a stop that overran) is
lifted and named, for the caller to place again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from gpudev_hub.core.model import MINUTE, Millis, Place

from . import extension
from .compression import Compression
from .list_scheduling import PromiseOf, Wanted, arrange
from .resource_profile import FOREVER
from .timetable import Demand, Ledger, Occupation, PlanNode

__all__ = ["FOREVER", "Blocker", "Demand", "Plan", "PlanNode", "PromiseOf", "Wanted"]


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why a place does not start earlier on one of its nodes."""

    node: str
    frees_at: Millis
    """From then on the node has the room, up to the start of the place."""
    keys: tuple[str, ...]
    """The claims and placed demands that end then."""


class Plan:
    """Occupations (claims that exist) and placed demands (queued) on the nodes of one pool.

    Intervals are half open. A demand may be placed only where nodes and caps have room all through, with
    every other one held. `end=None` or `FOREVER` is an end that is not known.
    """

    def __init__(self, nodes: Iterable[PlanNode] = ()) -> None:
        self._ledger = Ledger()
        self._compression = Compression(self._ledger)
        for node in nodes:
            self._ledger.set_node(node)

    # Nodes

    def set_node(self, node: PlanNode) -> list[str]:
        """The node may hold places. Returns the placed demands that no longer fit, lifted."""
        self._ledger.set_node(node)
        return self._evict((node.name,), None, -FOREVER, FOREVER)

    def remove_node(self, name: str) -> list[str]:
        """The node may hold no places. Returns the demands that needed it, lifted.

        What occupies it stays known and counts against its owners.
        """
        self._ledger.remove_node(name)
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
        if key in self._ledger.occupations:
            raise ValueError(f"{key} occupies the plan already")
        claim = Occupation(key, owner, gpus, nodes, start, FOREVER if end is None else end, counts)
        planned = self._ledger.lift(key) if key in self._ledger.placed else None
        self._ledger.occupy(claim)
        if planned is not None:
            self._succeed(*planned, claim)
        return self._evict(nodes, owner if counts else None, max(start, since), claim.end)

    def vacate(self, key: str, now: Millis) -> None:
        """The claim is gone: its room is free from `now` on."""
        gone = self._ledger.vacate(key)
        self._gain(gone, max(now, gone.start), gone.end)

    def reshape(self, key: str, end: Millis | None, counts: bool = True) -> list[str]:
        """The claim ends at another instant, or begins or ceases to count against its owner's cap.

        Returns the placed demands that no longer fit, lifted.
        """
        old = self._ledger.vacate(key)
        new = replace(old, end=FOREVER if end is None else end, counts=counts)
        self._ledger.occupy(new)
        self._gain(old, max(new.end, old.start), old.end)
        if old.counts and not new.counts:
            self._ledger.gain((), old.owner, old.total, old.start, old.end)
        start = old.start if new.counts and not old.counts else old.end
        return self._evict(new.nodes, new.owner if new.counts else None, start, new.end)

    def occupations(self) -> dict[str, Occupation]:
        """All claims, by key."""
        return dict(self._ledger.occupations)

    # Placed demands

    def earliest(self, demand: Demand, now: Millis, before: Millis | None = None) -> Place | None:
        """The exact earliest place for a demand that is not placed, with everything held.

        It starts neither before `now` nor before `demand.not_before`, and strictly before `before` if that
        is given. Among equally early nodes: the smallest hole, then the nearest end of what is running, then
        by name. None: no such place.
        """
        stop = FOREVER - 1 if before is None else before - 1
        return self._ledger.search(demand, max(now, demand.not_before), stop)

    def put(self, demand: Demand, place: Place) -> None:
        """Hold this place for the demand. The caller knows that it fits: from `earliest` or `fits`."""
        if demand.key in self._ledger.placed or demand.key in self._ledger.occupations:
            raise ValueError(f"{demand.key} has a place already")
        self._ledger.put(demand, place)
        self._compression.placed(demand.key)

    def arrange(
        self, wanted: Sequence[Wanted], now: Millis, promise_of: PromiseOf
    ) -> dict[str, Place | None]:
        """Place these demands in queue order; what is planned for younger ones yields, within its promise.

        Returns the places given (`None`: there is none) and the places moved, in queue order.
        """
        found = arrange(self._ledger, wanted, now, promise_of)
        for one in wanted:
            self._compression.placed(one.demand.key)
        return found.moves

    def lift(self, key: str) -> tuple[Demand, Place]:
        """Take a demand out of the plan; its room is free."""
        demand, place = self._ledger.lift(key)
        self._ledger.gain_place(demand, place)
        return demand, place

    def raise_cap(self, key: str, cap: int) -> bool:
        """The owner of a demand may hold more GPUs at once than before; whether the demand has a place.

        All demands of the owner may now start earlier, wherever the cap was what delayed them.
        """
        placed = self._ledger.placed.get(key)
        if placed is None:
            return False
        self._ledger.raise_cap(*placed, cap)
        return True

    def place_of(self, key: str) -> Place | None:
        """The place of a demand, None when it has none."""
        placed = self._ledger.placed.get(key)
        return None if placed is None else placed[1]

    def placed(self) -> list[tuple[Demand, Place]]:
        """All placed demands in queue order."""
        return [self._ledger.placed[key] for _, key in self._ledger.queue]

    def fits(self, demand: Demand, place: Place, now: Millis) -> bool:
        """Whether a demand that is not placed may have this very place; what lies before `now` is over."""
        return self._ledger.fits(demand, place, now)

    def start_elsewhere(self, key: str, now: Millis) -> Place | None:
        """Move a demand whose start has come to a place that starts at `now`; `None`: there is none."""
        demand, place = self._ledger.placed[key]
        self._ledger.release(demand, place)
        found = self._ledger.search(demand, now, now, lifted=place.nodes)
        self._ledger.hold(demand, place if found is None else found)
        if found is not None:
            self._ledger.placed[key] = (demand, found)
            self._ledger.gain_place(demand, place)
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
        return extension.longest_extension(self._ledger, key, now, limit)

    def extend(
        self, key: str, new_end: Millis, now: Millis, promise_of: PromiseOf
    ) -> dict[str, Place] | None:
        """Let the claim end at `new_end`, all or nothing.

        Either everything placed is held, or those in the way and those behind them get other places in queue
        order, none past its promise: these moved places are returned. None: refused, and nothing has changed.
        """
        found = extension.extend(self._ledger, key, new_end, now, promise_of)
        if found is None or found.obstacle is not None:
            return None
        return {moved: place for moved, place in found.moves.items() if place is not None}

    def obstacle(self, key: str, new_end: Millis, now: Millis, promise_of: PromiseOf) -> str | None:
        """Whose promise does not let the claim end at `new_end`; `None`: nobody's."""
        found = extension.extend(self._ledger, key, new_end, now, promise_of, keep=False)
        return None if found is None else found.obstacle

    def longest_grantable(
        self, key: str, now: Millis, limit: Millis, promise_of: PromiseOf, step: Millis = MINUTE
    ) -> Millis:
        """The longest end <= `limit` that `extend` grants in this state; the present end when there is none.

        It is `limit`, or what needs nobody moved, or a whole number of steps past the present end.
        """
        return extension.longest_grantable(self._ledger, key, now, limit, promise_of, step)

    # Reasons

    def free(self, node: str, at: Millis) -> int:
        """GPUs of the node that nothing takes at that instant; 0 on a node that is down or over."""
        track = self._ledger.up.get(node)
        return 0 if track is None or at >= track.until else max(0, track.gpus - track.profile.at(at))

    def idle_now(self, now: Millis) -> dict[str, int]:
        """Free GPUs at `now` of every node that is up."""
        return {name: self.free(name, now) for name in self._ledger.up}

    def blockers(self, demand: Demand, place: Place, now: Millis) -> list[Blocker]:
        """What each node of the place is waiting for; nodes that are free from now on are left out."""
        blockers = []
        for name in place.nodes:
            track = self._ledger.track(name)
            frees_at = track.profile.last_above(now, place.start, track.gpus - demand.gpus)
            if frees_at is None:
                continue
            ending = [key for key in track.holders if self._end_of(key) == frees_at]
            blockers.append(Blocker(name, frees_at, tuple(sorted(ending))))
        return blockers

    def cap_delays(self, demand: Demand, place: Place, now: Millis) -> bool:
        """Whether the demand, placed or not, could start before this place if its owner's cap were higher."""
        placed = self._ledger.placed.get(demand.key)
        if placed is not None:
            self._ledger.release(*placed)
        lifted = () if placed is None else placed[1].nodes
        free = replace(demand, owner="", cap=FOREVER)
        earlier = self._ledger.search(free, max(now, demand.not_before), place.start - 1, lifted)
        if placed is not None:
            self._ledger.hold(*placed)
        return earlier is not None

    def trim(self, now: Millis) -> None:
        """Forget what lies wholly before `now`."""
        self._ledger.trim(now)

    def _end_of(self, key: str) -> Millis:
        claim = self._ledger.occupations.get(key)
        return claim.end if claim is not None else self._ledger.placed[key][1].end

    def _succeed(self, demand: Demand, place: Place, claim: Occupation) -> None:
        """Account for what a place that became a claim leaves free: mostly nothing."""
        ledger = self._ledger
        owner, gpus = demand.owner, demand.total
        if (claim.owner, claim.gpus, claim.nodes, claim.counts) != (owner, demand.gpus, place.nodes, True):
            ledger.gain_place(demand, place)
            return
        ledger.gain(place.nodes, owner, gpus, place.start, min(claim.start, place.end), demand.cap)
        ledger.gain(place.nodes, owner, gpus, max(claim.end, place.start), place.end, demand.cap)
        if ledger.owners[owner].has_looser(demand.cap):
            ledger.gain((), owner, 0, place.start, place.end, demand.cap)

    def _gain(self, claim: Occupation, start: Millis, end: Millis) -> None:
        self._ledger.gain(claim.nodes, claim.owner if claim.counts else None, claim.total, start, end)

    def _evict(self, nodes: tuple[str, ...], owner: str | None, start: Millis, end: Millis) -> list[str]:
        gone = self._ledger.evict(nodes, owner, start, end)
        self._ledger.gain_places(gone)
        return [demand.key for demand, _ in gone]
