"""Moves placed demands earlier after room was gained, in queue order, each only to a strictly earlier start.

One demand at a time is lifted and placed again with all others held. So no start gets later, whenever this
stops. A demand is visited only if room was gained within its reach since the last visit. So each gain is kept
until all demands were visited with it.
"""

from bisect import bisect_right
from collections.abc import Callable

from gpudev_hub.core.model import Millis, Place

from .capacity import Gains
from .resource_profile import FOREVER
from .search import earliest_place
from .timetable import Demand, Timetable

_FRONT = (-FOREVER, "")


class Compression:
    """The state of compressing one pool's plan, across calls of ``compress`` (the cascade)."""

    def __init__(self, timetable: Timetable) -> None:
        self._timetable = timetable
        self._holes = Gains()
        """Gains for the next ``fill_holes``."""
        self._ahead = Gains()
        """Gains for demands still to be visited in this pass; ``_behind``: gains for the next pass."""
        self._behind = Gains()
        self._at = _FRONT
        """The last demand visited in the present pass."""
        self._fresh: set[str] = set()
        """Placed demands that were not visited yet."""
        timetable.gains = (self._holes, self._ahead, self._behind)

    def placed(self, key: str) -> None:
        """Let the cascade visit a newly placed demand once, even if no room is gained."""
        self._fresh.add(key)

    def fill_holes(self, now: Millis) -> dict[str, Place]:
        """Move demands into the room gained since the last call. Returns the moves.

        Room that they free is left for the cascade, but no demand that could start now keeps waiting.
        """
        moves: dict[str, Place] = {}
        holes = self._holes.take()
        if holes:
            self._sweep(holes, now, FOREVER, moves)
        while True:
            pending = Gains()
            pending.add(self._ahead)
            pending.add(self._behind)
            if not self._sweep(pending, now, now, moves):
                break
        self._holes.take()
        return moves

    def _sweep(self, gains: Gains, now: Millis, latest: Millis, moves: dict[str, Place]) -> bool:
        """Visit all in queue order, for a start up to ``latest``; return whether any moved."""
        timetable = self._timetable
        moved = False
        most = max((t.gpus for t in timetable.up.values()), default=0)
        if latest <= now:
            most = max((t.gpus - t.profile.at(now) for t in timetable.up.values()), default=0)
        for _, key in timetable.queue:
            demand, place = timetable.placed[key]
            if demand.gpus <= most and self._in_reach(demand, place, gains, now, latest):
                better = self._improve(demand, place, now, latest)
                if better is not None:
                    moves[key] = better
                    moved = True
        return moved

    def compress(self, now: Millis, should_stop: Callable[[], bool]) -> tuple[dict[str, Place], bool]:
        """Continue the cascade until no demand can start earlier with all others held, or it should stop.

        Each call visits at least one demand. Returns the moves, and whether the cascade is finished.
        """
        timetable = self._timetable
        moves: dict[str, Place] = {}
        while True:
            if self._at == _FRONT:
                self._behind.take()  # a new pass shows all of ``_ahead`` to every demand
            i = bisect_right(timetable.queue, self._at)
            while i < len(timetable.queue) and (self._ahead or self._fresh):
                self._at = timetable.queue[i]
                key = self._at[1]
                demand, place = timetable.placed[key]
                if key in self._fresh or self._in_reach(demand, place, self._ahead, now, FOREVER):
                    self._fresh.discard(key)
                    better = self._improve(demand, place, now, FOREVER)
                    if better is not None:
                        moves[key] = better
                if should_stop():
                    return moves, False
                i += 1
            self._at = _FRONT
            self._ahead.take()
            self._ahead.add(self._behind)
            self._fresh.intersection_update(timetable.placed)
            if not self._ahead and not self._fresh:
                self._holes.take()
                return moves, True

    def _in_reach(self, demand: Demand, place: Place, gains: Gains, now: Millis, latest: Millis) -> bool:
        """Return whether the gains may let the demand start earlier. False is always right."""
        timetable = self._timetable
        latest = min(latest, place.start - 1)
        if now > latest:
            return False
        length = demand.length
        freed = gains.owners.get(demand.owner)
        if freed is not None:
            start, end, left = freed
            if demand.total > left and max(now, start - length + 1) <= min(latest, end - 1):
                return True
        for name, (start, end) in gains.nodes.items():
            low, high = max(now, start - length + 1), min(latest, end - 1)
            node = timetable.up.get(name)
            if low > high or node is None or name in demand.excluded or node.gpus < demand.gpus:
                continue
            if node.earliest(demand.gpus, length, low, min(high, node.until - length)) <= high:
                return True
            # On its own nodes, a demand can only shift into room that reaches up to its start.
            if (
                name in place.nodes
                and high > place.start - length
                and node.gpus - node.profile.at(place.start - 1) >= demand.gpus
            ):
                return True
        return False

    def _improve(self, demand: Demand, place: Place, now: Millis, latest: Millis) -> Place | None:
        """Move the demand to its earliest start, if that is strictly earlier than its present start."""
        timetable = self._timetable
        latest = min(latest, place.start - 1)
        if now > latest:
            return None
        timetable.release(demand, place)
        better = earliest_place(timetable, demand, now, latest, lifted=place.nodes)
        if better is None:
            timetable.hold(demand, place)
            return None
        timetable.hold(demand, better)
        timetable.placed[demand.key] = (demand, better)
        timetable.gain_place(demand, place)
        return better
