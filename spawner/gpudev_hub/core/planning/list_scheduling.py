"""Placing demands that have no place (any more) in queue order: what is planned for younger ones yields.

The oldest is placed first. Each younger one keeps its place if that is still free, else it gets the earliest
one left. Nobody passes their promise: who would is held in place, and the others are placed around them.
The places as they were are feasible together, so with everybody held this comes to an end. Decision record
0007 has the reasons and the proof.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpudev_hub.core.model import Millis, Place

from .resource_profile import FOREVER
from .search import earliest_place
from .timetable import Demand, Timetable

#: When a queued request must have started at the latest.
PromiseOf = Callable[[str], Millis]
#: So often somebody more is held, and the others are placed around them; after that, all are held.
_MOST_HELD = 12


@dataclass(frozen=True, slots=True)
class Wanted:
    """A demand that is to get a place."""

    demand: Demand
    before: Place | None = None
    """The place it had: it gets that again if it is still free."""
    latest: Millis | None = None
    """It must start by then, or all stays as it is; `None`: as early as can be, whenever that is."""
    left: Place | None = None
    """The place that it was lifted from, if the room there is not accounted for yet."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What came of it."""

    moves: dict[str, Place | None]
    """In queue order: places of those wanted (`None`: there is none), and of those who made way for them."""
    obstacle: str | None = None
    """The first who could not start by their promise in queue order; then there are no moves."""


@dataclass(frozen=True, slots=True)
class _Entry:
    demand: Demand
    before: Place | None
    latest: Millis | None
    placed: bool
    """It has the place `before`, which can always be held."""


_Places = dict[str, Place | None]


def arrange(
    timetable: Timetable, wanted: Sequence[Wanted], now: Millis, promise_of: PromiseOf, *, keep: bool = True
) -> Arrangement:
    """Place the wanted demands. With `keep` false nothing is changed: only the answer is looked for."""
    return _Arranging(timetable, wanted, now, promise_of).run(keep)


class _Arranging:
    """Loads of younger demands are out of the timetable while places are looked for."""

    def __init__(
        self, timetable: Timetable, wanted: Sequence[Wanted], now: Millis, promise_of: PromiseOf
    ) -> None:
        self._timetable = timetable
        self._wanted = wanted
        self._now = now
        self._limited = any(w.latest is not None for w in wanted)
        entries = [_Entry(w.demand, w.before, w.latest, placed=False) for w in wanted]
        first = min(_order(entry) for entry in entries)
        younger = [timetable.placed[key] for order, key in timetable.queue if (order, key) > first]
        entries += [_Entry(demand, place, promise_of(demand.key), placed=True) for demand, place in younger]
        self._entries = sorted(entries, key=_order)
        #: Keys of those who stay where they are.
        self._held = {demand.key for demand, _ in younger}
        #: From when on a node's load is or was smaller than it will be: what was learnt with more is void.
        self._smaller: dict[str, Millis] = {}

    def run(self, keep: bool) -> Arrangement:
        found, obstacle = self._attempts()
        if found is None:
            self._put_back()
            return Arrangement({}, obstacle)
        changed = [e for e in self._entries if not e.placed or found.get(e.demand.key, e.before) != e.before]
        moves = {e.demand.key: found[e.demand.key] for e in changed}
        if keep:
            self._settle(changed, moves)
        else:
            self._take_out(found)
            self._put_back()
        return Arrangement(moves)

    def _attempts(self) -> tuple[_Places | None, str | None]:
        """Places for all who are not held, which are in the timetable then; else the first obstacle."""
        self._let_go(self._entries)
        found = self._sweep(in_place=True)
        if isinstance(found, dict):
            return found, None
        obstacle = found
        if self._limited:
            # Those who keep their places may be what is in the way.
            again = self._sweep(in_place=False)
            if isinstance(again, dict):
                return again, None
        # Who is guaranteed the very start that they have can't make way at all.
        self._hold(e for e in self._entries if e.before is not None and e.before.start == e.latest)
        by_key = {entry.demand.key: entry for entry in self._entries}
        for _ in range(_MOST_HELD):
            if not by_key[found].placed:
                break
            self._hold([by_key[found]])
            found = self._sweep(in_place=True)
            if isinstance(found, dict):
                return found, None
        self._hold(self._entries)
        last = self._sweep(in_place=True)
        return (last, None) if isinstance(last, dict) else (None, obstacle)

    def _sweep(self, *, in_place: bool) -> _Places | str:
        """Place all who are not held, in queue order; or the key of the first who would pass their promise.

        `in_place`: who can keep their place does, else only where nothing is earlier.
        """
        self._loosen()
        found: _Places = {}
        for entry in self._entries:
            demand, before = entry.demand, entry.before
            if demand.key in self._held:
                continue
            free = before is not None and self._timetable.fits(demand, before, self._now)
            place = before if free and (in_place or not entry.placed) else self._search(entry)
            if free and before is not None and place is not None and before.start <= place.start:
                place = before
            if place is None and entry.latest is not None:
                self._take_out(found)
                return demand.key
            found[demand.key] = place
            if place is not None:
                self._timetable.hold(demand, place)
        return found

    def _search(self, entry: _Entry) -> Place | None:
        stop = FOREVER - 1 if entry.latest is None else entry.latest
        return earliest_place(self._timetable, entry.demand, max(self._now, entry.demand.not_before), stop)

    def _hold(self, entries: Iterable[_Entry]) -> None:
        """These stay where they are."""
        for entry in entries:
            if entry.placed and entry.before is not None and entry.demand.key not in self._held:
                self._timetable.hold(entry.demand, entry.before)
                self._held.add(entry.demand.key)

    def _let_go(self, entries: Iterable[_Entry]) -> None:
        """These may be placed elsewhere."""
        for entry in entries:
            if entry.before is not None and entry.demand.key in self._held:
                self._release(entry.demand, entry.before)
                self._held.remove(entry.demand.key)

    def _take_out(self, places: _Places) -> None:
        """Undo what a sweep did."""
        for entry in self._entries:
            place = places.get(entry.demand.key)
            if place is not None:
                self._release(entry.demand, place)

    def _release(self, demand: Demand, place: Place) -> None:
        self._timetable.release(demand, place)
        for name in place.nodes:
            self._smaller[name] = min(place.start, self._smaller.get(name, place.start))

    def _loosen(self) -> None:
        for name, start in self._smaller.items():
            self._timetable.loosen((name,), start)

    def _put_back(self) -> None:
        """All is as it was."""
        self._hold(self._entries)
        self._loosen()

    def _settle(self, changed: Iterable[_Entry], places: _Places) -> None:
        """These places, which are in the timetable, are the demands' now."""
        left = [(w.demand, w.left) for w in self._wanted if w.left is not None]
        for entry in changed:
            demand, place = entry.demand, places[entry.demand.key]
            if place is not None and entry.placed and entry.before is not None:
                self._timetable.placed[demand.key] = (demand, place)
                left.append((demand, entry.before))
            elif place is not None:
                self._timetable.release(demand, place)
                self._timetable.put(demand, place)
        self._timetable.gain_places(left)


def _order(entry: _Entry) -> tuple[int, str]:
    return entry.demand.order, entry.demand.key
