"""Places demands without a place in queue order; planned places of younger demands give way.

The oldest is placed first. A younger demand keeps its place if that is still free, else it gets the earliest
one left. None starts after its promise (``PromiseOf``): a demand that would is held in its place, and the
others are placed around it. The former places are feasible together, so holding everything always succeeds.
Decision record 0007 has the reasons and the proof.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpudev_hub.core.model import Millis, Place

from .resource_profile import FOREVER
from .search import earliest_place
from .timetable import Demand, Timetable

PromiseOf = Callable[[str], Millis]
"""Returns, for a key, the guaranteed start: the latest instant at which the queued request may start."""
_MOST_HELD = 12
"""How many times one more demand is held and the others are placed around it. After that, all are held."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A demand that needs a place."""

    demand: Demand
    before: Place | None = None
    """The former place, which the demand gets again if it is still free."""
    latest: Millis | None = None
    """The latest start; if it cannot be met, nothing changes. ``None``: as early as possible."""
    left: Place | None = None
    """The place that it was lifted from, if the room there is not accounted for yet."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The result of ``arrange``."""

    moves: dict[str, Place | None]
    """In queue order: places of the wanted demands (``None``: no place) and of demands that gave way."""
    obstacle: str | None = None
    """The first demand in queue order that could not start by its promise; then there are no moves."""


@dataclass(frozen=True, slots=True)
class _Entry:
    demand: Demand
    before: Place | None
    latest: Millis | None
    placed: bool
    """Whether it has the place ``before``, which can always be held."""


_Places = dict[str, Place | None]


def arrange(
    timetable: Timetable, wanted: Sequence[Wanted], now: Millis, promise_of: PromiseOf, *, keep: bool = True
) -> Arrangement:
    """Place the wanted demands. With ``keep`` false, only return the result and change nothing."""
    return _Arranging(timetable, wanted, now, promise_of).run(keep)


class _Arranging:
    """One call of ``arrange``: younger demands are out of the timetable while places are searched."""

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
        self._held = {demand.key for demand, _ in younger}
        """Keys of the demands that stay where they are."""
        self._smaller: dict[str, Millis] = {}
        """Node to the instant from which its load was once smaller: bounds found with more load are void."""

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
        """Return places, already in the timetable, for all demands not held; else the first obstacle."""
        self._let_go(self._entries)
        found = self._sweep(in_place=True)
        if isinstance(found, dict):
            return found, None
        obstacle = found
        if self._limited:
            # Demands that keep their places may block the limited ones.
            again = self._sweep(in_place=False)
            if isinstance(again, dict):
                return again, None
        # A demand that starts exactly at its promise cannot give way.
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
        """Place all not held, in queue order; or return the key of the first that would pass its promise.

        ``in_place``: a demand keeps its place if it can, otherwise only if nothing is earlier.
        """
        self._loosen()
        found: _Places = {}
        for entry in self._entries:
            demand, before = entry.demand, entry.before
            if demand.key in self._held:
                continue
            free = before is not None and self._timetable.fits(demand, before, self._now)
            if free and (in_place or not entry.placed):
                place = before
            else:
                stop = FOREVER - 1 if entry.latest is None else entry.latest
                place = earliest_place(self._timetable, demand, self._now, stop)
            if free and before is not None and place is not None and before.start <= place.start:
                place = before
            if place is None and entry.latest is not None:
                self._take_out(found)
                return demand.key
            found[demand.key] = place
            if place is not None:
                self._timetable.hold(demand, place)
        return found

    def _hold(self, entries: Iterable[_Entry]) -> None:
        for entry in entries:
            if entry.placed and entry.before is not None and entry.demand.key not in self._held:
                self._timetable.hold(entry.demand, entry.before)
                self._held.add(entry.demand.key)

    def _let_go(self, entries: Iterable[_Entry]) -> None:
        """Lift these demands, so that they may be placed elsewhere."""
        for entry in entries:
            if entry.before is not None and entry.demand.key in self._held:
                self._release(entry.demand, entry.before)
                self._held.remove(entry.demand.key)

    def _take_out(self, places: _Places) -> None:
        """Undo a sweep."""
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
        self._hold(self._entries)
        self._loosen()

    def _settle(self, changed: Iterable[_Entry], places: _Places) -> None:
        """Record the places found, which are in the timetable already."""
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
